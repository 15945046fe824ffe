"""Checks of chapter 09, Batches and the training loop: one for each exercise."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from annotated_transformer.batches import EncodedPair, collate
from annotated_transformer.checks.common import Answer, exercise, seeded
from annotated_transformer.config import TINY
from annotated_transformer.special import BOS, EOS, PAD
from annotated_transformer.training import Objective
from annotated_transformer.transformer import Transformer

__all__ = ["check_accumulate", "check_patience", "check_shift"]


def stop_by_hand(losses: Any, patience: Any) -> Any:
    """Early stopping for losses: where it stops, and what it keeps."""
    best, best_at, waited = math.inf, None, 0
    for look, loss in enumerate(losses):
        if loss < best:
            best, best_at, waited = loss, look, 0
        else:
            waited += 1
        if waited >= patience:
            break
    return look, best_at


CONFIG = replace(TINY, vocab_size=600, d_model=64, d_ff=128, n_layers=1, dropout=0.0)


def new_model(seed: Any, kind: Any = Transformer, **changes: Any) -> Any:
    """A small model, the same one each time."""
    torch.manual_seed(seed)  # decides the first weights
    return kind(replace(CONFIG, **changes))


def random_pairs(n: int) -> list[EncodedPair]:
    """Pairs of made-up ids, of many lengths, each with its end token."""
    g = seeded(0)

    def ids() -> list[int]:
        length = int(torch.randint(3, 12, (1,), generator=g))
        return [*torch.randint(4, 600, (length,), generator=g).tolist(), EOS]

    return [(ids(), ids()) for _ in range(n)]


@exercise
def check_shift(function: Answer) -> str:
    """`my_split(targets)`: what the decoder reads, and what it must write."""
    targets = [[7, 8, EOS], [9, EOS], [7, 9, 8, 7, EOS]]
    answer = function([list(t) for t in targets])
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        return "return two matrices: reads, must_write"
    if not all(isinstance(a, Tensor) and a.dim() == 2 for a in answer):
        return "both must be tensors of shape (batch, length)"
    reads, writes = answer
    if reads.is_floating_point() or writes.is_floating_point():
        return "ids are whole numbers: an embedding can't look up a float"
    if reads.shape != writes.shape:
        return (
            f"shapes differ, {tuple(reads.shape)} and {tuple(writes.shape)}: slice both"
        )
    if len(reads) != len(targets):
        return f"{len(targets)} sentences need {len(targets)} rows, not {len(reads)}"
    if torch.equal(reads, writes):
        return "both are the same: shift by one"
    if (writes == BOS).any():
        return "the start token must never be written: what is the first label?"
    if not (reads[:, 0] == BOS).all():
        return "the first thing to read is the start token"
    if writes.size(1) > len(targets[-1]):
        return "wider than the longest sentence with its end"
    if (writes == EOS).sum() < 3:
        return "an end token got lost: the model could never learn to stop"
    for row, target in enumerate(targets):
        n = len(target)
        if writes[row, :n].tolist() != target:
            return f"row {row} must write {target}"
        if (writes[row, n:] != PAD).any():
            return "after the end token the labels are padding (id 0)"
        if reads[row, 1:n].tolist() != target[:-1]:
            return "reads is not the labels, one place later"
        if not set(reads[row, n:].tolist()) <= {PAD, EOS}:
            return "beyond its end a row reads padding"
    return "correct"


@exercise
def check_patience(function: Answer) -> str:
    """`my_patience(scores, patience)`: where training stops, what it keeps."""

    def right(scores: Any, patience: Any) -> Any:
        return stop_by_hand([-score for score in scores], patience)

    scores = [3.0, 5.0, 4.0, 4.5, 6.0, 6.0, 5.0, 9.0]
    answer = function(list(scores), 2)
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        return "return two indices: stopped at, kept"
    answer = tuple(answer)
    for wrong, mistake in (
        ((6, 4), "compare with the best so far, not with the look before"),
        ((2, 0), "more is better here: did you keep the least?"),
        ((2, 1), "you stop one look too early: wait for two that are not better"),
        ((4, 2), "count the looks from 0"),
        ((4, 1), "you stop one look too late"),
        ((1, 3), "first the look where training stops, then the one that is kept"),
        ((3, 7), "training has stopped: later scores are not known"),
        ((3, 3), "keep the best look, not the last"),
        ((3, 5.0), "return the index of the best look, not its score"),
        ((7, 7), "too patient: stop at the second look without a better one"),
    ):
        if answer == wrong:
            return mistake
    cases = [
        (scores, 2, f"{answer} is wrong for {scores} and a patience of 2"),
        ([1.0, 1.0, 1.0, 1.0], 2, "equal is not better"),
        ([5.0, 4.0, 6.0, 5.0, 7.0, 8.0], 2, "a better look sets the count back to 0"),
        ([1.0, 2.0, 3.0], 2, "if it never stalls, it stops at the last look"),
        (
            [-5.0, -4.0, -6.0, -7.0],
            2,
            "scores may be negative: start below all of them",
        ),
        ([4.0, 3.0, 2.0, 1.0], 1, "wrong with a patience of 1"),
        ([2.0, 1.0, 1.5, 1.7], 3, "rising is not enough: it must beat the best"),
    ]
    for scores, patience, mistake in cases:
        answer = function(list(scores), patience)
        if answer is None:
            return "sometimes nothing is returned: what if it never stalls?"
        if tuple(answer) != right(scores, patience):
            return mistake
    return "correct"


class Counted(Objective):
    """An objective that notes the most pairs it saw at once."""

    most = 0

    def forward(self, batch: Any) -> Any:
        """The summed loss, as in Objective."""
        self.most = max(self.most, len(batch.src))
        return super().forward(batch)


def some_pairs() -> list[EncodedPair]:
    """Eleven pairs, short targets first: the last piece of three is smaller."""
    return sorted(random_pairs(11), key=lambda pair: len(pair[1]))


def gradient_after(function: Any, size: Any, clip: Any) -> Any:
    """What a function returns, leaves as gradient, and put through at once."""
    objective = Counted(new_model(0, d_model=16, d_ff=16), smoothing=0.0)
    objective(collate(random_pairs(2))).backward()  # lies around
    objective.most = 0
    value = function.let(objective, some_pairs(), size, clip)
    parameters = list(objective.parameters())
    parts = [p.new_zeros(1) if p.grad is None else p.grad for p in parameters]
    return value, torch.cat([p.flatten() for p in parts]), objective.most


def reference(groups: Any, weights: Any, clip: Any = None, each: Any = None) -> Any:
    """The gradient of these groups of pairs with these weights."""
    objective = Objective(new_model(0, d_model=16, d_ff=16), smoothing=0.0)
    for group, weight in zip(groups, weights, strict=True):
        (objective(collate(group)) * weight).backward()
        if each:
            nn.utils.clip_grad_norm_(objective.parameters(), each)
    if clip:
        nn.utils.clip_grad_norm_(objective.parameters(), clip)
    grads = [p.grad for p in objective.parameters()]
    return torch.cat([g.flatten() for g in grads if g is not None])


@exercise
def check_accumulate(function: Answer) -> str:
    """`my_accumulate(objective, pairs, size, clip)`: the mean's gradient."""
    some = some_pairs()
    value, grad, most = gradient_after(function, 3, 1e9)
    if value is None:
        return "return the mean loss, too" if most else "not done yet"
    if most > 3:
        return f"{most} pairs at once: no more than `size`"
    n = [sum(len(tgt) for _, tgt in some[i : i + 3]) for i in range(0, 11, 3)]
    groups, total = [some[i : i + 3] for i in range(0, 11, 3)], sum(n)
    close = partial(torch.allclose, rtol=1e-3, atol=1e-5)
    if grad.norm() == 0:
        return "the gradients are zero: who cleared them after the last backward?"
    for weights, mistake in (
        ([1.0] * 4, "nothing is divided: this is the gradient of the sum"),
        ([1 / k for k in n], "each piece divided by its own labels, and all added up"),
        ([1 / k / 4 for k in n], "a mean of means: divide by the labels of all pairs"),
        ([1 / 11] * 4, "divided by the number of pairs, not of labels"),
        ([1 / total / 4] * 4, "divided once too often"),
        ([1 / total] * 3 + [0.0], "the last, smaller piece is missing"),
        (
            [0.0] * 3 + [1 / total],
            "only the last piece is left: clear once, at the start",
        ),
    ):
        if close(grad, reference(groups, weights)):
            return mistake
    right = reference(groups, [1 / total] * 4)
    if grad.norm() > 1e6:
        return "a gradient shorter than `clip` stays as it is"
    if not close(grad, right):
        return "another gradient: were the old ones cleared, and only labels counted?"
    with torch.no_grad():
        objective = Objective(new_model(0, d_model=16, d_ff=16), smoothing=0.0)
        loss = objective(collate(some)).item() / total
    if not math.isclose(float(value), loss, rel_tol=1e-3):
        return (
            f"right gradient, but the mean loss is {loss:.3f}, not {float(value):.3f}"
        )
    clip = right.abs().max().item() / 2
    _, grad, most = gradient_after(function, 2, clip)
    if most > 2:
        return f"with size 2, {most} pairs at once: is `size` used?"
    if close(grad, right):
        return "not clipped"
    twos = [some[i : i + 2] for i in range(0, 11, 2)]
    if close(grad, reference(twos, [1 / total] * 6, each=clip)):
        return "clipped after each piece: clip once, after the last"
    if close(grad, right.clamp(-clip, clip)):
        return "each number was clipped by itself: shorten the whole vector"
    if not close(grad, reference(groups, [1 / total] * 4, clip=clip)):
        return f"clipped to {grad.norm():.3f}, not {clip:.3f}"
    return "correct"
