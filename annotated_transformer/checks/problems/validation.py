"""The loss of a validation, problem 2.4."""

import math
from typing import Any

import torch

from annotated_transformer.checks.common import (
    Answer,
    Function,
    Mistake,
    Mistakes,
    compare,
    need,
    need_number,
    seeded,
    sizes,
    verdict,
)
from annotated_transformer.checks.problems.toys import Piece, ToyNetwork

__all__ = ["check_validation"]


def check_validation(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`validation_loss(model, batches)`: the loss per label over all batches.

    Parts: "mode" (`eval`, and back), "average", "graph" (nothing kept for backward).
    """
    return verdict(
        function, part, seed, mode=_mode, average=_average_loss, graph=_graph
    )


def _validated(
    function: Answer, seed: int, training: bool = True, watched: bool = False
) -> tuple[Any, ToyNetwork, list[Piece]]:
    g = seeded(seed + 5)
    counts = (2, 9, 4) if seed == 0 else sizes(seed, 2, 9, 4)
    pieces = [
        Piece(torch.randn(n, 4, generator=g), 3 * torch.randn(n, generator=g))
        for n in counts
    ]
    model = ToyNetwork(seed).train(training)
    # One part is about switches.
    asked = function if watched else Answer(function.function, strict=False)
    value = asked.let(model, pieces)
    if value is None or value is ...:
        raise Mistake("not done yet")
    return value, model, pieces


def _mode(function: Answer, seed: int) -> None:
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


def _average_loss(function: Answer, seed: int) -> None:
    def in_eval(model: ToyNetwork, batches: list[Piece]) -> Any:
        # Whether eval() is called is another part's business.
        model.dropout.p = 0.0
        return function.function(model, batches)

    value, model, pieces = _validated(Answer(in_eval), seed)
    model.eval()
    losses = [model(piece).item() for piece in pieces]
    counts = [piece.n_tokens for piece in pieces]
    hint = f"{len(pieces)} batches of {counts} labels"
    wrong = wrong_averages(losses, counts)
    compare(need_number(value), sum(losses) / sum(counts), wrong, hint)


def wrong_averages(losses: list[float], counts: list[int]) -> Mistakes:
    """Numbers that are not the loss per label, each with its cause."""
    means = [loss / count for loss, count in zip(losses, counts, strict=True)]
    total, labels = sum(losses), sum(counts)
    short = "a mean of means: a short batch counts as much as a long one. Add up losses"
    inside = "the first batch alone: is the return inside the loop?"
    times = sum(a * b for a, b in zip(losses, counts, strict=True))
    already = "times the number of labels: the loss is a sum over them already"
    yield sum(means) / len(means), f"{short} and labels, divide at the end"
    yield sum(means), "a sum of means: add up losses and labels, divide at the end"
    yield total, "that is the sum: divide by the number of labels"
    yield total / len(losses), "divided by the number of batches, not of labels"
    yield times / labels, already
    yield math.exp(min(total / labels, 700)), "that is the perplexity, not the loss"
    yield total / labels / math.log(2), "these are bits: the loss is in nats"
    yield means[-1], "that is the last batch alone"
    yield losses[-1], "that is the last batch alone"
    yield losses[-1] / labels, "that is the last batch alone"
    yield means[0], inside
    yield losses[0] / labels, inside
    yield (total - losses[-1]) / labels, "the last batch is missing"


def _graph(function: Answer, seed: int) -> None:
    value, model, _ = _validated(function, seed, watched=True)
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
