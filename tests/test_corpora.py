"""Corpora: files are read as they are, splits stay apart, errors say what to do."""

import gzip
import hashlib
import logging
import random
import re
import unicodedata
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from threading import Thread

import pooch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotated_transformer import corpora
from annotated_transformer.corpora import (
    DATA_VARIABLE,
    arriving_lines,
    decode_lines,
    download_multi30k,
    load_corpus,
    multi30k,
    multi30k_at_hand,
    parallel_text,
    parallel_tsv,
    read_lines,
    sample_captions,
    split_corpus,
)
from annotated_transformer.errors import InputError
from annotated_transformer.text import normalize

PAIRS = [("Ein Hund.", "A dog."), ("Zwei Hüte.", "Two hats."), ("Drei.", "Three.")]
pack = partial(gzip.compress, mtime=0)
few = settings(max_examples=50, deadline=None, derandomize=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the reader's data folder nor the reader's cache."""
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)


def text(side: int, *, end: str = "\n") -> bytes:
    return "".join(pair[side] + end for pair in PAIRS).encode()


def write(folder: Path, **contents: bytes) -> list[Path]:
    """Files with the given bytes; their names have dots for underscores."""
    paths = [folder / name.replace("_", ".") for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    return paths


# Files of the reader's own


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_marks_do_not_matter(tmp_path, start, end):
    files = write(tmp_path, a_de=start + text(0, end=end), b_en=text(1).rstrip(b"\n"))
    assert parallel_text(*files) == PAIRS


def test_packed_files_read_like_plain_ones(tmp_path):
    assert parallel_text(*write(tmp_path, a_de_gz=pack(text(0)), b=text(1))) == PAIRS


line = st.text(st.characters(codec="utf-8", exclude_characters="\n\t\0\ufeff"))
sentence = line.filter(normalize)


@few
@given(pairs=st.lists(st.tuples(sentence, sentence), min_size=1))
def test_whatever_is_written_is_read_back(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("pairs")
    sides = ["\n".join(side).encode() for side in zip(*pairs, strict=True)]
    tsv = "\n".join(map("\t".join, pairs)).encode()
    source, target, both = write(folder, source=sides[0], target=sides[1], both=tsv)
    normalized = [(normalize(a), normalize(b)) for a, b in pairs]
    assert parallel_text(source, target) == normalized
    assert parallel_tsv(both) == normalized


@pytest.mark.parametrize(
    "change",
    [
        partial(unicodedata.normalize, "NFD"),
        lambda text: text.replace(" ", "  "),
        lambda text: text.replace(" ", "\u00a0"),
        lambda text: text.replace("e", "e\u00ad"),
        lambda text: "\ufeff" + text,
    ],
    ids=["NFD", "two spaces", "no-break", "soft hyphen", "byte-order mark"],
)
def test_twins_are_read_as_one_and_stay_on_one_side(tmp_path, change):
    a, b = write(tmp_path, a=change(text(0)[:-1].decode()).encode(), b=text(1))
    assert parallel_text(a, b) == PAIRS
    rows = [(f"Der Hund {i} läuft.", f"Dog {i} résumés.") for i in range(60)]
    twins = [(change(source), change(target)) for source, target in rows]
    tsv = "".join(f"{source}\t{target}\n" for source, target in rows + twins)
    (path,) = write(tmp_path, tsv=tsv.encode())
    splits = load_corpus(str(path))
    assert {len(split) for split in splits.values()} == {6, 108}
    unread = split_corpus(rows + twins)  # given by a program, not read from a file
    for parts in (splits, unread):
        held_out = {normalize(source) for source, _ in parts["test"]}
        assert not held_out & {normalize(source) for source, _ in parts["train"]}


def test_a_test_sentence_is_not_trained_on_in_other_capitals():
    rows = [(f"Der ﬁnder {i} läuft.", str(i)) for i in range(60)]
    splits = split_corpus(rows + [(s.upper().replace("ﬁ", "FI"), t) for s, t in rows])
    held_out = {target for _, target in splits["test"]}
    assert held_out and not held_out & {target for _, target in splits["train"]}


def test_only_line_feeds_end_a_line(tmp_path):
    strange = "a\u2028b\x85c\x0bd\x0ce"
    assert parallel_text(*write(tmp_path, a=strange.encode(), b=b"one line")) == [
        ("a b c d e", "one line")
    ]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_are_kept_as_they_are(tmp_path, end):
    (file,) = write(tmp_path, a_txt=end.join([b" one ", b"", b"t\rwo", b"\t", b""]))
    assert read_lines(file) == [" one ", "", "t\rwo", "\t"]


class Arriving:
    """A stream whose bytes come in the given pieces."""

    def __init__(self, *pieces: bytes):
        self.pieces = [*pieces]

    def read1(self, size: int) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


def test_lines_of_a_stream_are_there_as_soon_as_they_are_whole():
    stream = Arriving(
        b"\xef\xbb\xbfei", b"ns\r\nzw", "ei\n\ndrü".encode()[:-1], b"\xbc"
    )
    groups = arriving_lines(stream, "here")
    assert next(groups) == ["eins"] and len(stream.pieces) == 2
    assert next(groups) == ["zwei", ""] and len(stream.pieces) == 1
    assert list(groups) == [["drü"]]


@few
@given(data=st.binary(), size=st.integers(1, 9))
def test_a_stream_reads_like_a_file(data, size):
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    try:
        expected = decode_lines(data, "here")
    except InputError as error:
        with pytest.raises(InputError, match=re.escape(str(error))):
            list(arriving_lines(Arriving(*pieces), "here"))
    else:
        assert [*chain(*arriving_lines(Arriving(*pieces), "here"))] == expected


def test_a_bad_line_of_a_stream_is_named_before_its_neighbors_are_used():
    with pytest.raises(InputError, match=r"here, line 2, byte 3 \(0xff\)"):
        next(arriving_lines(Arriving(b"ok\nno\xff"), "here"))


def test_lines_that_are_blank_on_both_sides_are_dropped(tmp_path):
    files = write(tmp_path, a=b" eins\n \n\ndrei\n", b=b"one \n\n\t\nthree\n")
    assert parallel_text(*files) == [("eins", "one"), ("drei", "three")]
    (tsv,) = write(tmp_path, tsv=b"eins\tone\n\n\t\ndrei\tthree\n")
    assert parallel_tsv(tsv) == [("eins", "one"), ("drei", "three")]


@pytest.mark.parametrize(
    ("source", "target", "complaint"),
    [
        (b"a\nb\nc\n", b"a\n", r"a\.de has 3 lines, .*b\.en has 1"),
        (b"a\n \n", b"a\nb\n", "line 2: only the source is blank"),
        (b"a\nb\n", b"a\n\n", "line 2: only the target is blank"),
        (b"", b"", "no sentence pairs"),
        (b"a\nf\xe4hrt\n", b"a\nb\n", r"a\.de, line 2, byte 2 \(0xe4\).*UTF-8"),
        (b"a\n", b"\xff\xfea\0\n\0", r"b\.en, line 1, byte 1 \(0xff\)"),
        (b"a\nb\0\n", b"a\nb\n", r"a\.de, line 2 holds a NUL"),
    ],
)
def test_bad_files_are_named_with_the_line(tmp_path, source, target, complaint):
    with pytest.raises(InputError, match=complaint):
        parallel_text(*write(tmp_path, a_de=source, b_en=target))


@pytest.mark.parametrize(("row", "tabs"), [(b"zwei two", 0), (b"zwei\ttwo\tdeux", 2)])
def test_a_row_needs_exactly_one_tab(tmp_path, row, tabs):
    (tsv,) = write(tmp_path, a_tsv=b"eins\tone\n" + row + b"\n")
    with pytest.raises(InputError, match=rf"a\.tsv, line 2 has {tabs} tabs"):
        parallel_tsv(tsv)


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"", lambda b: b"de"])
def test_half_a_packed_file_is_no_corpus(tmp_path, damage):
    files = write(tmp_path, a_gz=damage(pack(text(0) * 99)), b=text(1))
    with pytest.raises(InputError, match=r"a\.gz (is not a complete|.*has 0 lines)"):
        parallel_text(*files)


# Splits


@few
@given(
    sources=st.lists(st.sampled_from("abcdefghijk"), min_size=50, max_size=70),
    seed=st.integers(0, 99),
)
def test_splits_lose_nothing_and_share_no_source(sources, seed):
    pairs = [(source, str(i)) for i, source in enumerate([*sources, *"lmnop"])]
    splits = split_corpus(pairs, validation=0.2, test=0.3, seed=seed)
    dealt = [pair for split in splits.values() for pair in split]
    assert sorted(dealt) == sorted(pairs)
    held_by = [{source for source, _ in split} for split in splits.values()]
    assert sum(map(len, held_by)) == len(set.union(*held_by))
    assert list(splits) == ["train", "validation", "test"]
    assert len(held_by[1]) == round(0.2 * len(set(sources) | set("lmnop")))


def test_a_seed_fixes_the_splits():
    pairs = [(str(i), str(i)) for i in range(30)]
    random.seed(0)  # must not matter
    assert split_corpus(pairs, seed=5) == split_corpus(pairs, seed=5)
    assert split_corpus(pairs, seed=5) != split_corpus(pairs, seed=7)


def test_a_corpus_too_small_to_split_says_so():
    with pytest.raises(InputError, match=r"2 different source .* 2 for validation"):
        split_corpus([("a", "1"), ("a", "2"), ("b", "3")])


# By name


def test_own_files_are_loaded_by_path(tmp_path):
    a, b = write(tmp_path, a_de=text(0), b_en=text(1))
    (tsv,) = write(tmp_path, a_tsv=b"".join(f"{s}\t{t}\n".encode() for s, t in PAIRS))
    assert load_corpus(f"{a},{b}", seed=3) == split_corpus(PAIRS, seed=3)
    assert load_corpus(str(tsv), seed=3) == split_corpus(PAIRS, seed=3)


def test_the_grammar_gets_its_size_and_seed(monkeypatch):
    def grammar(size: int, seed: int) -> dict[str, list[tuple[str, str]]]:
        return {"train": [(str(size), str(seed))]}

    monkeypatch.setattr(corpora, "grammar_corpus", grammar)
    assert load_corpus("grammar", size=7, seed=3) == {"train": [("7", "3")]}


def test_the_grammar_is_a_corpus():
    corpus = load_corpus("grammar", size=200, seed=1)
    assert list(corpus) == ["train", "validation", "test"]
    assert corpus == load_corpus("grammar", size=200, seed=1)


@pytest.mark.parametrize("name", ["multi30", "", "grammar,", "a.tsv", "a,b,c"])
def test_an_unknown_corpus_lists_the_choices(name):
    with pytest.raises(InputError, match=r"choose grammar, multi30k|no file grammar"):
        load_corpus(name)


def test_a_missing_file_is_named(tmp_path):
    (a,) = write(tmp_path, a_de=text(0))
    with pytest.raises(InputError, match=r"no file .*gone\.en"):
        load_corpus(f"{a},{tmp_path / 'gone.en'}")


# Multi30k, the real files


def test_multi30k_has_its_29000_pairs_in_order(multi30k_folder):
    corpus = multi30k(multi30k_folder)
    sizes = {"train": 29_000, "validation": 1_014, "test_2016_flickr": 1_000}
    assert {split: len(pairs) for split, pairs in corpus.items()} == sizes
    assert corpus["train"][0] == (
        "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche.",
        "Two young, White males are outside near many bushes.",
    )
    assert corpus["test_2016_flickr"][-1] == (
        "Ein Mädchen an einer Küste mit einem Berg im Hintergrund.",
        "A girl at the shore of a beach with a mountain in the distance.",
    )


# Multi30k, three pairs in its place


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files of a Multi30k of one split with three pairs, by name."""
    files = {"train.de.gz": pack(text(0)), "train.en.gz": pack(text(1))}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    monkeypatch.setattr(corpora, "SHA256", hashes)
    monkeypatch.setattr(corpora, "SPLITS", {"train": ("train", 3)})
    return files


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, small) -> Iterator[dict[str, bytes]]:
    """A web server of the small files; what it serves can be changed."""
    served = dict(small)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/")
            if name not in served:
                return self.send_error(404)
            self.send_response(200)
            # Too few bytes for the length that is announced: the line was cut.
            self.send_header("Content-Length", str(len(small[name])))
            self.end_headers()
            self.wfile.write(served[name])

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        monkeypatch.setattr(corpora, "BASE_URL", f"http://127.0.0.1:{web.server_port}/")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        Thread(target=web.serve_forever, args=[0.01], daemon=True).start()
        yield served
        web.shutdown()


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def test_a_download_happens_once(server, monkeypatch, caplog):
    monkeypatch.setattr("pooch.utils.LOGGER", logging.getLogger("pooch"))
    caplog.set_level("INFO", logger="pooch")
    assert multi30k() == {"train": PAIRS}
    server.clear()
    assert multi30k() == {"train": PAIRS}
    folder = download_multi30k()
    assert sorted(path.name for path in folder.iterdir()) == sorted(corpora.SHA256)
    assert not caplog.records  # they would name this machine's folders


def test_a_download_goes_where_the_caller_says(server, tmp_path, monkeypatch):
    assert download_multi30k(tmp_path / "here") == tmp_path / "here"
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "there"))
    assert download_multi30k() == tmp_path / "there"
    server.clear()
    for data_dir in (tmp_path / "here", None):
        assert multi30k(data_dir) == {"train": PAIRS}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda data: data[:-9], "cannot download .*train.en.gz .*copy .*train.de.gz"),
        (lambda data: data[::-1], r"expected \w{8}\.\.\. but got \w{8}\.\.\."),
    ],
    ids=["interrupted", "changed"],
)
def test_a_broken_download_leaves_nothing_half_written(
    server, small, tmp_path, change, complaint
):
    server["train.en.gz"] = change(small["train.en.gz"])
    with pytest.raises(InputError, match=complaint) as caught:
        download_multi30k(tmp_path)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["train.de.gz"]
    server.update(small)  # the line is back
    assert multi30k(download_multi30k(tmp_path)) == {"train": PAIRS}


@pytest.mark.parametrize("fault", ["404", "no network"])
def test_no_network_names_the_other_road(server, tmp_path, monkeypatch, fault):
    server.clear()
    if fault == "no network":
        monkeypatch.setattr(corpora, "BASE_URL", "http://127.0.0.1:1/")
    with pytest.raises(InputError, match=f"cannot download .*{DATA_VARIABLE}"):
        download_multi30k(tmp_path)
    assert not any(tmp_path.iterdir())


def test_data_at_hand_need_no_network(small, tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "BASE_URL", "http://127.0.0.1:1/")
    inner = put(tmp_path / "multi30k", small)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    assert multi30k() == load_corpus("multi30k") == {"train": PAIRS}
    assert multi30k(inner) == load_corpus("multi30k", data_dir=inner)


def test_whether_the_data_are_at_hand_is_known_without_a_download(
    small, tmp_path, monkeypatch
):
    monkeypatch.setattr(corpora, "BASE_URL", "http://127.0.0.1:1/")
    folder = put(tmp_path / "here", small)
    assert multi30k_at_hand(folder)
    assert not multi30k_at_hand(tmp_path / "nowhere") and not multi30k_at_hand()
    monkeypatch.setenv(DATA_VARIABLE, str(folder))
    (folder / "train.en.gz").rename(tmp_path / "train.en.gz")
    assert not multi30k_at_hand()
    (folder / "train.en").write_bytes(text(1))
    assert multi30k_at_hand()


def test_the_sample_captions_are_pairs_and_all_different():
    samples = sample_captions()
    assert (len(samples["captions"]), len(samples["outside"])) == (90, 30)
    pairs = samples["captions"] + samples["outside"]
    for side in zip(*pairs, strict=True):
        assert len(set(side)) == 120
        assert all(s == unicodedata.normalize("NFC", s) for s in side)


def test_unpacked_data_are_read_and_counted(small, tmp_path):
    write(tmp_path, train_de=text(0), train_en=text(1))
    assert multi30k(tmp_path) == {"train": PAIRS}
    write(tmp_path, train_de=b"eins\n", train_en=b"one\n")
    with pytest.raises(InputError, match=r"train\.de has 1 pairs instead of 3"):
        multi30k(tmp_path)


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b + b"\0"])
def test_a_changed_file_is_refused_with_both_checksums(small, tmp_path, damage):
    put(tmp_path, small | {"train.en.gz": damage(small["train.en.gz"])})
    pinned = corpora.SHA256["train.en.gz"][:8]
    with pytest.raises(InputError, match=rf"train\.en\.gz has SHA.*{pinned}.*copy it"):
        multi30k(tmp_path)


def test_a_missing_file_says_where_to_get_it(small, tmp_path):
    del small["train.en.gz"]
    with pytest.raises(InputError, match=r"train\.en\.gz is missing.*https://raw\."):
        multi30k(put(tmp_path, small))


def test_the_address_is_pinned_and_every_file_has_a_checksum():
    assert len(corpora.COMMIT) == 40
    assert corpora.COMMIT in corpora.BASE_URL
    names = [f"{n}.{x}.gz" for n, _ in corpora.SPLITS.values() for x in ("de", "en")]
    assert list(corpora.SHA256) == names
    assert all(len(digest) == 64 for digest in corpora.SHA256.values())
