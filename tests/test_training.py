"""Training: the same end however the work is cut, spread or interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from annotated_transformer.batches import Batch, collate
from annotated_transformer.config import TransformerConfig
from annotated_transformer.errors import InputError
from annotated_transformer.objectives import (
    ConsistentObjective,
    Objective,
    disagreement,
)
from annotated_transformer.progress import read_history
from annotated_transformer.special import EOS, PAD
from annotated_transformer.training import (
    TrainingConfig,
    adam,
    cut,
    train,
    train_step,
    validate,
)
from annotated_transformer.transformer import Transformer

CONFIG = TransformerConfig(
    vocab_size=17, d_model=8, d_ff=12, n_heads=2, n_layers=1, dropout=0.0
)


def random_pairs(n, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def sentence():
        length = int(torch.randint(1, 8, (), generator=generator))
        return [*torch.randint(4, 17, (length,), generator=generator).tolist(), EOS]

    return [(sentence(), sentence()) for _ in range(n)]


def new_model(**changes):
    torch.manual_seed(5)
    return Transformer(TransformerConfig(**{**vars(CONFIG), **changes}))


def one_step(pieces, n_tokens, clip=None):
    model = new_model()
    objective, optimizer = Objective(model, smoothing=0.1), adam(model)
    optimizer.param_groups[0]["lr"] = 0.01
    loss = train_step(objective, optimizer, pieces, n_tokens=n_tokens, clip=clip)
    return loss, model, optimizer


@pytest.mark.parametrize("pieces", [2, 3, 7])
def test_accumulation_equals_the_large_batch(pieces):
    pairs = random_pairs(11)
    n_tokens = sum(len(tgt) for _, tgt in pairs)
    loss, whole, _ = one_step([collate(pairs)], n_tokens)
    same_loss, in_pieces, _ = one_step(cut(pairs, pieces), n_tokens)
    assert same_loss == pytest.approx(loss, rel=1e-5)
    for a, b in zip(whole.parameters(), in_pieces.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-4)


def test_dividing_each_piece_by_its_own_tokens_would_differ():
    pairs = [([5, EOS], [6, EOS]), ([5, EOS], [6, 7, 8, 9, 10, 11, 12, EOS])]
    gradients = []
    for weights in ([1 / 10, 1 / 10], [1 / 4, 1 / 16]):  # by the batch, by each piece
        model = new_model()
        objective = Objective(model, smoothing=0.1)
        for piece, weight in zip(cut(pairs, 2), weights, strict=True):
            (objective(piece) * weight).backward()
        gradients.append(model.tgt_embeddings.weight.grad)
    assert (gradients[0] - gradients[1]).abs().max() > 1e-3


def test_cut_deals_every_pair_once_and_blanks_count_for_nothing():
    pairs = random_pairs(3)
    pieces = cut(pairs, 5)
    assert [len(piece.src) for piece in pieces] == [1] * 5
    assert sum(piece.n_tokens for piece in pieces) == sum(len(tgt) for _, tgt in pairs)
    assert Objective(new_model(), 0.1)(pieces[-1]).item() == 0


def test_clipping_bounds_the_gradient_of_the_whole_batch():
    pairs = random_pairs(5)
    _, model, _ = one_step(cut(pairs, 2), n_tokens=1, clip=0.5)
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert norm.item() == pytest.approx(0.5, rel=1e-4)


def test_validation_is_plain_cross_entropy_and_leaves_no_gradient():
    pairs, model = random_pairs(7), new_model(dropout=0.5)
    loss = validate(Objective(model, smoothing=0.1), pairs, max_tokens=20)
    # With dropout, the second result would differ.
    assert loss == validate(Objective(model, smoothing=0.1), pairs, max_tokens=20)
    assert all(p.grad is None for p in model.parameters())
    total, n_tokens = 0.0, 0
    for src, tgt in pairs:
        batch = collate([(src, tgt)])
        logits = model(batch.src, batch.tgt_in)[0]
        logits[:, 0] = -torch.inf
        total += -logits.log_softmax(-1).gather(-1, batch.labels.T).sum().item()
        n_tokens += len(tgt)
    assert loss == pytest.approx(total / n_tokens, rel=1e-5)


# Consistency: each sentence read twice

N, VOCAB, D_MODEL = 5, 7, 3
LABELS = torch.tensor([4, PAD, 1, 6, PAD])
REAL = LABELS != PAD


def two_passes():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, N, D_MODEL, generator=generator)
    return first, second, torch.randn(VOCAB, D_MODEL, generator=generator)


def test_disagreement_is_the_kl_divergence_both_ways():
    first, second, weight = two_passes()
    p, q = (
        ((side @ weight.T)[REAL][:, 1:]).log_softmax(-1) for side in (first, second)
    )
    options = {"log_target": True, "reduction": "sum"}
    both = F.kl_div(q, p, **options) + F.kl_div(p, q, **options)
    torch.testing.assert_close(disagreement(first, second, weight, LABELS), both)
    torch.testing.assert_close(disagreement(second, first, weight, LABELS), both)


def test_passes_that_say_the_same_do_not_disagree():
    first, _, weight = two_passes()
    first, second = first.requires_grad_(), first.detach().requires_grad_()
    apart = disagreement(first, second, weight, LABELS)
    assert apart.item() == 0
    gradients = torch.autograd.grad(apart, [first, second])
    assert all((gradient == 0).all() for gradient in gradients)


def test_padding_cannot_disagree():
    first, second, weight = two_passes()
    apart = disagreement(first, second, weight, LABELS)
    second = torch.where(REAL[:, None], second, 1e3)
    other = weight.clone()
    other[PAD] = 1e3
    torch.testing.assert_close(disagreement(first, second, other, LABELS), apart)
    assert apart > 0


def consistent(model):
    return ConsistentObjective(model, smoothing=0.1, consistency=5.0)


def test_two_readings_cost_their_mean_and_a_charge_for_disagreement():
    batch, model = collate(random_pairs(7)), new_model(dropout=0.5).train()
    torch.manual_seed(1)
    loss = consistent(model)(batch)
    torch.manual_seed(1)  # the same two readings
    twice = Batch(torch.cat([batch.src] * 2), torch.cat([batch.tgt] * 2))
    logits = model(twice.src, twice.tgt_in)[..., 1:].log_softmax(-1)
    first, second = logits.chunk(2)
    real = batch.labels != PAD
    apart = ((first.exp() - second.exp()) * (first - second)).sum(-1)[real].sum()
    plain = [
        F.cross_entropy(
            half[real], batch.labels[real] - 1, reduction="sum", label_smoothing=0.1
        )
        for half in (first, second)
    ]
    assert apart > 1
    torch.testing.assert_close(loss, sum(plain) / 2 + 5 / 4 * apart)


def test_without_dropout_both_readings_agree_and_nothing_changes():
    batch = collate(random_pairs(7))
    losses, gradients = [], []
    for objective in (Objective(new_model(), smoothing=0.1), consistent(new_model())):
        losses.append(objective(batch))
        gradients.append(torch.autograd.grad(losses[-1], list(objective.parameters())))
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients)


def test_two_readings_in_pieces_add_up():
    torch.manual_seed(0)
    pairs, objective = random_pairs(11), consistent(new_model().train())
    pieces = [objective(piece) for piece in cut(pairs, 3)]
    torch.testing.assert_close(sum(pieces), objective(collate(pairs)))


def test_a_model_that_is_not_in_training_reads_once():
    batch, model = collate(random_pairs(7)), new_model(dropout=0.5).eval()
    plain = Objective(model, smoothing=0.1)(batch)
    assert consistent(model)(batch).item() == plain.item()
    pairs = random_pairs(7)
    assert validate(consistent(model), pairs, 20) == validate(
        Objective(model, smoothing=0.1), pairs, 20
    )


def test_a_run_reads_twice_if_its_settings_say_so(tmp_path):
    pairs = random_pairs(30)
    losses = {}
    for consistency in (0.0, 5.0, 50.0):
        config = settings(consistency=consistency)
        folder = tmp_path / str(consistency)
        history = train(new_model(dropout=0.3), pairs, pairs[:7], config, folder)
        losses[consistency] = history[0]["loss"]
    assert losses[0.0] < losses[5.0] < losses[50.0]


@pytest.mark.parametrize("consistency", [0.0, 5.0])
def test_a_validation_does_not_change_the_training(tmp_path, consistency):
    pairs, weights = random_pairs(30), []
    for every in (1, 6):
        model = new_model(dropout=0.3)
        config = settings(consistency=consistency, validate_every=every)
        train(model, pairs, pairs[:7], config, tmp_path / str(every))
        weights.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(*weights)


def settings(**changes):
    values = {"steps": 6, "batch_tokens": 40, "learning_rate": 0.01, "warmup": 2}
    return TrainingConfig(**{**values, "validate_every": 2, "keep": 2, **changes})


def test_a_run_leaves_history_checkpoints_and_the_best_weights(tmp_path):
    pairs = random_pairs(30)
    history = train(new_model(), pairs, pairs[:7], settings(), tmp_path)
    assert [row["step"] for row in history] == [2, 4, 6] and history == read_history(
        tmp_path
    )
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == [
        "step-00000004",
        "step-00000006",
    ]
    assert history[-1]["tokens"] > history[0]["tokens"] > 0


def scored_run(folder, scores, *, resume=False, **changes):
    """Train, with these scores in place of measured ones."""
    given = iter(scores)
    return train(
        new_model(),
        random_pairs(30),
        random_pairs(3, seed=1),
        settings(steps=10, **changes),
        folder,
        score=lambda group: {"bleu": next(given)},
        metric="bleu",
        resume=resume,
    )


def test_the_weights_of_the_best_score_are_kept(tmp_path):
    scored_run(tmp_path, [3.0, 5.0, 4.0, 4.5, 4.9], keep=5)
    checkpoints = sorted((tmp_path / "checkpoints").glob("*/model.safetensors"))
    first, best, *others = map(load_file, checkpoints)
    kept = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(kept[name], best[name]) for name in kept)
    for other in (first, *others):
        assert not torch.equal(
            kept["src_embeddings.weight"], other["src_embeddings.weight"]
        )


def test_early_stopping_waits_for_patience_and_no_longer(tmp_path):
    run = partial(scored_run, tmp_path, [3.0, 5.0, 4.0, 4.5, 9.0], patience=2)
    history = run()
    assert [row["bleu"] for row in history] == [3.0, 5.0, 4.0, 4.5]
    assert run(resume=True) == history  # stopped is stopped


def test_tensorboard_gets_the_history(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = train(
        new_model(),
        random_pairs(30),
        random_pairs(3),
        settings(),
        tmp_path,
        tensorboard=True,
    )
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    logged = [event.value for event in events.Scalars("validation_loss")]
    assert logged == pytest.approx(
        [row["validation_loss"] for row in history], rel=1e-5
    )


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"batch_tokens": 0}, {"smoothing": 1.0}, {"consistency": -1.0}],
)
def test_impossible_settings_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        TrainingConfig(**wrong)


# Through the command line, as a user runs it.

SMALL_RUN = (
    "--corpus grammar --size 300 --vocab-size 120 --d-model 16 --d-ff 24 --n-heads 2 "
    "--n-layers 1 --batch-tokens 300 --steps 12 --validate-every 4 --warmup 3 --seed 3"
).split()


def command(*arguments):
    return [
        sys.executable,
        "-m",
        "annotated_transformer",
        "train",
        *SMALL_RUN,
        *arguments,
    ]


def run(*arguments):
    subprocess.run(command(*arguments), check=True, capture_output=True, timeout=300)


def last_state(folder):
    checkpoint = folder / "checkpoints" / "step-00000012"
    names = "model.safetensors", "optimizer.safetensors"
    return {
        name + "/" + key: value
        for name in names
        for key, value in load_file(checkpoint / name).items()
    }


def timeless(folder):
    return [
        {k: v for k, v in r.items() if "minutes" not in k} for r in read_history(folder)
    ]


def test_two_processes_equal_one(tmp_path):
    run("--run", str(tmp_path / "one"), "--processes", "1", "--dropout", "0")
    run("--run", str(tmp_path / "two"), "--processes", "2", "--dropout", "0")
    one, two = last_state(tmp_path / "one"), last_state(tmp_path / "two")
    assert one.keys() == two.keys()
    for key, value in one.items():
        if key.startswith("model"):
            # bfloat16 units, where there are any, round each half of a batch by itself.
            torch.testing.assert_close(value, two[key], atol=5e-4, rtol=1e-3)
    for a, b in zip(
        timeless(tmp_path / "one"), timeless(tmp_path / "two"), strict=True
    ):
        assert a["tokens"] == b["tokens"]
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, processes):
    arguments = ("--processes", processes, "--dropout", "0.2", "--consistency", "2")
    run("--run", str(tmp_path / "whole"), *arguments)
    folder = tmp_path / "killed"
    victim = subprocess.Popen(
        command("--run", str(folder), *arguments), stderr=subprocess.DEVNULL, stdout=-1
    )
    deadline = time.monotonic() + 200
    while not list(folder.glob("checkpoints/step-*")):
        assert time.monotonic() < deadline and victim.poll() is None
        time.sleep(0.01)
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    wait_for_orphans(victim.pid, folder)
    assert len(read_history(folder)) < 3, "the run was over before it was killed"
    run("--run", str(folder), *arguments, "--resume")
    whole, resumed = last_state(tmp_path / "whole"), last_state(folder)
    assert whole.keys() == resumed.keys()
    different = [key for key in whole if not torch.equal(whole[key], resumed[key])]
    assert not different
    assert timeless(tmp_path / "whole") == timeless(folder)
    best = "model.safetensors"
    for key, value in load_file(tmp_path / "whole" / best).items():
        assert torch.equal(value, load_file(folder / best)[key])


def wait_for_orphans(pid, folder):
    """Processes that outlive their launcher notice and stop: the folder grows still."""
    settled = 0
    previous = None
    while settled < 30:
        now = sorted(
            (str(p), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.exists()
        )
        settled = settled + 1 if now == previous else 0
        previous = now
        time.sleep(0.1)


def test_resuming_with_other_settings_is_refused(tmp_path):
    run("--run", str(tmp_path), "--processes", "1")
    done = subprocess.run(
        command(
            "--run", str(tmp_path), "--resume", "--d-ff", "32", "--batch-tokens", "200"
        ),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "d_ff (24 there, 32 now)" in done.stderr and "batch_tokens" in done.stderr
    fresh = subprocess.run(
        command("--run", str(tmp_path)), capture_output=True, text=True
    )
    assert fresh.returncode == 2 and "--resume" in fresh.stderr
    assert json.loads((tmp_path / "settings.json").read_text())["model"]["d_ff"] == 24
