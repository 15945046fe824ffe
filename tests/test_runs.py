"""A run's folder, corpus and settings belong together, or the user is told."""

import json
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from annotated_transformer import corpora, runs, training
from annotated_transformer import translator as translator_module
from annotated_transformer.config import TrainingConfig, TransformerConfig
from annotated_transformer.decoding import greedy_search
from annotated_transformer.errors import InputError
from annotated_transformer.grammar import grammar_corpus
from annotated_transformer.progress import read_history, standing
from annotated_transformer.recipes import Recipe, read_settings
from annotated_transformer.translator import Translator
from tests.test_training import new_model, random_pairs, scored_run, settings

PAIRS = grammar_corpus(400)["train"]
TINY = TransformerConfig(
    vocab_size=150, d_model=16, d_ff=24, n_heads=2, n_layers=1, norm="pre"
)
SHORT = TrainingConfig(
    steps=4, batch_tokens=500, learning_rate=3e-3, warmup=2, validate_every=2
)


def write(path, pairs):
    path.write_text("".join(f"{a}\t{b}\n" for a, b in pairs), "utf-8")
    return str(path)


@pytest.fixture
def corpus(tmp_path):
    return write(tmp_path / "pairs.tsv", PAIRS)


def recipe(corpus, **changes):
    return Recipe(corpus=corpus, model=TINY, training=SHORT, vocab_size=150, **changes)


def run_once(folder, chosen, *, resume=False):
    runs.prepare(folder, chosen, data_dir=None, resume=resume)
    runs.train_run(folder, None, {"resume": resume, "device": "cpu"})
    return read_history(folder)


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# A run is written into a new or empty folder, or its own


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "model.safetensors", "curve.png", "checkpoints", "x.txt"]
)
def test_the_folder_of_somebody_else_is_left_alone(tmp_path, corpus, name):
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / name).write_bytes(b"precious")
    for resume in (False, True):
        with pytest.raises(InputError, match=name):
            runs.prepare(folder, recipe(corpus), data_dir=None, resume=resume)
    assert [p.name for p in folder.iterdir()] == [name]
    assert (folder / name).read_bytes() == b"precious"


def test_a_file_or_a_model_without_a_recipe_is_no_run(tmp_path, corpus):
    with pytest.raises(InputError, match="is a file"):
        runs.prepare(
            tmp_path / "pairs.tsv", recipe(corpus), data_dir=None, resume=False
        )
    run_once(tmp_path / "run", recipe(corpus))
    saved = json.loads((tmp_path / "run" / "settings.json").read_text())
    (tmp_path / "run" / "settings.json").write_text(
        json.dumps({"model": saved["model"]})
    )
    with pytest.raises(InputError, match="no run made"):
        runs.prepare(tmp_path / "run", recipe(corpus), data_dir=None, resume=True)


def test_a_run_that_has_not_begun_does_not_block_the_next_try(tmp_path, corpus):
    folder = tmp_path / "run"
    runs.prepare(folder, recipe(corpus), data_dir=None, resume=False)
    (folder / "tokenizer.model").unlink()  # stopped halfway
    other = replace(recipe(corpus), vocab_size=120)
    runs.prepare(folder, other, data_dir=None, resume=False)
    assert read_settings(folder).recipe.vocab_size == 120
    assert len(run_once(folder, other)) == 2
    with pytest.raises(InputError, match="already holds a run"):
        runs.prepare(folder, other, data_dir=None, resume=False)


# A resumed run goes on as it began


def resumed(folder, chosen, steps=6):
    longer = replace(chosen, training=replace(chosen.training, steps=steps))
    return run_once(folder, longer, resume=True)


def test_more_steps_make_a_run_longer_and_the_new_curve_is_said(
    tmp_path, corpus, capsys
):
    before = run_once(tmp_path / "run", recipe(corpus))
    after = resumed(tmp_path / "run", recipe(corpus))
    assert after[:2] == before and [row["step"] for row in after] == [2, 4, 6]
    assert (
        "steps 6 instead of 4 and a new learning rate curve" in capsys.readouterr().err
    )
    assert read_settings(tmp_path / "run").recipe.training.steps == 6


def test_options_that_are_not_repeated_are_those_of_the_run(tmp_path, corpus):
    run_once(tmp_path / "run", recipe(corpus))
    found = runs.first_recipe(tmp_path / "run", None, resume=True, start_from=None)
    assert (found.training, found.vocab_size) == (SHORT, 150)
    assert found.model.d_model == 16 and found.corpus.endswith("pairs.tsv")


def spoil(run, what):
    """Make one file of a run another than it was."""
    last = run / "checkpoints" / "step-00000004"
    if what == "no settings":
        (run / "settings.json").unlink()
    if what == "another seed":
        saved = json.loads((run / "settings.json").read_text())
        saved["recipe"]["training"]["seed"] = 5
        (run / "settings.json").write_text(json.dumps(saved))
    if what == "a short history":
        rows = (run / "history.jsonl").read_text().splitlines(keepends=True)
        (run / "history.jsonl").write_text(rows[-1])
    if what == "no history":
        (run / "history.jsonl").unlink()
    if what == "a row without a step":
        (run / "history.jsonl").write_text('{"loss": 1.0}\n')
    if what == "a row that is not JSON":
        (run / "history.jsonl").write_text("{")
    if what == "older weights":
        old = run / "checkpoints" / "step-00000002" / "model.safetensors"
        shutil.copy(old, last / "model.safetensors")
    if what == "an empty state":
        (last / "state.json").write_text("{}")
    if what == "a state that is a list":
        (last / "state.json").write_text("[]")
    if what == "a state without its best":
        state = json.loads((last / "state.json").read_text())
        del state["best"]
        (last / "state.json").write_text(json.dumps(state))
    if what == "another step":
        edit_json(last / "state.json", step=2)
    if what == "an infinite state":
        (last / "state.json").write_text(
            (last / "state.json")
            .read_text()
            .replace('"best": ', '"best": 1e999, "x": ')
        )
    if what == "another tokenizer":
        runs.SubwordTokenizer.train(PAIRS[:200], vocab_size=150).save(run)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("no settings", "no settings.json"),
        ("another seed", "settings.json does not belong"),
        ("a short history", "history.jsonl does not belong"),
        ("no history", "history.jsonl does not belong"),
        ("a row without a step", "has no"),
        ("a row that is not JSON", "not JSON"),
        ("older weights", "model.safetensors does not belong"),
        ("an empty state", "state.json"),
        ("a state that is a list", "state.json"),
        ("a state without its best", "state.json: best is missing"),
        ("another step", "state.json does not belong"),
        ("an infinite state", "state.json"),
        ("another tokenizer", "does not belong"),
    ],
)
def test_what_does_not_belong_to_a_run_is_refused_by_name(
    tmp_path, corpus, what, words
):
    folder, chosen = tmp_path / "run", recipe(corpus)
    run_once(folder, chosen)
    spoil(folder, what)
    if what == "another seed":
        chosen = replace(chosen, training=replace(SHORT, seed=5))
    with pytest.raises(InputError, match=words) as error:
        resumed(folder, chosen)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [None, b"", b"nonsense", "older"])
def test_lost_best_weights_come_back_from_their_checkpoint(tmp_path, corpus, content):
    folder = tmp_path / "run"
    run_once(folder, recipe(corpus))
    best = folder / "model.safetensors"
    state = json.loads((folder / "checkpoints/step-00000004/state.json").read_text())
    kept = folder / "checkpoints" / f"step-{state['best_step']:08d}" / best.name
    if content is None:
        best.unlink()
    else:
        best.write_bytes(b"" if content == "older" else content)
    if content == "older":
        other = 6 - state["best_step"]
        shutil.copy(folder / "checkpoints" / f"step-{other:08d}" / best.name, best)
    runs.train_run(folder, None, {"resume": True, "device": "cpu"})
    assert best.read_bytes() == kept.read_bytes()


def test_best_weights_that_no_checkpoint_keeps_are_missed_by_name(tmp_path):
    scored_run(tmp_path, [5.0, 4.0, 3.0, 2.0, 1.0], keep=1)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="best weights of this run, those of step 2"):
        scored_run(tmp_path, [], resume=True, keep=1)


# The corpus


def test_a_corpus_that_changed_is_noticed(tmp_path, corpus, capsys):
    folder = tmp_path / "run"
    run_once(folder, recipe(corpus))
    assert read_settings(folder).digests.keys() == {"train", "validation", "test"}
    with open(corpus, "a", encoding="utf-8") as file:
        file.write("neu\tnew\n" * 20)
    with pytest.raises(InputError, match="split of .* changed since"):
        resumed(folder, recipe(corpus))
    with pytest.raises(InputError, match="may hold sentences that were trained on"):
        runs.pairs_to_score(folder, None, None, None)
    _, name, pairs = runs.pairs_to_score(folder, corpus, "all", None)
    assert name == "all" and len(pairs) == 420


def test_the_corpus_is_found_from_another_folder(tmp_path, corpus, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_once(tmp_path / "run", recipe("pairs.tsv"))
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    _, name, pairs = runs.pairs_to_score(tmp_path / "run", None, None, None)
    assert name == "test" and len(pairs) == 20
    again = runs.pairs_to_score(tmp_path / "run", "../pairs.tsv", None, None)
    assert again[1:] == (name, pairs)


def test_a_corpus_that_moved_can_be_named_anew(tmp_path, corpus, capsys):
    folder, there = tmp_path / "run", str(tmp_path / "there.tsv")
    run_once(folder, recipe(corpus))
    shutil.move(corpus, there)
    longer = replace(recipe(there), training=replace(SHORT, steps=6))
    assert resumed(folder, longer)[-1]["step"] == 6
    assert f"corpus {there} instead of" in capsys.readouterr().err
    other = write(tmp_path / "other.tsv", PAIRS[:300])
    with pytest.raises(InputError, match=r"other settings: corpus \("):
        resumed(folder, recipe(other))


def test_more_pairs_join_the_training_split_alone(tmp_path, corpus):
    more = write(tmp_path / "more.tsv", [(b, a) for a, b in PAIRS[:50]])
    plain = runs.load_splits(recipe(corpus), None)
    splits = runs.load_splits(recipe(corpus, more=more), None)
    assert len(splits["train"]) == len(plain["train"]) + 50
    assert splits["train"][-1] == PAIRS[49][::-1]
    assert all(splits[name] == plain[name] for name in ("validation", "test"))
    with pytest.raises(InputError, match="there is no corpus"):
        runs.load_splits(recipe(corpus, more="missing.tsv"), None)


def test_a_model_is_scored_without_the_pairs_that_were_added(tmp_path, corpus):
    more = write(tmp_path / "more.tsv", PAIRS[:50])
    run_once(tmp_path / "run", recipe(corpus, more=more))
    (tmp_path / "more.tsv").unlink()
    _, name, pairs = runs.pairs_to_score(tmp_path / "run", None, None, None)
    assert name == "test" and len(pairs) == 20
    with open(corpus, "a", encoding="utf-8") as file:
        file.write("neu\tnew\n" * 20)
    with pytest.raises(InputError, match="may hold sentences that were trained on"):
        runs.pairs_to_score(tmp_path / "run", None, None, None)


def test_another_file_is_scored_whole(tmp_path, corpus):
    run_once(tmp_path / "run", recipe(corpus))
    few = write(tmp_path / "few.tsv", PAIRS[:20])
    assert runs.pairs_to_score(tmp_path / "run", few, None, None)[1:] == (
        "all",
        PAIRS[:20],
    )
    with pytest.raises(InputError, match="no split 'test' here: choose all"):
        runs.pairs_to_score(tmp_path / "run", few, "test", None)


def test_own_validation_and_test_files_are_used_whole(tmp_path, corpus, capsys):
    held = write(tmp_path / "held.tsv", PAIRS[:7])
    exam = write(tmp_path / "exam.tsv", [("neu", "new")])
    pairs = corpora.load_corpus(corpus, validation=held, test=exam)
    assert pairs["train"] == PAIRS and pairs["validation"] == PAIRS[:7]
    assert pairs["test"] == [("neu", "new")]
    one = corpora.load_corpus(corpus, validation=held)
    assert len(one["test"]) == 20 and len(one["train"]) == 380
    assert not {s for s, _ in one["test"]} & {s for s, _ in one["train"]}
    runs.warn_of_splits(pairs)
    err = capsys.readouterr().err
    assert "the validation split has 7 sentences" in err
    assert "7 of 7 source sentences of the validation split are in the training" in err
    run_once(tmp_path / "run", recipe(corpus, validation=held, test=exam))
    assert runs.pairs_to_score(tmp_path / "run", None, None, None)[2] == [
        ("neu", "new")
    ]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_sentence_too_long_is_named_before_anything_is_written(tmp_path, split):
    files = {
        name: write(tmp_path / f"{name}.tsv", PAIRS[:200])
        for name in ("train", "validation", "test")
    }
    with open(files[split], "a", encoding="utf-8") as file:
        file.write("Hund " * 1_100 + "\tdog\n")
    chosen = recipe(files["train"], validation=files["validation"], test=files["test"])
    with pytest.raises(InputError, match=f"pair 201 of the {split} split has .,.01"):
        runs.prepare(tmp_path / "run", chosen, data_dir=None, resume=False)
    assert not (tmp_path / "run").exists()


def test_a_model_beyond_the_memory_is_refused(tmp_path, corpus):
    big = replace(TINY, d_model=65_536, n_heads=64, d_ff=262_144, n_layers=40)
    with pytest.raises(InputError, match="GiB to train, and this machine has"):
        runs.prepare(
            tmp_path / "run",
            replace(recipe(corpus), model=big),
            data_dir=None,
            resume=False,
        )
    assert not (tmp_path / "run").exists()


def test_a_run_can_start_from_the_weights_of_another(tmp_path, corpus):
    run_once(tmp_path / "first", recipe(corpus))
    other = write(tmp_path / "other.tsv", PAIRS[100:400])
    base = runs.first_recipe(
        tmp_path / "second", other, resume=False, start_from=tmp_path / "first"
    )
    slow = replace(base, training=replace(SHORT, learning_rate=1e-12))
    run_once(tmp_path / "second", slow)
    one, two = (
        load_file(tmp_path / name / "model.safetensors") for name in ("first", "second")
    )
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
    tokenizers = [tmp_path / name / "tokenizer.model" for name in ("first", "second")]
    assert tokenizers[0].read_bytes() == tokenizers[1].read_bytes()
    wide = replace(base, model=replace(base.model, d_ff=32))
    with pytest.raises(InputError, match="does not fit"):
        runs.prepare(tmp_path / "third", wide, data_dir=None, resume=False)
    assert not (tmp_path / "third").exists()


def test_an_average_takes_no_other_folder(tmp_path, corpus):
    run_once(tmp_path / "run", recipe(corpus))
    mean, other = tmp_path / "mean", tmp_path / "other"
    for _ in range(2):  # its own folder may be written again
        assert len(runs.average_run(tmp_path / "run", 2, mean)) == 2
    run_once(other, recipe(corpus))
    before = {p.name: p.read_bytes() for p in other.iterdir() if p.is_file()}
    for folder in (other, tmp_path / "run"):
        with pytest.raises(InputError, match="that is no average"):
            runs.average_run(tmp_path / "run", 2, folder)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(InputError, match="settings.json is missing"):
        runs.average_run(tmp_path / "run", 2, tmp_path / "theirs")
    assert before == {p.name: p.read_bytes() for p in other.iterdir() if p.is_file()}
    for last in (0, -1, 3):
        with pytest.raises(InputError, match=f"2 checkpoints: their last {last} "):
            runs.average_run(tmp_path / "run", last, tmp_path / "new")
    assert not (tmp_path / "new").exists()


# Scores and weights that lie


def test_of_equal_scores_the_lower_validation_loss_is_better(tmp_path, capsys):
    history = scored_run(tmp_path, [0.0] * 5, keep=9)
    losses = [row["validation_loss"] for row in history]
    best = losses.index(min(losses))
    assert best > 0, "the case tests nothing if the first loss is the lowest"
    checkpoints = sorted((tmp_path / "checkpoints").glob("*/model.safetensors"))
    assert (tmp_path / "model.safetensors").read_bytes() == checkpoints[
        best
    ].read_bytes()
    assert capsys.readouterr().err.count("bleu was 0 at each of 3 validations") == 1


def test_equal_scores_do_not_stop_a_run_whose_loss_falls(tmp_path):
    assert len(scored_run(tmp_path, [0.0] * 5, patience=2)) > 3


def test_training_that_diverges_stops_and_leaves_no_weights(tmp_path):
    with pytest.raises(InputError, match=r"loss is (nan|inf) at step 2: .* lower"):
        scored_run(tmp_path, [0.0] * 5, learning_rate=1e20, warmup=1)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_score_that_is_not_a_number_is_not_saved(tmp_path):
    with pytest.raises(InputError, match="bleu is nan at step 4"):
        scored_run(tmp_path, [1.0, float("nan")])
    assert [row["step"] for row in read_history(tmp_path)] == [2]


def test_a_batch_is_never_cut_into_more_pieces_than_it_has_pairs(tmp_path, monkeypatch):
    asked = []

    def cut(pairs, pieces):
        asked.append((pieces, len(pairs)))
        return training.cut.original(pairs, pieces)

    cut.original = training.cut
    monkeypatch.setattr(training, "cut", cut)
    few = settings(steps=2, accumulate=1_000)
    training.train(new_model(), random_pairs(30), random_pairs(3), few, tmp_path)
    assert len(asked) == 2 and all(pieces <= pairs for pieces, pairs in asked)


def test_the_best_row_is_that_of_the_best_weights_for_a_loss_too():
    rows = [{"validation_loss": loss, "bleu": 1.0} for loss in (3.0, 2.0, 4.0)]
    for metric in ("validation_loss", "bleu"):
        assert max(rows, key=partial(standing, metric=metric)) is rows[1]


# A model's own length penalty


def test_a_model_is_scored_and_used_with_its_own_length_penalty(
    tmp_path, corpus, monkeypatch
):
    run_once(tmp_path / "run", recipe(corpus))
    runs.average_run(tmp_path / "run", 2, tmp_path / "plain")
    runs.average_run(tmp_path / "run", 2, tmp_path / "chosen", alpha=1.5)
    used = []

    def search(model, src, *, beam_size=4, alpha):
        used.append(alpha)
        return greedy_search(model, src)

    for module in (runs, translator_module):
        monkeypatch.setattr(module, "beam_search", search)
    for name, own in (("plain", 0.6), ("chosen", 1.5)):
        translator = Translator.load(tmp_path / name)
        translator.translate([PAIRS[0][0]])
        runs.evaluate(translator, PAIRS[:3])
        runs.evaluate(translator, PAIRS[:3], alpha=0.0)
        assert used == [own, own, 0.0]
        used.clear()


def test_an_impossible_length_penalty_is_refused(tmp_path, corpus):
    run_once(tmp_path / "run", recipe(corpus))
    with pytest.raises(InputError, match="alpha"):
        runs.average_run(tmp_path / "run", 2, tmp_path / "mean", alpha=-1.0)
    assert not (tmp_path / "mean").exists()
    runs.average_run(tmp_path / "run", 2, tmp_path / "mean", alpha=1.0)
    edit_json(tmp_path / "mean" / "settings.json", search={"alpha": "much"})
    with pytest.raises(InputError, match=r"settings.json: search.alpha"):
        Translator.load(tmp_path / "mean")
