"""The model that ships: small, whole, and as good as its card says."""

import json
import re
import shlex
from dataclasses import asdict, fields, replace

import pytest
import torch
from safetensors.torch import load_file

from annotated_transformer.checkpoints import WEIGHTS
from annotated_transformer.config import TrainingConfig
from annotated_transformer.corpora import multi30k, sample_captions
from annotated_transformer.files import read_json, write_json
from annotated_transformer.progress import HISTORY, read_history
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
    assert ship.model_card(PRETRAINED) == CARD
    test = SCORES[ship.TEST]
    for search in ("greedy", "beam 5"):
        assert f"| {search} | {test[search]['bleu']:.2f} |" in CARD


def train_commands():
    """The options of each train command on the card, by name."""
    lines = CARD.replace("\\\n", " ").splitlines()
    for line in lines:
        if line.startswith("annotated-transformer train "):
            words = shlex.split(line)[2:]
            yield dict(zip(words[::2], words[1::2], strict=True))


def test_the_command_on_its_card_makes_its_recipe():
    base, stages = (
        RECIPES["multi30k"].training,
        read_json(PRETRAINED / SETTINGS)["stages"],
    )
    names = {field.name for field in fields(TrainingConfig)}
    for options, stage in zip(train_commands(), stages, strict=True):
        given = {key[2:].replace("-", "_"): value for key, value in options.items()}
        chosen = {
            key: json.loads(value) for key, value in given.items() if key in names
        }
        assert asdict(base) | chosen | {"keep": stage["keep"]} == stage
    settings = read_settings(PRETRAINED)
    assert next(train_commands())["--dropout"] == f"{settings.model.dropout}"
    assert settings.recipe.training == replace(base, **stages[-1])
    averages = re.findall(r"^annotated-transformer average .*$", CARD, re.MULTILINE)
    last = averages[-1]
    assert f"--alpha {settings.search.alpha} " in f"{last} "
    assert f"--last {len(settings.averaged)} " in f"{last} "


def test_its_history_goes_on_from_run_to_run():
    history = read_history(PRETRAINED)
    stages = read_json(PRETRAINED / SETTINGS)["stages"]
    assert history[-1]["step"] == sum(stage["steps"] for stage in stages)
    for key in ("stage", "step", "tokens", "cpu_minutes"):
        column = [row[key] for row in history]
        assert column == sorted(column)
    assert {row["stage"] for row in history} == set(range(1, len(stages) + 1))


def test_runs_in_a_row_are_counted_as_one_and_leave_no_path(tmp_path):
    runs = [tmp_path / name for name in ("first", "second")]
    base = RECIPES["grammar"]
    for run, counts in zip(runs, ([100, 200], [50]), strict=True):
        run.mkdir()
        recipe = replace(base, start_from=str(tmp_path)).settings()
        write_json(run / SETTINGS, {"model": asdict(base.model), "recipe": recipe})
        row = {"epoch": 1, "minutes": 0.5, "cpu_minutes": 0.5, "loss": 1.0}
        rows = [
            {"step": n, "tokens": 9 * n, "validation_loss": 2.0} | row for n in counts
        ]
        (run / HISTORY).write_text("".join(json.dumps(row) + "\n" for row in rows))
    ship.write_history(tmp_path, runs)
    found = read_history(tmp_path)
    assert [(row["stage"], row["step"]) for row in found] == [
        (1, 100),
        (1, 200),
        (2, 250),
    ]
    assert (found[-1]["tokens"], found[-1]["cpu_minutes"]) == (2250, 1.0)
    made = ship.settings(runs[1], runs)
    assert str(tmp_path) not in json.dumps(made)
    assert [stage["steps"] for stage in made["stages"]] == 2 * [base.training.steps]


def test_it_names_no_folder_of_the_machine_that_made_it():
    for name in (SETTINGS, ship.CARD, ship.SCORES, ship.PAIRED):
        text = (PRETRAINED / name).read_text("utf-8")
        assert not re.search(r"""(?:^|["'`\s])(?:/|[A-Z]:\\)\w""", text), name
    assert read_settings(PRETRAINED).recipe.start_from is None


def test_it_beats_the_model_before_it_on_the_test_split():
    before, now = (
        read_json(PRETRAINED / ship.PAIRED)[ship.TEST][name]
        for name in ("before", "now")
    )
    assert now["bleu"] > before["bleu"]
    assert now["p"] < 0.05


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
