"""The model that ships: small, whole, and as good as its card says."""

import json
import shlex
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from annotated_transformer.checkpoints import WEIGHTS
from annotated_transformer.corpora import multi30k, sample_captions
from annotated_transformer.files import read_json
from annotated_transformer.progress import read_history
from annotated_transformer.recipes import RECIPES, read_settings
from annotated_transformer.runs import evaluate
from annotated_transformer.scores import corpus_scores
from annotated_transformer.transformer import parameter_count
from annotated_transformer.translator import PRETRAINED, SETTINGS, Translator
from tools import ship

SCORES = json.loads((PRETRAINED / ship.SCORES).read_text("utf-8"))
CARD = (PRETRAINED / ship.CARD).read_text("utf-8")


def test_it_is_small_and_in_half_precision():
    assert sum(path.stat().st_size for path in PRETRAINED.iterdir()) < 12_000_000
    weights = load_file(PRETRAINED / WEIGHTS)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    model = Translator.pretrained().model
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training
    assert sum(p.numel() for p in model.parameters()) == parameter_count(model.config)


def test_its_card_is_made_from_its_own_files():
    training = read_json(PRETRAINED / SETTINGS)["recipe"]["training"]
    made = ship.model_card(Translator.pretrained(), training, PRETRAINED, SCORES)
    assert made == CARD
    test = SCORES["test_2016_flickr"]
    for search in ("greedy", "beam 5"):
        assert f"| {search} | {test[search]['bleu']:.2f} |" in CARD


def test_the_command_on_its_card_makes_its_recipe():
    (line,) = (line for line in CARD.splitlines() if " train " in line)
    words = shlex.split(line)
    options = dict(zip(words[2::2], words[3::2], strict=True))
    base = RECIPES[options["--corpus"]]
    recipe = replace(
        base,
        model=replace(base.model, dropout=float(options["--dropout"])),
        training=replace(base.training, steps=int(options["--steps"])),
    )
    settings = read_json(PRETRAINED / SETTINGS)
    assert read_settings(PRETRAINED).recipe.settings() == recipe.settings()
    assert settings["model"]["dropout"] == recipe.model.dropout
    assert read_history(PRETRAINED)[-1]["step"] == recipe.training.steps
    assert len(settings["averaged"]) == 5


def test_it_translates_captions_and_is_lost_outside():
    translator, samples = Translator.pretrained(), sample_captions()
    bleu = {
        name: corpus_scores(
            translator.translate([german for german, _ in pairs]),
            [english for _, english in pairs],
        ).bleu
        for name, pairs in samples.items()
    }
    assert bleu["captions"] > 25 > 10 > bleu["outside"]


def test_it_scores_what_its_card_says(multi30k_folder):
    found = evaluate(Translator.pretrained(), multi30k()["test_2016_flickr"])
    for search, scores in SCORES["test_2016_flickr"].items():
        for key in ("bleu", "chrf", "word_bleu"):
            # Another processor may decide a near tie the other way, in a few words.
            assert found[search][key] == pytest.approx(scores[key], abs=0.15)


def test_the_readme_prints_its_scores():
    readme = (PRETRAINED.parents[1] / "README.md").read_text("utf-8")
    for search, row in SCORES["test_2016_flickr"].items():
        figures = " | ".join(f"{row[key]:.2f}" for key in ("bleu", "chrf", "word_bleu"))
        assert f"| {search} | {figures} |" in readme
