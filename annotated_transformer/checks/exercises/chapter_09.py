"""Checks of chapter 09, Batches and the training loop: one for each exercise."""

import operator
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from annotated_transformer.batches import Batch, EncodedPair, collate
from annotated_transformer.checks.common import (
    NOT_DONE,
    Answer,
    Mistake,
    alike,
    compare,
    copy_of,
    errors_mean,
    exercise,
    need,
    need_number,
    same,
    seeded,
)
from annotated_transformer.special import BOS, EOS, PAD

__all__ = ["check_accumulate", "check_patience", "check_shift", "check_training_loop"]


@exercise
def check_shift(function: Answer) -> None:
    """`my_split(targets)`: what the decoder reads, and what it must write."""
    long = torch.randint(4, 600, (1200,), generator=seeded(0)).tolist()
    for targets in (
        [[7, 8, EOS], [9, EOS], [7, 9, 8, 7, EOS]],
        [[9, 8, EOS]],
        [[5, EOS], [EOS], [6, EOS]],
        [[EOS]],
        [[7, EOS], [*long, EOS]],
    ):
        reads, writes = _two_matrices(function(targets))
        rows = [torch.tensor(target) for target in targets]
        right = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
        _name_shift(reads, writes, right)


def _two_matrices(answer: Any) -> tuple[Tensor, Tensor]:
    """The answer as two tensors of ids, of one shape."""
    two = hasattr(answer, "__len__") and len(answer) == 2
    need(two, "return two matrices: reads, must_write")
    with errors_mean("pad: the rows have one length", TypeError, ValueError):
        reads, writes = (torch.as_tensor(part) for part in answer)
    matrices = reads.dim() == writes.dim() == 2
    need(matrices, "both must be tensors of shape (batch, length)")
    floats = reads.is_floating_point() or writes.is_floating_point()
    need(not floats, "ids are whole numbers: an embedding can't look up a float")
    shapes = f"shapes differ, {tuple(reads.shape)} and {tuple(writes.shape)}"
    need(reads.shape == writes.shape, f"{shapes}: slice both")
    return reads, writes


def _name_shift(reads: Tensor, writes: Tensor, right: Tensor) -> None:
    """Raise a Mistake unless `writes` is right, and `reads` one position behind it."""
    (n, width), found = right.shape, writes.size(1)
    lengths = (right != PAD).sum(1).tolist()
    need(len(reads) == n, f"{n} sentences need {n} rows, not {len(reads)}: batch first")
    need(not torch.equal(reads, writes), "both are the same: shift by one")
    swapped = "the two have changed places: first what it reads, then what it writes"
    need(not (same(reads, right) and (writes == BOS).any()), swapped)
    start = "the start token must never be written: what is the first label?"
    need(not (writes == BOS).any(), start)
    shortest = "cut at the shortest sentence: pad to the longest"
    need(not min(lengths) == found < width, shortest)
    end = "an end token got lost: the model could never learn to stop"
    need((writes == EOS).any(1).all(), end)
    need(writes[:, 0].all(), "padding comes after a sentence, not before it")
    need((reads[:, 0] == BOS).all(), "the first thing to read is the start token")
    need(found == width, f"the longest row has {width} labels, not {found}")
    for row, length in enumerate(lengths):
        labels = writes[row, :length]
        wrong = f"row {row} should write its target, not {labels[:9].tolist()}"
        need(same(labels, right[row, :length]), wrong)
        padding = "after the end token the labels are padding (id 0)"
        need(not writes[row, length:].any(), padding)
        later = "reads is not the labels, one position later"
        need(same(reads[row, 1:length], labels[:-1]), later)
        rest = reads[row, length:].tolist()  # a slice of the padded row has its end
        beyond = "beyond its end a row reads padding (id 0)"
        need(rest[:1] in ([], [PAD], [EOS]) and not any(rest[1:]), beyond)


class Follower(nn.Module):
    """Scores the next token by the last one and the source; notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings, self.scores = nn.Embedding(30, 8), nn.Linear(8, 30)
        self.read: list[Tensor] = []
        self.modes: list[bool] = []

    def forward(self, src: Tensor, tgt_in: Tensor) -> Tensor:
        """Logits for each position of what the decoder reads."""
        self.read.append(tgt_in)
        self.modes.append(self.training)
        source = self.embeddings(src).mean(1, keepdim=True)
        logits: Tensor = self.scores(self.embeddings(tgt_in) + source)
        return logits


def _follower() -> Follower:
    """One with the same first weights each time, out of training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Follower().eval()


LATE = "each step is one batch late: step after backward"
Loss = Callable[[Tensor, Tensor], Tensor]
Make = Callable[[nn.Module], torch.optim.Optimizer]


def _per_label(logits: Tensor, labels: Tensor, **options: Any) -> Tensor:
    return F.cross_entropy(logits.mT, labels, ignore_index=PAD, **options)


def _per_sentence(logits: Tensor, labels: Tensor) -> Tensor:
    """A mean of the sentences' means: short ones count for more."""
    losses = _per_label(logits, labels, reduction="none").sum(1)
    return (losses / (labels != PAD).sum(1)).mean()


# Losses that are not the mean per label, and what to say of them.
OTHER_LOSSES: dict[str, Loss] = {
    "padding is no label: leave id 0 out (ignore_index)": lambda x, y: F.cross_entropy(
        x.mT, y
    ),
    "that is the sum: take the mean per label": lambda x, y: _per_label(
        x, y, reduction="sum"
    ),
    "a sum over the labels of each sentence: take the mean per label": lambda x, y: (
        _per_label(x, y, reduction="sum") / len(y)
    ),
    "a mean of the sentences' means: each label counts alike": _per_sentence,
    "cross_entropy takes logits: it makes the softmax itself": lambda x, y: _per_label(
        x.softmax(-1), y
    ),
    "the sum was divided by all cells: padding is no label": lambda x, y: (
        _per_label(x, y, reduction="sum") / y.numel()
    ),
}


def _looped(
    batches: Sequence[Batch],
    make: Make,
    *,
    loss: Loss = _per_label,
    clear: bool = True,
    late: bool = False,  # step by the gradient of the batch before
) -> tuple[list[float], Tensor]:
    """The losses and the last weights of a loop, right or with one mistake."""
    model = _follower()
    optimizer, losses = make(model), []
    for batch in batches:
        if late:
            optimizer.step()
        found = loss(model(batch.src, batch.tgt_in), batch.labels)
        if clear:
            optimizer.zero_grad()
        found.backward()
        if not late:
            optimizer.step()
        losses.append(found.item())
    return losses, _weights(model)


def _weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@exercise
def check_training_loop(function: Answer) -> None:
    """`my_loop(model, optimizer, batches)`: one step a batch; returns the losses."""

    def sgd(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.5)

    def adam(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=0.01)

    g = seeded(1)
    rows = [
        [*torch.randint(4, 30, (n,), generator=g).tolist(), EOS] for n in range(1, 13)
    ]
    pairs = list(zip(rows, reversed(rows), strict=True))
    three = [collate(pairs[i::3]) for i in range(3)]
    _name_loop(function, three, sgd)
    for batches, make, case in (
        ([collate(pairs[:1])], sgd, "for one batch of one sentence"),
        (three * 2, adam, "for six batches and Adam"),
    ):
        losses, weights = _let_loop(function, batches, make)
        right, moved = _looped(batches, make)
        compare(torch.tensor(losses), torch.tensor(right), hint=f"losses {case}")
        need(same(weights, moved, 1e-4), f"other weights {case}")


def _let_loop(
    function: Answer, batches: list[Batch], make: Make
) -> tuple[list[float], Tensor]:
    """The losses that an answer returns, and the weights that it leaves."""
    model = _follower()
    try:
        value = function.let(model, make(model), list(batches))
    except (RuntimeError, ValueError) as error:
        need("modified by an inplace operation" not in str(error), LATE)
        for batch, read in zip(batches, model.read, strict=False):
            whole = "the decoder reads batch.tgt_in: the target without its last token"
            need(read.shape != batch.tgt.shape, whole)
        raise
    need(value is not None or model.read, NOT_DONE)
    need(value is not None, "return the list of losses")
    need(hasattr(value, "__len__"), "return a list: one loss for each batch")
    n, calls, found = len(batches), len(model.read), len(value)
    once = f"{n} batches need {n} passes through the model, not {calls}"
    need(calls == n, once + (": is `return` inside the loop?" if calls == 1 else ""))
    for batch, read in zip(batches, model.read, strict=True):
        copied = "the decoder reads what it must write: give it batch.tgt_in"
        need(not torch.equal(read, batch.labels), copied)
        need(torch.equal(read, batch.tgt_in), "the decoder reads batch.tgt_in")
    need(all(model.modes), "the model is not in training mode: call model.train()")
    need(found == n, f"{n} batches need {n} losses, not {found}")
    graphs = any(isinstance(loss, Tensor) and loss.requires_grad for loss in value)
    need(not graphs, "a loss that keeps its graph keeps memory: append loss.item()")
    return [need_number(loss) for loss in value], _weights(model)


def _name_loop(function: Answer, batches: list[Batch], make: Make) -> None:
    """Raise a Mistake unless each batch makes one step, by the mean loss per label."""
    losses, weights = _let_loop(function, batches, make)
    right, moved = _looped(batches, make)
    start = _weights(_follower())
    unshifted = _looped([_Unshifted(b.src, b.tgt) for b in batches], make)[0][0]
    shift = "it must write the NEXT token: compare with batch.labels"
    need(not same(losses[0], unshifted), shift)
    for message, loss in OTHER_LOSSES.items():
        need(not same(losses[0], _looped(batches, make, loss=loss)[0][0]), message)
    first = f"the first loss is {losses[0]:.3f}, but should be {right[0]:.3f}"
    need(same(losses[0], right[0], 1e-3), first)
    still = "the weights don't change: the order is zero_grad, backward, step"
    need(not same(weights, start), still)
    order: dict[str, dict[str, Any]] = {
        "gradients add up from batch to batch: clear them": {"clear": False},
        LATE: {"late": True},
    }
    for message, options in order.items():
        need(not same(weights, _looped(batches, make, **options)[1], 1e-4), message)
    need(same(weights, moved, 1e-4), "right losses, but the weights go elsewhere")
    compare(torch.tensor(losses), torch.tensor(right), hint="the later losses differ")


class _Unshifted(Batch):
    """Asks for what is read."""

    labels = Batch.tgt_in  # type: ignore[assignment]


def _stop(
    scores: Sequence[float],
    patience: int,
    *,
    better: Callable[[float, float], bool] = operator.gt,
    before: bool = False,  # compare with the look before, not with the best
    anew: bool = True,  # a better look sets the count back
    start: float | None = None,  # the best score before the first look
    more: int = 0,  # looks to wait beyond the patience
) -> tuple[int, int]:
    """Where training stops, and the look that it keeps."""
    best, kept, waited = scores[0] if start is None else start, 0, 0
    for look, score in enumerate(scores):
        if better(score, scores[max(look - 1, 0)] if before else best):
            best, kept, waited = score, look, waited * (not anew)
        elif look or start is not None:
            waited += 1
        if waited >= patience + more:
            break
    return look, kept


def _wrong_stops(scores: Sequence[float], patience: int) -> Iterator[tuple[Any, str]]:
    """What these scores give by one mistake each."""

    def version(**changes: Any) -> tuple[int, int]:
        return _stop(scores, patience, **changes)

    stop, kept = version()
    last, top = len(scores) - 1, max(scores)
    previous = "compare with the best so far, not with the look before"
    yield version(before=True), previous
    yield (stop, version(before=True)[1]), previous
    yield version(better=operator.ge), "equal is not better"
    yield version(anew=False), "a better look sets the count back to 0"
    yield version(better=operator.lt), "more is better here: did you keep the least?"
    early = f"you stop one look too early: wait for {patience} that are not better"
    late = f"too patient: stop at look {patience} in a row without a better one"
    yield version(more=-1), early
    yield version(more=1), late
    yield version(start=0.0), "scores may be negative: start below all of them"
    yield (last, scores.index(top)), "it never stops: is patience used?"
    future = "training has stopped: later scores are not known"
    yield (stop, scores.index(top)), future
    yield (stop - 1, kept), "you stop one look too early"
    never = "if it never stalls, it stops at the last look, counted from 0"
    yield (stop + 1, kept), "you stop one look too late" if stop < last else never
    yield (stop + 1, kept + 1), "count the looks from 0"
    order = "first the look where training stops, then the one that is kept"
    yield (kept, stop), order
    yield (stop, stop), "keep the best look, not the last"
    yield (stop, stop - patience), "the best look is not always `patience` looks ago"
    yield (stop, scores[kept]), "return the index of the best look, not its score"
    yield (scores[stop], scores[kept]), "return indices, not scores"
    yield (stop, kept + 1), "the kept one is one too high: count the looks from 0"


TELLING: list[tuple[list[float], int]] = [
    ([3.0, 5.0, 4.0, 4.5, 6.0, 6.0, 5.0, 9.0], 2),
    ([1.0, 1.0, 1.0, 1.0], 2),
    ([5.0, 4.0, 6.0, 5.0, 7.0, 8.0], 2),
    ([1.0, 2.0, 3.0], 2),
    ([-5.0, -4.0, -6.0, -7.0], 2),
    ([4.0, 3.0, 2.0, 1.0], 1),
    ([2.0, 1.0, 1.5, 1.7], 3),
    ([0.5], 1),
    ([25.0, 31.5, 31.5, 30.0], 5),
]


@exercise
def check_patience(function: Answer) -> None:
    """`my_patience(scores, patience)`: where training stops, what it keeps."""
    for scores, patience in _looks():
        try:
            answer = function(scores, patience)
        except Mistake as mistake:
            nothing = "sometimes nothing is returned: what if it never stalls?"
            need("returns None" not in str(mistake), nothing)
            raise
        two = hasattr(answer, "__len__") and len(answer) == 2
        need(two, "return two indices: stopped at, kept")
        below = "sometimes no look is kept: start below all scores, even negative ones"
        need(all(part is not None for part in answer), below)
        found = [need_number(part) for part in answer]
        right = list(map(float, _stop(scores, patience)))
        if found == right:
            continue
        if (scores, patience) in TELLING:
            for wrong, message in _wrong_stops(scores, patience):
                need(found != list(wrong), message)
        numbers = ", ".join(f"{number:g}" for number in found)
        shown = f"[{', '.join(f'{score:g}' for score in scores[:12])}]"
        raise Mistake(f"({numbers}) is wrong for {shown} and a patience of {patience}")


def _looks() -> Iterator[tuple[list[float], int]]:
    """Scores and patience: those that tell mistakes apart, then every short list."""
    yield from TELLING
    yield [-1.0, *[-2.0] * 1500, 7.0], 1500
    for n in range(1, 6):
        for few in product((-0.5, 0.0, 0.25), repeat=n):
            yield from ((list(few), patience) for patience in (1, 2, 3))


class Counted(nn.Module):
    """Guesses each token from the one before; notes the most pairs it saw at once."""

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Embedding(600, 16), nn.Linear(16, 600))
        self.smoothing, self.most = smoothing, 0

    def forward(self, batch: Batch) -> Tensor:
        """The summed loss, as of Objective."""
        self.most = max(self.most, len(batch.src))
        # Times 4: a gradient that is longer than 1 shows a clip to 1.
        logits, labels = 4 * self.model(batch.tgt_in).mT, batch.labels
        return F.cross_entropy(
            logits,
            labels,
            ignore_index=PAD,
            reduction="sum",
            label_smoothing=self.smoothing,
        )


def _objective(smoothing: float = 0.0) -> Counted:
    """One with the same first weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Counted(smoothing)


def _pairs(n: int) -> list[EncodedPair]:
    """Pairs of made-up ids, short targets first, each with its end token."""
    g = seeded(0)

    def ids() -> list[int]:
        length = int(torch.randint(3, 12, (1,), generator=g))
        return [*torch.randint(4, 600, (length,), generator=g).tolist(), EOS]

    return sorted(((ids(), ids()) for _ in range(n)), key=lambda pair: len(pair[1]))


def _flat(objective: nn.Module) -> Tensor:
    """All that is in .grad, as one vector."""
    grads = (p.grad for p in objective.parameters())
    return torch.cat([g.flatten() for g in grads if g is not None] or [torch.zeros(1)])


def _left(
    function: Answer,
    pairs: list[EncodedPair],
    size: int,
    clip: float,
    smoothing: float = 0.0,
    old: bool = True,
) -> tuple[float, Tensor]:
    """The number that an answer returns, and the gradient that it leaves."""
    objective = _objective(smoothing)
    if old:
        objective(collate(_pairs(2))).backward()  # lies around
        objective.most = 0
    given = copy_of(pairs)
    value = function.let(objective, given, size, clip)
    need(value is not None, "return the mean loss, too" if objective.most else NOT_DONE)
    many = f"{objective.most} pairs at once: no more than `size`, which is {size}"
    need(objective.most <= size, many)
    stepped = "the weights have changed: leave the gradient; the step comes later"
    need(alike(objective, _objective()), stepped)
    need(given == pairs, "your function changes pairs, which is the caller's")
    need(objective.training, "train() or eval() has changed: put it back as it was")
    return need_number(value), _flat(objective)


def _groups(pairs: list[EncodedPair], size: int) -> list[list[EncodedPair]]:
    return [pairs[i : i + size] for i in range(0, len(pairs), size)]


def _labels(pairs: list[EncodedPair]) -> int:
    return sum(len(tgt) for _, tgt in pairs)


def _slopes(
    groups: list[list[EncodedPair]],
    weights: Sequence[float],
    clip: Callable[[nn.Module], object] = lambda objective: None,
    each: bool = False,
    smoothing: float = 0.0,
) -> Tensor:
    """The gradient of these groups of pairs with these weights, clipped."""
    objective = _objective(smoothing)
    for group, weight in zip(groups, weights, strict=True):
        (objective(collate(group)) * weight).backward()
        if each:
            clip(objective)
    clip(objective)
    return _flat(objective)


@exercise
def check_accumulate(function: Answer) -> None:
    """`my_accumulate(objective, pairs, size, clip)`: the mean's gradient."""
    pairs = _pairs(11)  # the last piece of three is smaller
    value, grad = _left(function, pairs, 3, 1e9)
    zero = "the gradients are zero: what cleared them after the last backward?"
    need(grad.any(), zero)
    right = _slopes([pairs], [1 / _labels(pairs)])
    if not same(grad, right, 1e-5):
        _name_gradient(grad, right, _groups(pairs, 3))
    _name_loss(value, _groups(pairs, 3))
    _name_clip(function, pairs, right)
    for n, size, smoothing, old, case in (
        (5, 1, 0.0, False, "for a model without gradients (None)"),
        (11, 4, 0.1, True, "for size 4 and a smoothed loss"),
        (11, 11, 0.0, True, "for a size that takes all pairs"),
        (6, 2, 0.0, True, "for 6 pairs, size 2"),
        (3, 100, 0.0, True, "for fewer pairs than size"),
        (1, 1, 0.0, True, "for one pair"),
    ):
        some = _pairs(n)
        with errors_mean(f"{case}: {{error}}", Exception):
            value, grad = _left(function, some, size, 1e9, smoothing, old)
        share = 1 / _labels(some)
        right = _slopes([some], [share], smoothing=smoothing)
        compare(grad, right, hint=f"another gradient {case}", tolerance=1e-5)
        with torch.no_grad():
            loss = share * _objective(smoothing)(collate(some)).item()
        compare(value, loss, hint=f"the mean loss {case}")


def _parallel(a: Tensor, b: Tensor) -> bool:
    return same(a / a.norm(), b / b.norm(), 1e-3)


def _name_gradient(grad: Tensor, right: Tensor, groups: list[list[EncodedPair]]) -> Any:
    """Raise a Mistake: this is not the right gradient."""
    own = [1 / _labels(group) for group in groups]
    padded = [1 / collate(group).labels.numel() for group in groups]
    objective = _objective()
    objective(collate(_pairs(2))).backward()
    old = _flat(objective)
    need(grad.norm() < 1e6, "a gradient shorter than `clip` stays as it is")
    if _parallel(grad, right):
        _name_divisor(grad.norm(), right.norm(), sum(map(_labels, groups)), groups)
    only_last = "only the last piece is left: clear once, at the start"
    need(not _parallel(grad, _slopes(groups, [0, 0, 0, 1])), only_last)
    only_first = "only the first piece counts: is `return` inside the loop?"
    need(not _parallel(grad, _slopes(groups, [1, 0, 0, 0])), only_first)
    missing = "the last, smaller piece is missing"
    need(not _parallel(grad, _slopes(groups, [1, 1, 1, 0])), missing)
    so_far = [1 / sum(map(_labels, groups[: i + 1])) for i in range(4)]
    means = [share / 4 for share in own]
    table = (
        (
            _slopes(groups, own),
            "each piece divided by its own labels, and all added up",
        ),
        (_slopes(groups, means), "a mean of means: divide by the labels of all pairs"),
        (_slopes(groups, padded), "padding is no label: it was counted"),
        (_slopes(groups, so_far), "count the labels of all pairs before the loop"),
        (right + old, "old gradients are still in it: clear them first"),
        (old, "only old gradients are in it: where is backward?"),
    )
    compare(grad, right, table, "are all pairs in it, and only their labels?", 1e-5)


def _name_divisor(
    length: Tensor, wanted: Tensor, total: int, groups: list[list[EncodedPair]]
) -> None:
    """Raise a Mistake: the gradient is right but for its length."""
    need(not same(length, 1.0), "clipped to 1: is `clip` used?")
    divisor, count = (total * wanted / length).item(), sum(map(len, groups))
    for wrong, mistake in (
        (1, "nothing is divided: this is the gradient of the sum"),
        (count, "divided by the number of pairs, not of labels"),
        (len(groups[0]), "divided by size, not by the labels of all pairs"),
        (len(groups), "divided by the number of pieces, not of labels"),
        (total * len(groups), "divided once too often: the pieces are added up"),
        (total**2, "divided once too often"),
        (total + count, "the start token is no label: it was counted"),
        (total - count, "the end token is a label, too: count it"),
    ):
        need(not same(divisor, float(wrong), 1e-3), mistake)
    raise Mistake(f"divided by {divisor:.1f}, but all pairs have {total} labels")


def _name_loss(value: float, groups: list[list[EncodedPair]]) -> None:
    """Raise a Mistake unless this is the mean loss per label."""
    with torch.no_grad():
        objective = _objective()
        losses = [objective(collate(group)).item() for group in groups]
    n = [_labels(group) for group in groups]
    loss, total = sum(losses), sum(n)
    means = [part / k for part, k in zip(losses, n, strict=True)]
    mean = loss / total
    for wrong, mistake in (
        (loss, "the sum, not the mean per label"),
        (losses[-1], "that of the last piece, not even divided"),
        (losses[-1] / total, "that of the last piece"),
        (means[-1], "that of the last piece"),
        (sum(means), "a sum of the pieces' means"),
        (sum(means) / len(means), "a mean of the pieces' means"),
        (loss / sum(map(len, groups)), "the mean per pair"),
        (loss / len(groups), "the mean per piece"),
        (mean / total, "divided twice"),
    ):
        need(not same(value, wrong), f"right gradient, but the loss is {mistake}")
    right = f"right gradient, but the mean loss is {mean:.3f}, not {value:.3f}"
    need(same(value, mean, 1e-3), right)


def _name_clip(function: Answer, pairs: list[EncodedPair], right: Tensor) -> None:
    """Raise a Mistake unless the gradient, `right`, is clipped as a whole, and once."""
    clip, length, twos = right.abs().max().item() / 2, right.norm(), _groups(pairs, 2)
    value, grad = _left(function, pairs, 2, clip)
    _name_loss(value, twos)
    clipped, shares = right * clip / length, [1 / _labels(pairs)] * len(twos)
    if same(grad, clipped, 1e-5):
        return

    def shorten(objective: nn.Module) -> None:
        nn.utils.clip_grad_norm_(objective.parameters(), clip)

    def shorten_each(objective: nn.Module) -> None:
        for parameter in objective.parameters():
            nn.utils.clip_grad_norm_([parameter], clip)

    once = "clipped after each piece: clip once, after the last"
    numbers = "each number was clipped by itself: shorten the whole vector"
    squares = "the length is the root of the sum of squares"
    table = (
        (right, "not clipped"),
        (_slopes(twos, shares, shorten, each=True), once),
        (right.clamp(-clip, clip), numbers),
        (_slopes(twos, shares, shorten_each), "all parameters are one vector"),
        (right * clip, "times clip: that is no clipping"),
        (right / length, "clipped to 1: is `clip` used?"),
        (clipped / length, squares),
        (right * clip / right.abs().sum(), squares),
        (right * clip / right.abs().max(), squares),
        (clipped * shares[0], "divide first, then clip"),
    )
    hint = f"clipped to {grad.norm():.3f}, not {clip:.3f}"
    compare(grad, clipped, table, hint, 1e-5)
