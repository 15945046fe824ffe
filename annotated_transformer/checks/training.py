"""Checks of Part II: smoothing, schedule, training step, validation, a sweep."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from annotated_transformer.checks.common import (
    Function,
    Mistake,
    ask,
    compare,
    need,
    need_number,
    need_tensor,
    same,
    seeded,
    sizes,
    verdict,
)
from annotated_transformer.loss import smoothed_targets
from annotated_transformer.schedule import inverse_square_root
from annotated_transformer.tokenizers import PAD


def check_smoothed_targets(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`smoothed_targets(labels, vocab_size, smoothing)`, (n, vocab_size) (§5.4).

    Parts: "label" (rows of real labels), "padding" (its rows).
    """
    return verdict(
        function,
        part,
        seed,
        label=lambda f, seed: _targets(f, seed, padded=False),
        padding=lambda f, seed: _targets(f, seed, padded=True),
    )


def _labels(seed: int) -> tuple[Tensor, int, float]:
    n, vocab = sizes(seed, 5, 7)
    n, vocab = n + 3, vocab + 4
    labels = torch.randint(1, vocab, (n,), generator=seeded(seed))
    labels[[1, -1]] = PAD
    return labels, vocab, 0.3 if seed == 0 else 0.2 + 0.01 * (seed % 7)


def _targets(function: Function, seed: int, *, padded: bool) -> None:
    labels, vocab, smoothing = _labels(seed)
    if not padded:
        labels = labels[labels != PAD]
    answer = need_tensor(ask(function, labels, vocab, smoothing), (len(labels), vocab))
    right = smoothed_targets(labels, vocab, smoothing)
    hard, real = F.one_hot(labels, vocab).float(), (labels != PAD)[:, None]

    def version(share: float, kept: float, added: bool, pad: bool = False) -> Tensor:
        spread = torch.full((len(labels), vocab), share)
        rows = kept * hard + (spread if added else spread * (1 - hard))
        if not pad:
            rows[:, PAD] = 0
        return rows * real

    n, left = vocab - 1, 1 - smoothing
    mistakes = [
        (version(smoothing / vocab, left, True, pad=True), "padding gets a share"),
        (version(smoothing / n, left, True, pad=True), "padding gets a share"),
        (version(smoothing / n, left, False, pad=True), "padding gets a share"),
        (
            version(smoothing / (vocab - 2), left, False, pad=True),
            "padding gets a share",
        ),
        (
            version(smoothing / vocab, left, True),
            "the rows don't add up to 1: padding is no token, so divide by the others",
        ),
        (
            version(smoothing / (vocab - 2), left, False),
            "the label has a share of the smoothing, too: the rest is spread over ALL "
            "real tokens",
        ),
        (version(smoothing / n, left, False), "the label's own share is missing"),
        (version(smoothing, left, True), "each token got all of the smoothing: divide"),
        (version(left / n, smoothing, True), "swapped: 1 - smoothing is the label's"),
        (hard * real, "nothing is smoothed"),
        (version(smoothing / n, 1.0, True), "the rows add up to more than 1"),
    ]
    if padded:
        always = version(smoothing / n, left, True)
        rows = smoothed_targets(labels.clamp(min=1), vocab, smoothing)
        rows = torch.where(real, always, torch.full((n + 1,), smoothing / n))
        rows[:, PAD] = torch.where(real[:, 0], 0.0, rows[:, PAD])
        message = "a padded position should be a row of zeros: it has no target"
        if not same(answer * ~real, torch.zeros_like(answer)):
            raise Mistake(message)
    compare(answer, right, mistakes, f"row 0 should be {right[0]}, not {answer[0]}")


def check_smoothed_loss(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`smoothed_loss(logits, labels, smoothing)`: nats per real label, one number.

    Parts: "real" (no padding among the labels), "padding".
    """
    return verdict(
        function,
        part,
        seed,
        real=lambda f, seed: _loss(f, seed, padded=False),
        padding=lambda f, seed: _loss(f, seed, padded=True),
    )


def _loss(function: Function, seed: int, *, padded: bool) -> None:
    labels, vocab, smoothing = _labels(seed)
    if not padded:
        labels = labels[labels != PAD]
    logits = 2 * torch.randn(len(labels), vocab, generator=seeded(seed + 1))
    answer = need_number(ask(function, logits, labels, smoothing))
    targets, real = smoothed_targets(labels, vocab, smoothing), labels != PAD
    log_q = logits[:, 1:].log_softmax(-1)
    rows = -(targets[:, 1:] * log_q).sum(-1)
    if not math.isfinite(answer):
        raise Mistake(
            "not a finite number: does padding's 0 meet an infinite logarithm?"
        )
    hard = -log_q.gather(-1, (labels - 1).clamp(min=0)[:, None])[:, 0]
    all_columns = -(targets * logits.log_softmax(-1)).sum(-1)
    entropy = torch.xlogy(targets, targets).sum(-1)
    built_in = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    ignoring = F.cross_entropy(
        logits, labels, label_smoothing=smoothing, ignore_index=PAD
    )
    count = real.sum()
    on_pad = F.cross_entropy(logits, labels, reduction="none")
    compare(
        answer,
        (rows.sum() / count).item(),
        [
            (value.item(), message)
            for value, message in (
                (rows.sum(), "that is the sum: divide by the number of real labels"),
                (
                    rows.mean(),
                    "divided by all positions: padding is counted. Divide by the real "
                    "ones",
                ),
                (-rows.sum() / count, "the sign: the loss is MINUS the logarithm"),
                (hard[real].mean(), "nothing is smoothed"),
                (
                    all_columns.sum() / count,
                    "padding takes part in the softmax: leave its column out",
                ),
                (
                    all_columns.mean(),
                    "padding takes part in the softmax, and is counted in the mean",
                ),
                (built_in, "padding takes part: it has a share, and is counted"),
                (ignoring, "padding has a share of the smoothing, and a probability"),
                (on_pad.mean(), "padded positions count, and nothing is smoothed"),
                (
                    (rows + entropy).sum() / count,
                    "that is the KL divergence: the entropy of the target is missing",
                ),
                (
                    -(targets[:, 1:] * logits[:, 1:].softmax(-1)).sum() / count,
                    "where is the logarithm?",
                ),
                (
                    -(targets[:, 1:] * logits[:, 1:]).sum() / count,
                    "these are logits: take the log of their softmax",
                ),
            )
        ],
        f"it should be {(rows.sum() / count).item():.4f}, not {answer:.4f}",
    )


def check_rate(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`rate(step, d_model, warmup)`: the learning rate of Eq. 3 (§5.3), from step 1.

    Parts: "rise", "fall", "ends" (the peak, and step 0, which counts as step 1).
    """
    return verdict(function, part, seed, rise=_rise, fall=_fall, ends=_ends)


def _rates(function: Function, seed: int, steps: Sequence[float]) -> None:
    d_model, warmup = (512, 4000) if seed == 0 else (48 + seed % 11, 300 + seed % 97)
    at = [max(1, int(step * warmup)) for step in steps]
    found = [need_number(ask(function, step, d_model, warmup)) for step in at]

    def rates(formula: Function) -> list[float]:
        return [formula(step) for step in at]

    size = d_model**-0.5
    right = rates(lambda s: inverse_square_root(s, d_model=d_model, warmup=warmup))

    def is_like(wrong: list[float]) -> bool:
        return all(
            math.isclose(a, b, rel_tol=1e-6) for a, b in zip(found, wrong, strict=True)
        )

    if is_like(right):
        return
    for formula, message in (
        (
            lambda s: size * max(s**-0.5, s * warmup**-1.5),
            "max in place of min: it falls first, and rises for ever",
        ),
        (lambda s: min(s**-0.5, s * warmup**-1.5), "where is d_model ** -0.5?"),
        (
            lambda s: d_model**0.5 * min(s**-0.5, s * warmup**-1.5),
            "the sign of an exponent: d_model ** -0.5, wider models learn slower",
        ),
        (
            lambda s: min(s**-0.5, s * warmup**-1.5) / d_model,
            "divided by d_model: divide by its root",
        ),
        (
            lambda s: size * min(s**-0.5, s * warmup**-0.5),
            "the rise is too steep: warmup ** -1.5",
        ),
        (
            lambda s: size * min(s**-0.5, s / warmup),
            "the rise ends at 1, not at warmup ** -0.5",
        ),
        (
            lambda s: size * s * warmup**-1.5,
            "it rises for ever: where is step ** -0.5?",
        ),
        (lambda s: size * s**-0.5, "there is no warmup"),
        (
            lambda s: size * min(s**0.5, s * warmup**-1.5),
            "after the warmup it should fall: step ** -0.5",
        ),
        (
            lambda s: size * min(1 / s, s * warmup**-1.5),
            "it falls too fast: with the ROOT of the step",
        ),
        (
            lambda s: size * min((s + 1) ** -0.5, (s + 1) * warmup**-1.5),
            "one step ahead: the first update has the rate of step 1",
        ),
        (
            lambda s: size * min(max(s - 1, 1) ** -0.5, (s - 1) * warmup**-1.5),
            "one step behind: the first update has rate 0",
        ),
    ):
        if is_like(rates(formula)):
            raise Mistake(message)
    i = next(i for i in range(len(at)) if not is_close(found[i], right[i]))
    raise Mistake(
        f"step {at[i]} of {warmup} warmup steps should have {right[i]:.4g}, "
        f"not {found[i]:.4g}"
    )


def is_close(a: float, b: float) -> bool:
    """Equal numbers, up to rounding."""
    return math.isclose(a, b, rel_tol=1e-6)


def _rise(function: Function, seed: int) -> None:
    _rates(function, seed, (0.001, 0.01, 0.3, 0.7))


def _fall(function: Function, seed: int) -> None:
    _rates(function, seed, (1.5, 4, 25, 100))


def _ends(function: Function, seed: int) -> None:
    _rates(function, seed, (0, 1, 0.999, 1.001))
    d_model, warmup = 64 + seed, 100
    try:
        first = need_number(ask(function, 0, d_model, warmup))
    except ZeroDivisionError:
        raise Mistake("step 0 divides by zero: count it as step 1") from None
    if not is_close(first, inverse_square_root(1, d_model=d_model, warmup=warmup)):
        raise Mistake(f"step 0 should count as step 1, not have {first:.4g}")


@dataclass
class Piece:
    """A piece of a batch for the toy model: numbers in, numbers wanted."""

    x: Tensor
    y: Tensor

    @property
    def n_tokens(self) -> int:
        """How many labels it has."""
        return len(self.y)


class ToyModel(nn.Module):
    """A linear model that answers like the course's Objective: a summed loss."""

    def __init__(self, seed: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, generator=seeded(seed)))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, piece: Piece) -> Tensor:
        """Summed over the labels."""
        return ((piece.x @ self.weight + self.bias - piece.y) ** 2).sum()


class Recorder(torch.optim.SGD):
    """Gradient descent in two groups, that notes each step's rate and gradient."""

    def __init__(self, model: ToyModel):
        groups = [{"params": [model.weight]}, {"params": [model.bias]}]
        super().__init__(groups, lr=0.0)
        self.steps: list[tuple[list[float], Tensor]] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Note what this update uses, and make it."""
        rates = [float(group["lr"]) for group in self.param_groups]
        grads = [p.grad for g in self.param_groups for p in g["params"]]
        none = [torch.zeros(4), torch.zeros(1)]
        parts = [
            n if g is None else g.clone() for g, n in zip(grads, none, strict=True)
        ]
        self.steps.append((rates, torch.cat(parts)))
        super().step()


@dataclass
class StepRun:
    """One call of a student's training step, and what it did."""

    value: Any
    steps: list[tuple[list[float], Tensor]]
    pieces: list[Piece]
    model: ToyModel
    gradients: list[Tensor] = field(default_factory=list)


def run_step(
    function: Function, seed: int, clip: float, stale: bool = False
) -> StepRun:
    """Let the function make one update of a fresh toy model."""
    g = seeded(seed + 3)
    counts = (2, 5, 3) if seed == 0 else sizes(seed, 2, 5, 3)
    pieces = [
        Piece(torch.randn(n, 4, generator=g), 3 * torch.randn(n, generator=g))
        for n in counts
    ]
    model, untouched = ToyModel(seed), ToyModel(seed)
    gradients = []
    for piece in pieces:
        untouched.zero_grad()
        untouched(piece).backward()
        gradients.append(
            torch.cat([p.grad for p in untouched.parameters() if p.grad is not None])
        )
    optimizer = Recorder(model)
    if stale:
        (7 * model(pieces[0])).backward()
    value = function(model, optimizer, pieces, 0.01 + 0.001 * (seed % 5), clip)
    if (value is None or value is ...) and not optimizer.steps:
        raise Mistake("not done yet")
    return StepRun(value, optimizer.steps, pieces, model, gradients)


def check_train_step(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`train_step(model, optimizer, pieces, rate, clip)`: one update, from all pieces.

    `model(piece)` is a summed loss, `piece.n_tokens` counts its labels; returned is the
    loss per label. Parts: "gradient", "update", "clip".
    """
    return verdict(function, part, seed, gradient=_gradient, update=_update, clip=_clip)


def _gradient(function: Function, seed: int) -> None:
    done = run_step(function, seed, 1e9)
    need(done.steps, "no update was made: where is optimizer.step()?")
    counts = [piece.n_tokens for piece in done.pieces]
    total, n = sum(counts), len(counts)
    need(
        len(done.steps) != n,
        f"{n} updates: the pieces share ONE, so step once, after the last",
    )
    need(len(done.steps) == 1, f"one update is wanted, not {len(done.steps)}")
    used, gs = done.steps[0][1], done.gradients
    right = sum(gs[1:], gs[0]) / total
    need(
        used.any(), "the gradient is zero at the step: zero_grad comes before backward"
    )
    compare(
        used,
        right,
        (
            (
                right * total,
                "nothing is divided: the gradient of the sum grows with the batch",
            ),
            (
                sum(g / k for g, k in zip(gs, counts, strict=True)) / n,
                "a mean of means: a short piece counts as much as a long one. Divide "
                "by the labels of ALL pieces",
            ),
            (
                sum(g / k for g, k in zip(gs, counts, strict=True)),
                "each piece is divided by its own labels, and all are added up",
            ),
            (right * total / n, "divided by the number of pieces, not of labels"),
            (
                sum(gs[:-1], torch.zeros(5)) / total,
                "the last piece is missing: is the step made too early?",
            ),
            (gs[-1] / total, "only the last piece is left: clear once, at the start"),
            (
                gs[-1] / counts[-1],
                "only the last piece is left: clear once, at the start",
            ),
            (gs[0] / total, "only the first piece counts"),
        ),
        "another gradient than that of the mean loss over all labels",
    )
    value = done.value
    need(value is not None, "return the loss per label")
    fresh = ToyModel(seed)
    losses = [fresh(piece).item() for piece in done.pieces]
    compare(
        need_number(value),
        sum(losses) / total,
        (
            (
                sum(losses),
                "right update, but the loss returned is a sum: divide it, too",
            ),
            (losses[-1], "right update, but the loss returned is of the last piece"),
            (
                losses[-1] / total,
                "right update, but the loss returned is of the last piece",
            ),
            (
                losses[-1] / counts[-1],
                "right update, but the loss returned is of the last piece",
            ),
        ),
        f"right update, but the loss per label is {sum(losses) / total:.3f}, "
        f"not {need_number(value):.3f}",
    )


def _update(function: Function, seed: int) -> None:
    done = run_step(function, seed, 1e9, stale=True)
    need(done.steps, "no update was made: where is optimizer.step()?")
    rate = 0.01 + 0.001 * (seed % 5)
    rates, used = done.steps[-1]
    right = sum(done.gradients[1:], done.gradients[0]) / sum(
        piece.n_tokens for piece in done.pieces
    )
    need(len(done.steps) == 1, f"one update is wanted, not {len(done.steps)}")
    need(
        set(rates) != {0.0},
        "the update had rate 0: set the rate BEFORE the step",
    )
    need(
        0.0 not in rates,
        "only the first group of parameters got the rate: set it in every group",
    )
    need(
        all(is_close(r, rate) for r in rates), f"the rate should be {rate}, not {rates}"
    )
    stale = 7 * done.gradients[0]
    if same(used, right + stale):
        raise Mistake("old gradients are added: call zero_grad first")
    need(
        used.any(), "the gradient is zero at the step: zero_grad comes before backward"
    )


def _clip(function: Function, seed: int) -> None:
    free = run_step(function, seed, 1e9)
    need(free.steps, "no update was made: where is optimizer.step()?")
    need(len(free.steps) == 1, f"one update is wanted, not {len(free.steps)}")
    whole = free.steps[-1][1]
    need(
        whole.any(),
        "the gradient is zero at the step: zero_grad comes before backward",
    )
    limit = whole.abs().max().item() / 2
    need(whole.norm() < 1e6, "a gradient shorter than `clip` stays as it is")
    clipped = run_step(function, seed, limit)
    need(clipped.steps, "no update was made: where is optimizer.step()?")
    used = clipped.steps[-1][1]
    total = sum(piece.n_tokens for piece in clipped.pieces)
    each = [g / total for g in clipped.gradients]
    each = [g * min(1.0, limit / g.norm().item()) for g in each]
    raw = sum(clipped.gradients[1:], clipped.gradients[0])
    grown = torch.zeros(5)
    for g in clipped.gradients:
        grown = grown + g / total
        grown = grown * min(1.0, limit / grown.norm().item())
    compare(
        used,
        whole * (limit / whole.norm()),
        (
            (whole, "not clipped: is it called after backward, and before the step?"),
            (
                sum(each[1:], each[0]),
                "clipped after each piece: clip once, after the last",
            ),
            (grown, "clipped after each piece: clip once, after the last"),
            (
                whole.clamp(-limit, limit),
                "each number was clipped by itself: shorten the whole vector",
            ),
            (
                raw * (limit / raw.norm()) / total,
                "clipped before the division: the limit is for the mean's gradient",
            ),
        ),
        f"clipped to length {used.norm():.3f}, not {limit:.3f}",
        tolerance=1e-3,
    )


class Notes(list[bool]):
    """What a model notes of its calls; a copy of the model writes into the same."""

    def __deepcopy__(self, memo: dict) -> "Notes":
        return self


class ToyNetwork(nn.Module):
    """A model with dropout and a summed loss, that notes how it was called."""

    def __init__(self, seed: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, generator=seeded(seed)))
        self.dropout = nn.Dropout(0.5)
        self.modes, self.graphs = Notes(), Notes()

    def forward(self, piece: Piece) -> Tensor:
        """Summed over the labels."""
        loss = ((self.dropout(piece.x) @ self.weight - piece.y) ** 2).sum()
        self.modes.append(self.training or self.dropout.training)
        self.graphs.append(loss.requires_grad)
        return loss


def check_validation(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`validation_loss(model, batches)`: the loss per label over all batches.

    Parts: "mode" (`eval`, and back), "average", "graph" (nothing kept for backward).
    """
    return verdict(
        function, part, seed, mode=_mode, average=_average_loss, graph=_graph
    )


def _validated(
    function: Function, seed: int, training: bool = True
) -> tuple[Any, ToyNetwork, list[Piece]]:
    g = seeded(seed + 5)
    counts = (2, 9, 4) if seed == 0 else sizes(seed, 2, 9, 4)
    pieces = [
        Piece(torch.randn(n, 4, generator=g), 3 * torch.randn(n, generator=g))
        for n in counts
    ]
    model = ToyNetwork(seed).train(training)
    value = function(model, pieces)
    if value is None or value is ...:
        raise Mistake("not done yet")
    return value, model, pieces


def _mode(function: Function, seed: int) -> None:
    _, model, pieces = _validated(function, seed)
    need(
        not any(model.modes),
        "dropout is at work while you measure: call model.eval() before",
    )
    need(
        len(model.modes) == len(pieces),
        f"{len(pieces)} batches, but the model ran {len(model.modes)} times",
    )
    need(
        model.training,
        "the model stays in eval(): the training goes on without dropout. Restore it",
    )
    need(
        model.dropout.training,
        "the model is back in training, but its dropout is not: model.train(mode) "
        "reaches the layers inside, setting model.training does not",
    )
    _, model, _ = _validated(function, seed, training=False)
    need(
        not model.training,
        "a model that came in eval() leaves in train(): restore what it was",
    )


def _average_loss(function: Function, seed: int) -> None:
    def in_eval(model: ToyNetwork, batches: list[Piece]) -> Any:
        # Whether eval() is called is another part's business.
        model.dropout.p = 0.0
        return function(model, batches)

    value, model, pieces = _validated(in_eval, seed)
    model.eval()
    losses = [model(piece).item() for piece in pieces]
    counts = [piece.n_tokens for piece in pieces]
    means = [loss / count for loss, count in zip(losses, counts, strict=True)]
    right = sum(losses) / sum(counts)
    number = need_number(value)
    compare(
        number,
        right,
        (
            (
                sum(means) / len(means),
                "a mean of means: a short batch counts as much as a long one. Add up "
                "losses and labels, divide at the end",
            ),
            (sum(losses), "that is the sum: divide by the number of labels"),
            (
                sum(losses) / len(losses),
                "divided by the number of batches, not of labels",
            ),
            (means[-1], "that is the last batch alone"),
            (losses[-1], "that is the last batch alone"),
            (means[0], "that is the first batch alone: is the return inside the loop?"),
            (
                losses[0] / sum(counts),
                "the first batch alone: is the return inside the loop?",
            ),
        ),
        f"it should be {right:.4f}, not {number:.4f}",
    )


def _graph(function: Function, seed: int) -> None:
    value, model, _ = _validated(function, seed)
    need(
        not any(model.graphs),
        "every batch kept its graph for a backward that never comes: "
        "use torch.no_grad()",
    )
    need(
        isinstance(value, int | float),
        "return a plain number: .item() frees it from its tensor",
    )
    need(model.weight.grad is None, "a validation must not touch the gradients")
    need(
        torch.is_grad_enabled(), "gradients are switched off for good: use a with block"
    )


def check_sweep(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`sweep(train, rates, seeds)`: a dict from rate to (mean, spread) over the seeds.

    `train(rate, seed)` gives the losses of one run; a run counts with the mean of its
    last ten. Parts: "mean", "spread" (standard deviation of a sample).
    """
    return verdict(
        function,
        part,
        seed,
        mean=lambda f, seed: _swept(f, seed, "mean"),
        spread=lambda f, seed: _swept(f, seed, "spread"),
    )


def _swept(function: Function, seed: int, part: str) -> None:
    rates = [0.001, 0.01, 0.1] if seed == 0 else [0.002 + 0.001 * (seed % 3), 0.05]
    seeds = [0, 1, 2, 3] if seed == 0 else [seed, seed + 4, seed + 7]
    calls: list[tuple[float, int]] = []

    def curve(rate: float, run: int) -> list[float]:
        g = seeded(int(run * 1000 + rate * 10_000) + seed)
        noise = torch.randn(40, generator=g) * 0.3
        level = 1 + torch.rand(1, generator=g)
        return (level + 3 * torch.exp(-torch.arange(40.0) * rate * 10) + noise).tolist()

    def train(rate: float, run: int) -> list[float]:
        calls.append((rate, run))
        return curve(rate, run)

    found = function(train, list(rates), list(seeds))
    if found is None or found is ...:
        raise Mistake("not done yet")
    need(isinstance(found, dict), f"return a dict, not a {type(found).__name__}")
    wanted = {(rate, run) for rate in rates for run in seeds}
    need(
        set(calls) != {(rate, seeds[0]) for rate in rates},
        "one seed is no evidence: train with every seed",
    )
    need(
        set(calls) <= wanted,
        "train got other rates or seeds: use the arguments, in the order (rate, seed)",
    )
    need(
        set(calls) == wanted,
        f"{len(wanted)} runs are wanted, each rate with each seed, "
        f"not {len(set(calls))}",
    )
    need(len(calls) == len(wanted), f"{len(calls)} runs: train each pair once only")
    need(
        set(found) == set(rates),
        f"the keys should be the rates {rates}, not {list(found)}",
    )
    for rate in rates:
        pair = found[rate]
        need(
            isinstance(pair, tuple | list) and len(pair) == 2,
            "each rate has two numbers: (mean, spread)",
        )
        curves = torch.tensor([curve(rate, run) for run in seeds])
        ends = curves[:, -10:].mean(1)
        if part == "mean":
            number = need_number(pair[0])
            compare(
                number,
                ends.mean().item(),
                (
                    (
                        curves[:, -1].mean().item(),
                        "the last loss alone is noisy: take the mean of the last ten",
                    ),
                    (
                        curves.mean().item(),
                        "the whole curve: only its last ten losses count",
                    ),
                    (
                        curves[:, :10].mean().item(),
                        "these are the first ten losses: the last ten count",
                    ),
                    (
                        curves[:, 0].mean().item(),
                        "that is the loss before learning: take the last ten",
                    ),
                    (ends.sum().item(), "that is a sum over the seeds: take the mean"),
                    (
                        ends.min().item(),
                        "the best seed alone: that is luck. Take the mean",
                    ),
                    (
                        ends[-1].item(),
                        "the last seed alone: was the list emptied for each?",
                    ),
                    (curves[:, -9:].mean().item(), "off by one: the last TEN losses"),
                    (
                        curves[:, -11:-1].mean().item(),
                        "off by one: the last TEN losses, the very last included",
                    ),
                ),
                f"rate {rate}: the mean is {ends.mean().item():.4f}, not {number:.4f}",
            )
        else:
            number = need_number(pair[1])
            n = len(seeds)
            last = curves[:, -10:]
            compare(
                number,
                ends.std().item(),
                (
                    (
                        ends.std(correction=0).item(),
                        f"you divided by {n}: a sample of {n} seeds wants {n - 1}",
                    ),
                    (ends.var().item(), "that is the variance: take its root"),
                    (
                        ends.var(correction=0).item(),
                        "that is the variance, divided by n: root, and n - 1",
                    ),
                    (
                        (ends.std() / math.sqrt(n)).item(),
                        "that is the error of the mean: the spread itself is wanted",
                    ),
                    (
                        (ends.max() - ends.min()).item(),
                        "that is the range: take the standard deviation",
                    ),
                    (
                        last.std().item(),
                        "that mixes steps with seeds: one number a run first",
                    ),
                    (
                        last.std(1).mean().item(),
                        "that is the noise inside a run: the spread is between seeds",
                    ),
                    (
                        curves[:, -1].std().item(),
                        "that is of the last losses: take each run's mean of ten first",
                    ),
                ),
                f"rate {rate}: the spread is {ends.std().item():.4f}, not {number:.4f}",
            )


def check_best_rate(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`best_rate(results)`: the rate of the lowest mean; a broken run never wins."""
    return verdict(function, part, seed, best=_best)


def _best(function: Function, seed: int) -> None:
    low = 1.0 + 0.1 * (seed % 9)
    plain = {0.1: (low + 2, 0.1), 0.01: (low, 0.3), 0.001: (low + 1, 0.01)}
    answer = ask(function, plain)
    if isinstance(answer, tuple):
        raise Mistake("return the rate alone, not its numbers")
    need(answer != low, "that is the loss: return its rate")
    need(answer != 0.1, "that is the HIGHEST loss: the lowest wins")
    need(
        answer != 0.001,
        "is it the smallest rate, or the smallest spread? The lowest mean wins",
    )
    need(answer == 0.01, f"the best rate of {plain} is 0.01, not {answer}")
    nan, inf = math.nan, math.inf
    for broken in (
        {1.0: (nan, nan), 0.1: (low, 0.1), 0.01: (low + 1, 0.1)},
        {0.01: (low + 1, 0.1), 0.1: (low, 0.1), 1.0: (nan, nan), 10.0: (inf, nan)},
    ):
        if ask(function, broken) != 0.1:
            raise Mistake(
                "a run that broke (NaN) won: no comparison with NaN is true, so min() "
                "can't see it. Leave such rates out"
            )
