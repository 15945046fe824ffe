"""Sentence pairs: the built-in grammar, Multi30k, and the reader's own files."""

import codecs
import gzip
import hashlib
import json
import os
import random
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from annotated_transformer.errors import InputError
from annotated_transformer.grammar import Pair, grammar_corpus
from annotated_transformer.text import look_alike, normalize

SAMPLES, N_CAPTIONS = Path(__file__).with_name("samples.tsv"), 90
DATA_VARIABLE = "ANNOTATED_TRANSFORMER_DATA"  # a folder to read without a network
COMMIT = "a3d2e0d26b56f3846f66a952536ffed4e401d05a"
BASE_URL = (
    f"https://raw.githubusercontent.com/multi30k/dataset/{COMMIT}/data/task1/raw/"
)
SPLITS = {  # split: name of its files, number of pairs
    "train": ("train", 29_000),
    "validation": ("val", 1_014),
    "test_2016_flickr": ("test_2016_flickr", 1_000),
}
SHA256 = {
    "train.de.gz": "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
    "train.en.gz": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
    "val.de.gz": "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
    "val.en.gz": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
    "test_2016_flickr.de.gz": (
        "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8"
    ),
    "test_2016_flickr.en.gz": (
        "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9"
    ),
}


def multi30k(data_dir: str | Path | None = None) -> dict[str, list[Pair]]:
    """Multi30k, German and English image captions, by split.

    Read from `data_dir`, or else from the folder named by ANNOTATED_TRANSFORMER_DATA,
    or else downloaded once and cached.
    """
    folder = named_folder(data_dir) or download_multi30k()
    corpus = {}
    for split, (name, n_pairs) in SPLITS.items():
        german = checked_file(folder, f"{name}.de.gz")
        english = checked_file(folder, f"{name}.en.gz")
        corpus[split] = pairs = parallel_text(german, english)
        if len(pairs) != n_pairs:  # the only check of an unpacked file
            raise InputError(
                f"{german} has {len(pairs):,} pairs instead of {n_pairs:,}: "
                "copy it again"
            )
    return corpus


def multi30k_at_hand(data_dir: str | Path | None = None) -> bool:
    """Whether `multi30k` can read the corpus without a download."""
    folder = named_folder(data_dir) or cache_folder()
    return all(
        (folder / name).is_file() or (folder / name.removesuffix(".gz")).is_file()
        for name in SHA256
    )


def sample_captions() -> dict[str, list[Pair]]:
    """Sentence pairs written for this course, to translate without any download.

    "captions" are like Multi30k's, "outside" are not: questions, news, proverbs.
    """
    pairs = parallel_tsv(SAMPLES)
    return {"captions": pairs[:N_CAPTIONS], "outside": pairs[N_CAPTIONS:]}


def download_multi30k(data_dir: str | Path | None = None) -> Path:
    """Download the missing files of Multi30k, and return the folder that holds them.

    Each file is checked before it gets its name: a broken download leaves no file.
    """
    import pooch
    from requests.exceptions import RequestException

    # Its log names this machine's folders, which notebooks would store.
    pooch.get_logger().setLevel("WARNING")
    folder = named_folder(data_dir) or cache_folder()
    files = pooch.create(folder, BASE_URL, registry=SHA256)
    for name in SHA256:
        try:
            files.fetch(name)
        except RequestException as error:
            raise InputError(
                f"cannot download {BASE_URL}{name} ({type(error).__name__}). Without "
                f"a network, copy {', '.join(SHA256)} into a folder, and name it in "
                f"{DATA_VARIABLE} or as data_dir"
            ) from error
        except ValueError as error:  # a wrong checksum
            message = re.sub(r"\b([0-9a-f]{8})[0-9a-f]{56}\b", r"\1...", str(error))
            raise InputError(f"{message} Try again later.") from error
    return folder


def parallel_text(source: str | Path, target: str | Path) -> list[Pair]:
    """Pairs from two UTF-8 text files, plain or .gz, with one sentence per line.

    Each sentence is normalized; lines that are blank in both files are dropped.
    """
    lines, other_lines = read_lines(Path(source)), read_lines(Path(target))
    if len(lines) != len(other_lines):
        raise InputError(
            f"{source} has {len(lines):,} lines, {target} has {len(other_lines):,}: "
            "line n of one must translate line n of the other"
        )
    pairs = zip(lines, other_lines, strict=True)
    return without_blanks(pairs, f"{source} and {target}")


def parallel_tsv(path: str | Path) -> list[Pair]:
    """Pairs from one UTF-8 text file, plain or .gz, a tab between source and target."""
    pairs = []
    for number, line in enumerate(read_lines(Path(path)), 1):
        source, *targets = line.split("\t") if line.strip() else ("", "")
        if len(targets) != 1:
            raise InputError(
                f"{path}, line {number} has {len(targets)} tabs: it needs exactly 1, "
                "between source and target"
            )
        pairs.append((source, targets[0]))
    return without_blanks(pairs, str(path))


def split_corpus(
    pairs: Sequence[Pair],
    *,
    validation: float = 0.05,
    test: float = 0.05,
    seed: int = 0,
) -> dict[str, list[Pair]]:
    """Split pairs into train, validation and test, by fractions of distinct sources.

    All pairs with the same source go to one split, so no test source is trained on:
    nor is a look-alike, which differs in capitals, accents' spelling or whitespace.
    """
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(look_alike(pair[0]), []).append(pair)
    sources = list(groups)
    random.Random(seed).shuffle(sources)
    n_validation, n_test = (
        max(1, round(share * len(sources))) if share else 0
        for share in (validation, test)
    )
    held_out = n_validation + n_test
    if held_out >= len(sources):
        raise InputError(
            f"{len(sources)} different source sentences leave none to train on after "
            f"{held_out} for validation and test: more sentences are needed"
        )

    def part(chosen: list[str]) -> list[Pair]:
        return [pair for source in chosen for pair in groups[source]]

    return {
        "train": part(sources[held_out:]),
        "validation": part(sources[:n_validation]),
        "test": part(sources[n_validation:held_out]),
    }


def load_corpus(
    name: str,
    *,
    data_dir: str | Path | None = None,
    size: int = 20_000,
    seed: int = 0,
    validation: str | None = None,
    test: str | None = None,
) -> dict[str, list[Pair]]:
    """A corpus by split: "grammar", "multi30k", or files, "pairs.tsv" or "a.de,b.en".

    `data_dir` is only for Multi30k, and `size` only for the grammar. `validation` and
    `test` name files that replace these splits; else a file is split by `split_corpus`.
    """
    given = {"validation": validation, "test": test}
    own = {split: read_pairs(file) for split, file in given.items() if file}
    if name == "grammar":
        return grammar_corpus(size=size, seed=seed) | own
    if name == "multi30k":
        return multi30k(data_dir) | own
    pairs = read_pairs(name)
    if len(own) == 2:
        return {"train": pairs, **own}
    shares: dict[str, Any] = dict.fromkeys(own, 0.0)
    return split_corpus(pairs, seed=seed, **shares) | own


def read_pairs(name: str) -> list[Pair]:
    """All pairs of the reader's own files, "pairs.tsv" or "a.de,b.en"."""
    if Path(name).is_file():
        return parallel_tsv(name)
    if name.count(",") == 1:
        return parallel_text(*name.split(","))
    raise InputError(
        f"there is no corpus {name!r}: choose grammar, multi30k, a file with a tab "
        "between source and target, or two files as source.txt,target.txt"
    )


def resolved(name: str) -> str:
    """The name of a corpus, which holds wherever it is used: its files' full paths."""
    if name in ("grammar", "multi30k"):
        return name
    files = [name] if Path(name).is_file() else name.split(",")
    return ",".join(str(Path(file).resolve()) for file in files)


def digest(pairs: Iterable[Pair]) -> str:
    """A SHA-256 of sentence pairs, in their order."""
    return hashlib.sha256(json.dumps(list(pairs)).encode()).hexdigest()


def cache_folder() -> Path:
    """Where downloads are kept on this platform."""
    import pooch

    return pooch.os_cache("annotated-transformer") / "multi30k"


def named_folder(data_dir: str | Path | None) -> Path | None:
    """The folder that the caller or the environment names, if any."""
    named = data_dir or os.environ.get(DATA_VARIABLE)
    if not named:
        return None
    inner = Path(named) / "multi30k"
    return inner if inner.is_dir() else Path(named)


def checked_file(folder: Path, name: str) -> Path:
    """A file of Multi30k: the .gz, if its checksum is right, or else the plain one."""
    packed, plain = folder / name, folder / name.removesuffix(".gz")
    if packed.is_file():
        found = hashlib.sha256(packed.read_bytes()).hexdigest()
        if found != SHA256[name]:
            raise InputError(
                f"{packed} has SHA-256 {found[:8]}..., expected {SHA256[name][:8]}...: "
                f"delete it and copy it again from {BASE_URL}{name}"
            )
        return packed
    if plain.is_file():
        return plain
    raise InputError(
        f"{packed} is missing: run `annotated-transformer download`, or copy it there "
        f"from {BASE_URL}{name}"
    )


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, split only at line feeds, not at other breaks."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(
                f"{path} is not a complete gzip file ({error}): copy it again"
            ) from None
    return decode_lines(data, str(path))


def arriving_lines(stream: BinaryIO, place: str) -> Iterator[list[str]]:
    """The lines of a stream, in groups: those that have come, as soon as they have."""
    number, rest = 1, b""
    while chunk := stream.read1(65_536):  # type: ignore[attr-defined]
        whole, line_feed, last = chunk.rpartition(b"\n")
        if not line_feed:
            rest += last
            continue
        lines = decode_lines(rest + whole + line_feed, place, number)
        rest, number = last, number + len(lines)
        try:  # a line that cannot be read stops those that came with it
            codecs.getincrementaldecoder("utf-8")().decode(rest)
        except UnicodeDecodeError:
            decode_line(rest, f"{place}, line {number}")
        yield lines
    if rest:
        yield decode_lines(rest, place, number)


def decode_lines(data: bytes, place: str, first: int = 1) -> list[str]:
    """The lines of UTF-8 text; errors name `place`, and count lines from `first`."""
    lines = data.removeprefix(codecs.BOM_UTF8).split(b"\n")
    if not lines[-1]:
        lines.pop()  # what follows the last line feed is not a line
    lines = [line.removesuffix(b"\r") for line in lines]
    return [
        decode_line(line, f"{place}, line {n}") for n, line in enumerate(lines, first)
    ]


def decode_line(line: bytes, place: str) -> str:
    """Decode strict UTF-8; a NUL nearly always means a file in another encoding."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{place}, byte {error.start + 1} (0x{line[error.start]:02x}) "
            "is not UTF-8: save the file as UTF-8"
        ) from None
    if "\0" in text:
        raise InputError(f"{place} holds a NUL character: save the file as UTF-8 text")
    return text


def without_blanks(lines: Iterable[Pair], place: str) -> list[Pair]:
    """The pairs with text, normalized; half a pair often means misaligned files."""
    pairs = []
    for number, (source, target) in enumerate(lines, 1):
        pair = normalize(source), normalize(target)
        if all(pair):
            pairs.append(pair)
        elif any(pair):
            side = "target" if pair[0] else "source"
            raise InputError(
                f"{place}, line {number}: only the {side} is blank: complete the pair, "
                "or check whether the files are misaligned"
            )
    if not pairs:
        raise InputError(f"{place}: there are no sentence pairs")
    return pairs
