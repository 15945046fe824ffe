"""Studies: what is stored is what their code says, and none is lost on the way."""

import json
import math
import subprocess
import sys

import pytest

from annotated_transformer import studies
from annotated_transformer.errors import InputError
from annotated_transformer.studies import Results
from annotated_transformer.studies import __main__ as command

NAMES = studies.names()
TOY = studies.Study(
    about="toy",
    runs=[{"size": size, "seed": seed} for size in (2, 3) for seed in range(3)],
    measure=lambda run: {"loss": run["size"] + 0.5 * run["seed"]},
)


def toy_rows():
    return [{**run, **TOY.measure(run), "cpu_seconds": 30.0} for run in TOY.runs]


def test_values_are_one_number_for_each_run_with_these_settings():
    study = Results("toy", "toy", "a processor", "2.5", toy_rows())
    assert study.values("loss", size=3).tolist() == [3.0, 3.5, 4.0]
    assert study.budget() == "6 runs, 3 CPU-minutes, a processor"
    assert study.command == "python -m annotated_transformer.studies toy"
    with pytest.raises(InputError, match="no run of toy has {'size': 5}"):
        study.values("loss", size=5)
    with pytest.raises(InputError, match="has no 'los': a run has size, seed, loss"):
        study.values("los", size=3)


def test_a_study_goes_on_where_it_was_and_lets_go_of_runs_that_are_no_longer_its_own(
    tmp_path,
):
    path = tmp_path / "toy.json"
    rows = [*toy_rows()[1:3], {"size": 7, "seed": 0, "loss": 1.0, "cpu_seconds": 1.0}]
    path.write_text(json.dumps({"runs": rows}))
    assert command.done(path, TOY.runs) == {1: rows[0], 2: rows[1]}
    assert command.done(tmp_path / "none.json", TOY.runs) == {}


def test_an_unknown_study_is_one_line_that_names_those_there_are():
    with pytest.raises(InputError, match=r"no study is called 'tabel3': there are"):
        studies.study("tabel3")
    line = [sys.executable, "-m", "annotated_transformer.studies", "tabel3"]
    run = subprocess.run(line, capture_output=True, text=True)
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1 and "tabel3" in run.stderr


@pytest.mark.parametrize("name", NAMES)
def test_what_is_stored_is_every_run_of_the_study_with_seeds_and_finite_numbers(name):
    study, stored = studies.study(name), studies.results(name)
    assert stored.about == study.about
    assert len(stored.rows) == len(study.runs)
    for settings, row in zip(study.runs, stored.rows, strict=True):
        assert "seed" in settings
        assert settings.items() <= row.items()
        assert row["cpu_seconds"] >= 0
        numbers = [x for x in row.values() if isinstance(x, float)]
        assert all(map(math.isfinite, numbers))


def test_all_that_is_stored_belongs_to_a_study():
    assert {path.stem for path in studies.STORED.glob("*.json")} == set(NAMES)


def test_every_optimizer_has_its_own_rates_and_moves_every_parameter():
    from annotated_transformer.studies import optimizers
    from annotated_transformer.transformer import Transformer

    assert {len(set(rates)) for rates in optimizers.RATES.values()} == {6}
    assert optimizers.UNTUNED in optimizers.RATES["adam"]
    assert not set(optimizers.TUNING) & set(optimizers.FRESH)
    for make in optimizers.OPTIMIZERS.values():
        sizes = {"vocab_size": 11, "tgt_vocab_size": 13}
        model = Transformer(optimizers.small(sizes))
        optimizer, before = (
            make(model),
            [p.detach().clone() for p in model.parameters()],
        )
        for group in optimizer.param_groups:
            group["lr"] = 0.1
        for p in model.parameters():
            p.grad = p + 1.0
        optimizer.step()
        moved = zip(model.parameters(), before, strict=True)
        assert all((p != old).any() for p, old in moved)


def test_the_rate_is_chosen_by_other_seeds_than_those_that_report():
    from annotated_transformer.studies import optimizers

    rows = [
        {**run, "validation": abs(math.log(run["rate"] / 0.01)), "test": run["seed"]}
        for run in optimizers.STUDY.runs
    ]
    for row in rows:  # seeds that report would choose another rate
        row["validation"] *= 1 if row["seed"] in optimizers.TUNING else -9
    study = Results("optimizers", "", "", "", rows)
    best = optimizers.chosen(study)
    assert best["adam"] == 0.008 and best["sgd"] == 0.05
    fresh = optimizers.fresh(study, "test", optimizer="adam", rate=0.008)
    assert fresh.tolist() == list(optimizers.FRESH)


def test_a_parser_learns_brackets_and_an_unknown_word_is_one():
    from annotated_transformer.constituents import Parsed
    from annotated_transformer.studies import parsing

    row = Parsed(["a", "dog", "."], "(S (NP DT NN )NP . )S".split())
    parser = parsing.train_parser([row] * 30, seed=3, steps=60)
    assert parser.parse([row.words, ["a", "cat", "."]])[0] == row.tree
    source, target = parser.encode(Parsed(["a", "cat", "."], ["(S"]))
    assert source[1] == 3 and source[-1] == target[-1] == 2


def test_a_layer_scale_of_one_changes_nothing_and_of_zero_leaves_the_input():
    import torch

    from annotated_transformer.layers import PreNorm
    from annotated_transformer.studies.layer_scale import deep_sorter
    from annotated_transformer.variations import LayerScale

    x = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    plain = PreNorm(5, 0.0)
    for start, expected in ((1.0, plain(x, torch.tanh)), (0.0, x)):
        scaled = LayerScale(plain, 5, start=start)
        torch.testing.assert_close(scaled(x, torch.tanh), expected)
    one, other = (deep_sorter("post", s, seed=1, layers=2) for s in (0.0, 1.0))
    digits = torch.randint(10, (2, 8))
    torch.testing.assert_close(one(digits), other(digits))


def test_a_moving_average_is_pytorchs_and_forgets_as_its_memory_says():
    import torch
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    from annotated_transformer.optimizers import MovingAverage
    from annotated_transformer.studies.averaging import Keeper

    model = torch.nn.Linear(2, 3)
    ours, keeper = MovingAverage(model, 5), Keeper(last=2, memories=(5,))
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(1 - 1 / 5))
    theirs.update_parameters(model)  # the first call copies
    for step in range(4):
        with torch.no_grad():
            model.weight.fill_(float(step))
        ours.update(model)
        keeper(model)
        theirs.update_parameters(model)
    torch.testing.assert_close(ours.weights["weight"], theirs.module.weight.data)
    kept = keeper.weights()
    assert kept["plain"]["weight"].unique() == 2.5 and kept["last"]["bias"].any()
    assert len(keeper.recent) == 2


def few(monkeypatch, *, sentences=3):
    """The study of forms on a few sentences."""
    from annotated_transformer.corpora import sample_captions
    from annotated_transformer.studies import forms

    captions = sample_captions()["captions"][:sentences]
    texts = tuple(map(list, zip(*captions, strict=True)))
    monkeypatch.setattr(forms, "split", lambda: texts)
    monkeypatch.setattr(forms, "multi30k", lambda: {"validation": captions})
    for made in (forms.plain_texts, forms.engine_texts, forms.least_missed):
        made.cache_clear()
    return forms


PYTORCH = ["float32", "fast path", "bfloat16", "int8 by hand", "int8 PyTorch"]


@pytest.mark.parametrize("form", [*PYTORCH, "12 heads fewer"])
def test_a_form_of_pytorchs_translates_and_weighs_what_its_numbers_weigh(
    form, monkeypatch
):
    forms = few(monkeypatch)
    translate, n_bytes = forms.by_pytorch(form)
    texts = translate(forms.split()[0])
    assert all(text.endswith(".") for text in texts)
    weights = 3_876_864
    head = 4 * 192 * 32
    expected = {
        "float32": 4 * weights,
        "fast path": 4 * weights,
        "bfloat16": 2 * weights,
        "12 heads fewer": 4 * (weights - 12 * head),
    }
    if form in expected:
        assert n_bytes == expected[form]
    else:
        assert weights < n_bytes < 2 * weights


def test_float32_is_measured_without_the_fast_path(monkeypatch):
    import torch

    from annotated_transformer import decoding

    forms = few(monkeypatch)
    seen = []

    def spy(model, src):
        seen.append((torch.get_float32_matmul_precision(), model.training))
        return decoding.greedy_search(model, src)

    monkeypatch.setattr(forms, "greedy_search", spy)
    for form in ("float32", "fast path"):
        forms.by_pytorch(form)[0](forms.split()[0])
    assert [precision for precision, _ in seen] == ["highest", "medium"]


def test_the_heads_that_leave_are_all_different_and_each_attention_keeps_one(
    monkeypatch,
):
    forms = few(monkeypatch)
    chosen = forms.least_missed(45)
    assert len(set(chosen)) == 45
    by_name = [[h for other, h in chosen if other == name] for name, _ in chosen]
    assert max(map(len, by_name)) == 5
    assert forms.least_missed(12) == chosen[:12]
