"""The page "alive" changes what the package would change; what it says is so."""

import copy
import math
import re
from urllib.parse import parse_qsl

import pytest
import torch
from test_alive import NODE, SAMPLES, ask

from annotated_transformer.decoding import beam_search, greedy_search, keep_top_k
from annotated_transformer.recording import record_attention
from annotated_transformer.special import BOS, EOS
from annotated_transformer.translator import Translator
from tools.book import alive
from tools.book.course import Course

pytestmark = pytest.mark.skipif(
    NODE is None, reason="node is not here: on Debian, sudo apt install nodejs"
)
COURSE = Course()
TEXT = "Eine Frau wartet, während ein Mann ein altes Auto repariert."
GREEDY = {"kind": "greedy"}


@pytest.fixture(scope="module")
def translator():
    return Translator.pretrained()


def switched_off(model, names):
    """A copy of the model, with zeros in the matrices that lead out of these parts."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        for name in names:
            owner, _, head = name.partition(".head.")
            module = model.get_submodule(owner)
            if head:
                size = model.config.d_model // model.config.n_heads
                columns = slice(int(head) * size, (int(head) + 1) * size)
                module.output.weight[:, columns] = 0
            elif owner.endswith("attention"):
                module.output.weight.zero_()
            else:
                module.narrow.weight.zero_()
                module.narrow.bias.zero_()
    return model


def logits_of(model, src, output):
    with torch.no_grad():
        return model(torch.tensor([src]), torch.tensor([[BOS, *output]]))[0]


OFF = [
    ["decoder.layers.0.cross_attention.head.1"],
    [
        "encoder.layers.1.self_attention.head.0",
        "encoder.layers.1.self_attention.head.5",
    ],
    ["decoder.layers.1.cross_attention"],
    ["encoder.layers.2.feed_forward", "decoder.layers.0.self_attention"],
]


@pytest.mark.parametrize("names", OFF, ids=lambda names: names[0])
def test_what_is_switched_off_is_off_as_in_the_package(names, translator):
    asked = {"text": TEXT, "search": GREEDY, "changes": {"off": names}}
    (found,) = ask("run", [asked | {"names": ["logits"]}])
    model, src = switched_off(translator.model, names), translator.encode(TEXT)
    (expected,) = greedy_search(model, torch.tensor([src]))
    assert [token["id"] for token in found["next"]] == [*expected, EOS]
    assert found["translation"] == translator.tokenizer.decode(expected)
    (plain,) = greedy_search(translator.model, torch.tensor([src]))
    assert found["unchanged"] == translator.tokenizer.decode(plain)
    actual = torch.tensor(found["tensors"]["logits"]["data"])
    logits = logits_of(model, src, expected)
    torch.testing.assert_close(actual.view_as(logits), logits, atol=1e-3, rtol=0)


def test_every_sublayer_can_be_switched_off(translator):
    (names,) = ask("sublayers", [0])
    modules = dict(translator.model.named_modules())
    ends = ("_attention", "feed_forward")
    assert sorted(names) == sorted(n for n in modules if n.endswith(ends))


def test_without_positions_the_model_is_the_packages_and_order_says_nothing(translator):
    texts = ["Ein Hund jagt ein Pferd.", "Ein Pferd jagt ein Hund."]
    changes = {"positions": False}
    found = ask("run", [{"text": t, "changes": changes} for t in texts])
    model = copy.deepcopy(translator.model).eval()
    model.positions.table.zero_()
    src = torch.tensor([translator.encode(texts[0])])
    (expected,) = beam_search(model, src, beam_size=4, alpha=translator.alpha)
    assert found[0]["translation"] == translator.tokenizer.decode(expected)
    assert found[1]["translation"] == found[0]["translation"]
    assert found[1]["unchanged"] != found[0]["unchanged"]


@pytest.mark.parametrize("width", [1, 3, 5])
def test_the_tree_is_what_the_packages_beam_search_kept(width, translator):
    asked = {"text": TEXT, "search": {"kind": "beam", "width": width, "alpha": 0.9}}
    (found,) = ask("run", [asked])
    tree, src = found["tree"], translator.encode(TEXT)
    for step in {node["step"] for node in tree}:
        nodes = [node for node in tree if node["step"] == step]
        kept = [node["logProb"] for node in nodes if node["kept"]]
        assert 1 <= len(kept) <= width
        assert min(kept) >= max(
            (n["logProb"] for n in nodes if not n["kept"]), default=-math.inf
        )
    best = [node for node in tree if node["best"]]
    (expected,) = beam_search(
        translator.model, torch.tensor([src]), beam_size=width, alpha=0.9
    )
    assert [node["id"] for node in best] == [*expected, EOS]
    rows = logits_of(translator.model, src, expected)
    rows[:, [0, 1]] = -torch.inf
    steps = rows.log_softmax(-1)[range(len(best)), [node["id"] for node in best]]
    expected_sum = float(steps.sum())
    assert best[-1]["logProb"] == pytest.approx(expected_sum, abs=1e-3)
    penalty = ((5 + len(best)) / 6) ** 0.9
    assert best[-1]["score"] == pytest.approx(expected_sum / penalty, abs=1e-3)
    ended = [node["score"] for node in tree if node["ended"] and node["kept"]]
    assert best[-1]["score"] == max(ended)


@pytest.mark.parametrize(("temperature", "top_k"), [(0.5, 3), (1.7, None)])
def test_chances_are_the_packages(temperature, top_k):
    logits = torch.linspace(-4, 5, 23).sin() * 3
    asked = {"logits": logits.tolist(), "temperature": temperature, "topK": top_k}
    (found,) = ask("distribution", [asked])
    logits[[0, 1]] = -torch.inf  # padding and the start
    scaled = logits[None] / temperature
    if top_k:
        scaled = keep_top_k(scaled, top_k)
    torch.testing.assert_close(
        torch.tensor([found]), scaled.softmax(-1), atol=1e-6, rtol=0
    )


def test_a_seed_draws_the_same_sentence_and_a_low_temperature_the_greedy_one():
    sample = {"kind": "sample", "temperature": 1.5, "topK": None}
    searches = [sample | {"seed": seed} for seed in (1, 1, 2, 3)]
    searches += [{"kind": "sample", "temperature": 0.01, "seed": 9}, GREEDY]
    found = ask("run", [{"text": TEXT, "search": s} for s in searches])
    first, again, *others, cold, greedy = (f["translation"] for f in found)
    assert first == again
    assert set(others) != {first}
    assert cold == greedy


def test_unmasking_the_future_leaves_decoding_alone_and_changes_the_other_rows():
    mask = "decoder.layers.0.self_attention.mask"
    asked = {"text": TEXT, "names": ["logits", mask]}
    masked, opened = ask("run", [asked, asked | {"changes": {"mask": False}}])
    assert masked["open"] is None
    assert opened["translation"] == masked["translation"]
    assert opened["tensors"] == masked["tensors"]
    seen = torch.tensor(masked["tensors"][mask]["data"]).view(*[len(masked["tgt"])] * 2)
    assert all(seen[i, : i + 1].all() for i in range(len(seen)))  # a step sees its past
    change = torch.tensor(opened["open"]["logits"]["data"]) - torch.tensor(
        masked["tensors"]["logits"]["data"]
    )
    assert float(change.abs().max()) > 1


# --- What the page says ---


def test_every_box_of_the_figure_is_explained_and_has_its_tensor():
    (boxes,) = ask("boxes", [0])
    entries = alive.data(COURSE, "boxes")
    assert sorted(boxes) == sorted(b for entry in entries for b in entry["boxes"])
    for layer in (0, 2):
        (outputs,) = ask("outputs", [{"text": SAMPLES[0], "layer": layer}])
        assert [name for name, _, there in outputs if not there] == []
        expected = f"encoder.layers.{layer}.self_attention"
        assert ["encoder.self", expected, True] in outputs
    for entry in entries:
        assert entry["module"] in COURSE.modules
        assert all(COURSE.chapter(number) for number in entry["chapters"])


def test_every_state_that_the_book_links_to_is_understood():
    hashes = alive.states(COURSE)
    assert len(hashes) > 15
    start, *found = ask("state", ["", *hashes])
    for linked, state in zip(hashes, found, strict=True):
        wanted, kept = (dict(parse_qsl(h[1:])) for h in (linked, state["hash"]))
        assert set(wanted) <= set(start["state"])
        for key, value in wanted.items():  # it is kept, or is what the page starts with
            same = state["state"][key] == start["state"][key]
            assert kept.get(key) == value or same, (linked, key)


@pytest.mark.parametrize(
    "hash_",
    [
        "#layer=x",
        "#step=-1",
        "#alpha=3",
        "#box=<b>",
        "#width=9",
        "#nothing=1",
        "#off=%3Cb",
    ],
)
def test_a_state_that_does_not_fit_is_the_start(hash_):
    start, found = ask("state", ["", hash_])
    assert found["state"] == start["state"]
    assert found["hash"] == "#"


def test_figures_that_link_to_the_page_exist():
    figures = {figure for chapter in COURSE.chapters for figure in chapter.figures}
    linked = alive.data(COURSE, "figures")
    assert set(linked) <= figures
    chapters = {number.partition(".")[0] for number in linked}
    assert chapters == {"2", "4", "6", "15", "17"}


def share(line):
    """The percentage in a line."""
    return float(re.search(r"([\d.]+) %", line)[1])


def test_what_the_tour_says_is_so():
    names = ["pieces", "adjective", "subject", "verb", "sparse", "likeliest"]
    (lines,) = ask("measures", [{"text": TEXT, "names": names}])
    pieces, adjective, subject, verb, sparse, likeliest = lines
    assert pieces.endswith("▁alt es ▁Auto ▁repariert . </s>.")
    assert "“Auto” looks most at “alt”" in adjective
    assert "“is” looks most at “man”" in subject
    assert "“is” looks most at “repariert”" in verb
    assert min(map(share, (adjective, subject, verb))) > 90
    encoder, decoder = (
        [float(s) for s in re.findall(r"([\d.]+) %", part)]
        for part in sparse.split("encoder")
    )
    assert len(encoder) == len(decoder) == 3
    assert max(encoder) < min(decoder) < max(decoder) < 20
    first, second, *_ = re.findall(r"“(\w+)” ([\d.]+) %", likeliest)
    assert {first[0], second[0]} == {"fixing", "repair"}
    assert float(first[1]) + float(second[1]) > 80


def test_the_verb_is_seen_by_most_heads_and_does_not_need_the_one_shown(translator):
    ((line,),) = ask("measures", [{"text": TEXT, "names": ["verb"]}])
    src = translator.encode(TEXT)
    tgt = translator.tokenizer.encode("A woman is waiting while a man is fixing")[:-1]
    ids = torch.tensor([[BOS, *tgt[:-1]]])
    with torch.no_grad(), record_attention(translator.model) as maps:
        translator.model(torch.tensor([src]), ids)
    places = [
        head[-1].argmax().item()
        for name, weights in maps.items()
        if name.endswith("cross_attention")
        for head in weights[0]
    ]
    count = places.count(src.index(translator.encode("repariert")[0]))
    assert len(places) < 2 * count
    assert f"{count} of the {len(places)} heads" in line
    off = switched_off(translator.model, ["decoder.layers.1.cross_attention.head.1"])
    chances = []
    for model in (translator.model, off):
        row = logits_of(model, src, tgt[:-1])[-1]
        row[:2] = -torch.inf
        chances.append(100 * float(row.softmax(-1)[tgt[-1]]))
    before, after = chances
    assert before < after
    assert (
        f"stays the same, and “fixing” rises from {before:.0f} % to {after:.0f}" in line
    )
    assert "washes an old car" in line


def test_another_german_verb_gives_another_english_one():
    shown = alive.data(COURSE, "tour")[7]["link"]["show"]
    asked = {
        "text": shown["text"],
        "names": ["decoder.layers.1.cross_attention.weights"],
    }
    (found,) = ask("run", [asked])
    assert found["translation"] == "A woman waits while a man washes an old car."
    pieces = [token["piece"] for token in found["next"]]
    assert "".join(pieces[shown["step"] :]).startswith("▁washes")
    ((_, weights),) = found["tensors"].items()
    rows = torch.tensor(weights["data"]).view(weights["shape"])
    place = rows[shown["head"], shown["step"]].argmax()
    assert found["src"][shown["token"]]["piece"] in "▁wäscht"
    assert int(place) >= shown["token"]


def test_the_tours_changes_do_what_it_says():
    plain, lost, greedy, flat = ask(
        "run",
        [
            {"text": TEXT},
            {"text": TEXT, "changes": {"positions": False}},
            {"text": TEXT, "search": GREEDY},
            {"text": TEXT, "search": {"kind": "beam", "alpha": 0}},
        ],
    )
    assert (
        plain["translation"] == "A woman is waiting while a man is fixing an old car."
    )
    assert lost["translation"] == "A man is waiting while an old car repairs."
    assert "car" not in greedy["translation"]
    assert flat["translation"] == greedy["translation"]
    assert len(greedy["next"]) < len(plain["next"])
    assert plain["usual"] is None  # it is the page's own search
    assert greedy["usual"] == flat["usual"] == plain["translation"]


def test_a_place_beyond_a_short_sentence_waits_for_a_longer_one():
    hash_ = "#step=8&token=11&layer=9&head=9"
    texts = ["Ein Hund schläft.", TEXT]
    short, long = ask("fitted", [{"hash": hash_, "text": text} for text in texts])
    assert short["step"] < 8
    assert short["token"] < 11
    assert (long["step"], long["token"]) == (8, 11)
    assert (long["layer"], long["head"]) == (2, 5)


def test_weights_are_written_so_that_they_say_something():
    numbers = [0, 0.5, 0.00123, 0.000999, 3.17e-7, 1]
    expected = ["0.0000", "0.5000", "0.0012", "1.0 × 10⁻³", "3.2 × 10⁻⁷", "1.0000"]
    assert ask("weighed", numbers) == expected


def test_what_the_page_says_of_its_size_is_so(translator):
    said = alive.facts(COURSE)
    parameters = sum(p.numel() for p in translator.model.parameters())
    assert alive.parameters() == parameters
    assert said["parameters"] == f"{parameters / 1e6:.1f}"
    assert said["heads"] == str(translator.model.config.n_heads)
    assert said["layers"] == str(translator.model.config.n_layers)
