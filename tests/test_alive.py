"""The engine of the book's pages is the package's model: same ids, outputs, numbers."""

import json
import random
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
import torch

from annotated_transformer.corpora import multi30k
from annotated_transformer.decoding import beam_search, greedy_search
from annotated_transformer.recording import record_attention
from annotated_transformer.special import BOS
from annotated_transformer.text import normalize
from annotated_transformer.translator import PRETRAINED, Translator
from tools import landing

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "book" / "alive"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(
    NODE is None, reason="node is not here: on Debian, sudo apt install nodejs"
)
SAMPLES = [
    line.partition("\t")[0]
    for line in (ROOT / "annotated_transformer" / "samples.tsv")
    .read_text("utf-8")
    .splitlines()
]
HOSTILE = [
    *(
        "",
        " ",
        "\u2581",
        "\u2581\u2581 a",
        "a\u0308 \u00e4",
        "x\x00y",
        "\ufeffEin\u00adMann",
    ),
    *(
        "Ein\u3000Mann\x1f geht\u0085.",
        "\U0001f600\U0001f600 lacht \U0001f468\u200d\U0001f469",
    ),
    *(
        "\u05e9\u05dc\u05d5\u05dd \u202eMann\u202c",
        "<b onclick='x()'>Mann</b>",
        "E" * 2_000,
    ),
    *(
        "</s> <unk> <s>",
        "\u2047 ?",
        "\u4e00\u4e2a Mann",
        "..,,!!",
        "aaaaaaaaaaaaaaab" * 40,
    ),
]


def ask(what, of):
    """The engine's answer to each of these, from one run of node."""
    asked = json.dumps({"model": str(PRETRAINED), "what": what, "of": of})
    result = subprocess.run(
        [NODE, ROOT / "tests" / "alive.mjs"],
        input=asked,
        capture_output=True,
        text=True,
        timeout=1_800,
        encoding="utf-8",
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def translator():
    return Translator.pretrained()


@pytest.fixture(scope="module")
def captions(multi30k_folder):
    """500 sentences of the real corpus that the model was not trained on."""
    pairs = multi30k(multi30k_folder)["test_2016_flickr"][:500]
    return [german for german, _ in pairs]


@pytest.mark.parametrize("texts", [SAMPLES, HOSTILE], ids=["samples", "hostile"])
def test_ids_are_sentencepieces(texts, translator):
    assert ask("normalized", texts) == [normalize(text) for text in texts]
    assert ask("ids", texts) == [translator.tokenizer.encode(text) for text in texts]


def test_ids_of_the_corpus_are_sentencepieces(captions, translator):
    expected = [translator.tokenizer.encode(text) for text in captions]
    assert ask("ids", captions) == expected


def test_any_ids_become_the_same_text(translator):
    draw = random.Random(0)
    rows = [draw.choices(range(4_000), k=draw.randrange(9)) for _ in range(300)]
    rows += [[3, 3, 7], [7, 3], [1, 7, 2, 8], [draw.randrange(3), 9]]
    expected = [translator.tokenizer.decode(row) for row in rows]
    assert ask("text", rows) == expected


def differing(translator, texts, beam_size):
    """The texts whose translation is not the package's, in single precision."""
    sources = [translator.encode(text) for text in texts]
    found = ask("searched", [{"src": s, "beamSize": beam_size} for s in sources])
    search = partial(beam_search, beam_size=beam_size, alpha=translator.alpha)
    if beam_size == 1:
        search = greedy_search
    expected = [search(translator.model, torch.tensor([src]))[0] for src in sources]
    trio = zip(texts, found, expected, strict=True)
    return [text for text, ours, theirs in trio if ours != theirs]


@pytest.mark.parametrize(("beam_size", "every"), [(1, 4), (4, 12)])
def test_translations_are_the_packages(beam_size, every, translator):
    assert differing(translator, SAMPLES[::every], beam_size) == []


@pytest.mark.parametrize("beam_size", [1, 4])
def test_translations_of_the_corpus_are_the_packages(
    beam_size, captions, translator, request
):
    if not request.config.getoption("--all-sentences"):
        pytest.skip("some minutes long: asked for with --all-sentences")
    texts = SAMPLES + captions
    assert len(differing(translator, texts, beam_size)) <= 0.005 * len(texts)


def test_logits_are_the_packages(translator):
    pairs = [
        (translator.encode(text), translator.tokenizer.encode("A man reads.")[:-1])
        for text in SAMPLES[:10]
    ]
    found = ask("logits", [{"src": src, "tgt": tgt} for src, tgt in pairs])
    for (src, tgt), logits in zip(pairs, found, strict=True):
        with torch.no_grad():
            expected = translator.model(
                torch.tensor([src]), torch.tensor([[BOS, *tgt]])
            )
        actual = torch.tensor(logits).view_as(expected)
        torch.testing.assert_close(actual, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("row", [0, 7, 23])
def test_every_tensor_can_be_seen_and_is_the_packages(row, translator):
    src = translator.encode(SAMPLES[row])
    tgt = [5, 7, 11, *src[:row]]
    (found,) = ask("tensors", [{"src": src, "tgt": tgt}])
    seen = {}

    def keep(module, _, output, name):
        seen[name] = output[0]

    handles = [
        module.register_forward_hook(partial(keep, name=name))
        for name, module in translator.model.named_modules()
        if name.endswith(("attention", "feed_forward", "norm")) or ".residuals." in name
    ]
    with torch.no_grad(), record_attention(translator.model) as maps:
        translator.model(torch.tensor([src]), torch.tensor([[BOS, *tgt]]))
    for handle in handles:
        handle.remove()
    seen |= {f"{name}.weights": weights[0] for name, weights in maps.items()}
    seen = {name: t for name, t in seen.items() if not name.endswith(".dropout")}
    assert len(seen) > 50
    for name, expected in seen.items():
        actual = torch.tensor(found[name]["data"]).view(found[name]["shape"])
        torch.testing.assert_close(actual, expected, atol=1e-3, rtol=1e-3)
    for part in ("query", "key", "value", "scores", "mask", "heads"):
        assert f"decoder.layers.2.self_attention.{part}" in found
    mask = found["decoder.layers.0.self_attention.mask"]
    assert (
        torch.tensor(mask["data"])
        .view(mask["shape"])
        .equal(torch.ones(len(tgt) + 1, len(tgt) + 1).tril())
    )


def test_words_look_where_the_package_says(translator):
    sentence = "Eine Frau wartet, während ein Mann ein altes Auto repariert."
    (found,) = ask("look", [sentence])
    expected = landing.look(translator, sentence, -1)
    for key in ("translation", "source", "target"):
        assert found[key] == expected[key]
    torch.testing.assert_close(
        torch.tensor(found["weights"]),
        torch.tensor(expected["weights"]),
        atol=0.006,  # the page's are rounded
        rtol=0,
    )


def test_alternatives_have_the_packages_probabilities(translator):
    text, row = "Ein Hund läuft am Strand.", 1
    (found,) = ask("alternatives", [{"text": text, "row": row}])
    probabilities = [a["probability"] for a in found]
    assert probabilities == sorted(probabilities, reverse=True)
    (chosen,) = [a for a in found if a["chosen"]]
    pieces = translator.tokenizer.encode(f"A {chosen['text']}")[:-1]
    with torch.no_grad():
        logits = translator.model(
            torch.tensor([translator.encode(text)]), torch.tensor([[BOS, *pieces]])
        )
    logits[..., [0, 1]] = -torch.inf
    log_probs = logits[0].log_softmax(-1)
    expected = sum(log_probs[i, piece] for i, piece in enumerate(pieces) if i > 0)
    assert chosen["probability"] == pytest.approx(float(expected.exp()), abs=1e-3)


def command(*options, text):
    return subprocess.run(
        [NODE, ENGINE / "translate.mjs", *options],
        input=text,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def test_the_command_gives_a_line_for_each_line():
    text = f"Ein Hund schläft.\n\n{'sehr ' * 2_000}\nEin Mann liest."
    result = command("--timings", text=text)
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    assert lines[1:3] == ["", ""]
    assert "dog" in lines[0]
    assert result.returncode == 2
    problem, timings = result.stderr.splitlines()
    assert problem.startswith("line 3: a sentence of ")
    assert json.loads(timings)["sentences"] == 4


@pytest.mark.parametrize("option", ["--beam=0", "--beam=x", "--alpha=-1", "--modle=x"])
def test_the_command_refuses_a_bad_option_in_one_line(option):
    result = command(option, text="")
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert option.partition("=")[0] in result.stderr


def test_the_engine_is_small_and_needs_nothing():
    files = [path for path in ENGINE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 300_000
    for path in ENGINE.rglob("*.mjs"):
        lines = path.read_text("utf-8").splitlines()
        sources = [line.rpartition(" from ")[2] for line in lines if ' from "' in line]
        assert all(s.startswith(('"./', '"../', '"node:')) for s in sources), path.name
    weights = sum(
        (PRETRAINED / name).stat().st_size
        for name in ("model.safetensors", "tokenizer.model", "settings.json")
    )
    assert weights <= 9_000_000
