"""Many processes, one gradient, problem 4.3."""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from annotated_transformer.checks.common import (
    NOT_DONE,
    Answer,
    Function,
    Mistake,
    Mistakes,
    compare,
    errors_mean,
    need,
    need_number,
    seeded,
    sizes,
    verdict,
)
from annotated_transformer.checks.problems.toys import Piece, ToyModel

__all__ = ["check_ddp_loss", "check_shared_gradient"]

AllReduce = Callable[[Tensor], None]
Process = Callable[[AllReduce], Any]
MOST = 50  # messages that a right answer could need


class MeanModel(ToyModel):
    """A linear model with a mean loss, as PyTorch's losses are: 0 / 0 of no labels."""

    def forward(self, piece: Piece) -> Tensor:
        """The mean over the labels."""
        return super().forward(piece) / torch.tensor(float(piece.n_tokens))


class Waits(BaseException):
    """A process waits for a message of the others."""


class Wire:
    """What one process has of the others: the sums known so far, then a wait."""

    def __init__(self, sums: list[Tensor]):
        self.sums, self.made = sums, 0
        self.sent: Tensor | None = None

    def all_reduce(self, tensor: Tensor, *_: Any, **__: Any) -> None:
        """Write the sum over all processes into the tensor, or wait for it."""
        kind = type(tensor).__name__
        need(tensor is not None, "all_reduce gets None: is it p.grad, without labels?")
        need(isinstance(tensor, Tensor), f"all_reduce takes a tensor, not {kind}")
        if self.made == len(self.sums):
            self.sent = tensor.detach().clone()
            raise Waits
        sent, total = tuple(tensor.shape), self.sums[self.made]
        same_shape = sent == tuple(total.shape)
        need(same_shape, f"all_reduce gets another shape in its second run: {sent}")
        with torch.no_grad():
            tensor.copy_(total)
        self.made += 1


def together(processes: list[Process]) -> list[Any]:
    """What the processes answer that send messages to one another, all in this one.

    A process waits in its first call of `all_reduce` whose sum is not known. When all
    do, the sum is known, and they begin anew. So no thread can hang.
    """
    sums: list[Tensor] = []
    while len(sums) < MOST:
        ended: dict[int, Any] = {}
        sent: dict[int, Tensor] = {}
        for i, process in enumerate(processes):
            wire = Wire(sums)
            with suppress(Waits):
                ended[i] = process(wire.all_reduce)
            if wire.sent is not None:
                sent[i] = wire.sent
        if not sent:
            return list(ended.values())
        _need_all(sent, ended, len(sums))
        sums.append(torch.stack(list(sent.values())).sum(0))
    raise Mistake(f"more than {MOST} calls of all_reduce: does your loop end?")


def _need_all(sent: dict[int, Tensor], ended: dict[int, Any], known: int) -> None:
    """Raise a Mistake unless every process sends, and all send the same kind."""
    if ended:
        first, other = next(iter(ended)), next(iter(sent))
        raise Mistake(
            f"process {first} calls all_reduce {known} times, process {other} more "
            "often, and waits for ever: every process takes part in every call"
        )
    kinds = {(tuple(tensor.shape), tensor.dtype) for tensor in sent.values()}
    shapes = " and ".join(sorted(str(shape) for shape, _ in kinds))
    one = f"call {known + 1} of all_reduce gets different things, {shapes}: "
    need(len(kinds) == 1, one + "all processes send the same, in one order")


@dataclass
class Shared:
    """What each of some processes ended with."""

    values: list[Any]
    held: list[Tensor | None]  # the gradient in each
    counts: list[int]
    sums: list[Tensor]  # the gradient of each piece's summed loss
    losses: list[float]  # summed

    @property
    def right(self) -> Tensor:
        """The gradient of the mean over all labels."""
        return torch.stack(self.sums).sum(0) / sum(self.counts)


def pieces_of(seed: int, counts: list[int]) -> list[Piece]:
    """A piece of a batch for each process."""
    g = seeded(seed + 9)
    return [
        Piece(torch.randn(n, 4, generator=g), 3 * torch.randn(n, generator=g))
        for n in counts
    ]


def gradient_of(model: ToyModel) -> Tensor | None:
    """All gradients of a model in one vector, if there are any."""
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    if len(grads) < len(list(model.parameters())):
        return None
    return torch.cat(grads).clone()


def shared_by(function: Answer, seed: int, counts: list[int]) -> Shared:
    """Let every process call the function, each with its own piece."""
    pieces, models = pieces_of(seed, counts), {}
    returns = "{error}: all_reduce returns nothing, it writes into its tensor"
    without = "{error}: without labels no gradient was filled in"

    def process(i: int) -> Process:
        def run(all_reduce: AllReduce) -> Any:
            models[i] = MeanModel(seed)
            with errors_mean(without if 0 in counts else returns, TypeError):
                return function.let(models[i], pieces[i], all_reduce)

        return run

    values = together([process(i) for i in range(len(counts))])
    held = [gradient_of(models[i]) for i in range(len(counts))]
    nothing = all(value is None or value is ... for value in values)
    if nothing and all(gradient is None for gradient in held):
        raise Mistake(NOT_DONE)
    plain, sums, losses = ToyModel(seed), [], []
    for piece in pieces:
        loss = plain(piece)
        parts = torch.autograd.grad(loss, list(plain.parameters()))
        sums.append(torch.cat(parts))
        losses.append(loss.item())
    return Shared(values, held, counts, sums, losses)


def check_shared_gradient(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`shared_gradient(model, piece, all_reduce)`: one gradient in every process.

    `model(piece)` is a mean over `piece.n_tokens` labels; returned is the loss per
    label of the whole batch. Parts: "gradient", "loss", "empty" (no labels somewhere).
    """
    parts = {"gradient": _gradient, "loss": _loss, "empty": _empty}
    return verdict(function, part, seed, **parts)


def counts_of(seed: int) -> list[list[int]]:
    """Numbers of labels, for three, two and one processes."""
    three = [2, 9, 4] if seed == 0 else sizes(seed, 2, 9, 4)
    return [three, three[:2], three[2:]]


def wrong_gradients(done: Shared, i: int) -> Mistakes:
    """Gradients of process i that are known to be wrong, each with its cause."""
    gs, counts, n = done.sums, done.counts, len(done.counts)
    total, right = sum(counts), done.right
    means = torch.stack([g / k for g, k in zip(gs, counts, strict=True) if k])
    whole = right * total
    mean_of_means = "a mean of means: a process with few labels counts as much as one "
    own = "it keeps its own gradient: all_reduce each p.grad"
    yield means.sum(0) / n, mean_of_means + "with many. Weigh each by its labels"
    yield means.sum(0), "all_reduce ADDS: that is a sum of means. Weigh each by labels"
    yield gs[i] / max(counts[i], 1), own
    yield gs[i], own
    yield gs[i] / total, f"{own}, not the count alone"
    yield whole, "a sum over all labels: divide by their number"
    yield whole / n, "divided by the number of processes: by the number of labels"
    yield right / n, "divided twice: by the labels, and by the number of processes"
    yield right / total, "divided twice by the number of labels"
    yield right * n, "times the number of processes: DDP averages, all_reduce adds"
    yield means.sum(0) / total, "means, divided again: times its own labels first"
    if counts[i]:
        yield whole / counts[i], "divided by its OWN labels: all_reduce the count, too"
    yield -right, "the sign is reversed"


def _gradient(function: Answer, seed: int) -> None:
    for counts in counts_of(seed):
        done = shared_by(function, seed, counts)
        _need_one_gradient(done)


def _need_one_gradient(done: Shared) -> None:
    for i, held in enumerate(done.held):
        if held is None:
            labels = f"process {i} ({done.counts[i]} labels)"
            raise Mistake(f"{labels} ends without gradients: fill p.grad in each")
        hint = f"process {i} of {done.counts} labels"
        finite = f"{hint} ends with NaN: a mean over no labels is 0 / 0"
        need(held.isfinite().all(), finite)
        compare(held, done.right, wrong_gradients(done, i), hint)


def _loss(function: Answer, seed: int) -> None:
    for counts in counts_of(seed):
        done = shared_by(function, seed, counts)
        for i, value in enumerate(done.values):
            need(value is not None, "return the loss per label")
            wrong = wrong_losses(done, i)
            right = sum(done.losses) / sum(counts)
            hint = f"process {i} of {counts} labels"
            compare(need_number(value), right, wrong, hint)


def wrong_losses(done: Shared, i: int) -> Mistakes:
    """Losses of process i that are known to be wrong, each with its cause."""
    losses, counts, n = done.losses, done.counts, len(done.counts)
    means = [loss / k for loss, k in zip(losses, counts, strict=True) if k]
    so, total = "the loss returned is", sum(losses)
    yield sum(means) / n, f"{so} a mean of means: weigh each by its labels"
    yield sum(means), f"{so} a sum of means: weigh each by its labels"
    yield losses[i] / max(counts[i], 1), f"{so} its own: all_reduce the loss, too"
    yield losses[i], f"{so} its own sum: all_reduce it, and divide by all labels"
    yield losses[i] / sum(counts), f"{so} its own part: all_reduce it, too"
    yield total, f"{so} a sum: divide by the labels of all"
    yield total / n, f"{so} divided by the number of processes, not of labels"
    yield sum(means) / sum(counts), f"{so} means, divided again by labels"


def _empty(function: Answer, seed: int) -> None:
    three = counts_of(seed)[0]
    for counts in ([0, *three[:2]], [three[0], 0]):
        done = shared_by(function, seed, counts)
        try:
            _need_one_gradient(done)
        except Mistake:
            _gradient(function, seed)  # if that is wrong, it is the cause
            raise
        for value in done.values:
            no = "the loss is NaN: a mean over no labels is 0 / 0, even times 0"
            need(value is None or not math.isnan(need_number(value)), no)


def check_ddp_loss(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`ddp_loss(loss, n_tokens, all_reduce, n_processes)`: DDP averages its gradient.

    The average is then the gradient of the mean over the labels of all processes.
    """
    return verdict(function, part, seed, ddp=_ddp)


def _ddp(function: Answer, seed: int) -> None:
    for counts in counts_of(seed):
        _ddp_of(function, seed, counts)


def _ddp_of(function: Answer, seed: int, counts: list[int]) -> None:
    pieces, model, n = pieces_of(seed, counts), MeanModel(seed), len(counts)

    def process(i: int) -> Process:
        def run(all_reduce: AllReduce) -> Any:
            loss = model(pieces[i])
            return function.let(loss, pieces[i].n_tokens, all_reduce, n)

        return run

    values = together([process(i) for i in range(n)])
    need(not all(value is None or value is ... for value in values), NOT_DONE)
    found = torch.stack([_gradient_through(v, model) for v in values]).mean(0)
    means = torch.stack([_gradient_through(model(p), model) for p in pieces])
    right = (torch.tensor(counts)[:, None] / sum(counts) * means).sum(0)
    hint = f"averaged over processes of {counts} labels"
    compare(found, right, _wrong_ddp(means, counts), hint)


def _gradient_through(loss: Any, model: ToyModel) -> Tensor:
    """The gradient that a process would fill in."""
    kind = type(loss).__name__
    need(isinstance(loss, Tensor), f"return a loss, a tensor, not a {kind}")
    cut = "the loss has no gradient any more: is there a detach, .item() or no_grad?"
    need(loss.requires_grad and loss.numel() == 1, cut)
    return torch.cat(torch.autograd.grad(loss.sum(), list(model.parameters())))


def _wrong_ddp(means: Tensor, counts: list[int]) -> Mistakes:
    """Averages over the processes that are known to be wrong, each with its cause."""
    n, total = len(counts), sum(counts)
    each = torch.tensor(counts)[:, None].float()
    again = "DDP divides by the number of processes: multiply by it"
    yield means.mean(0), "a mean of means: weigh the loss by its labels"
    yield (each / total * means).mean(0), again
    yield (each * means).mean(0), "not divided by the labels of all: all_reduce them"
    yield n * (each * means).mean(0), "not divided by the labels of all"
    yield (total / each * means).mean(0) / n, "upside down: own labels over all"
    yield (total / each * means).mean(0), "upside down: own labels over all"
    yield means.sum(0), "times the number of processes alone: weigh by labels, too"
    yield (means / each).mean(0), "divided by its labels: it is a mean already"
    yield (each / total * means).mean(0) / n, again
    yield (n * means / total).mean(0), "a mean, divided again: times its own labels"
