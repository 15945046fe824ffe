"""Label smoothing, problem 2.1: the targets and the loss."""

import math
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from annotated_transformer.checks.common import (
    Answer,
    Function,
    Mistakes,
    compare,
    need,
    need_number,
    need_tensor,
    seeded,
    sizes,
    verdict,
)
from annotated_transformer.loss import smoothed_targets
from annotated_transformer.special import PAD

__all__ = ["check_smoothed_loss", "check_smoothed_targets"]


def check_smoothed_targets(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`smoothed_targets(labels, vocab_size, smoothing)`, (n, vocab_size) (§5.4).

    Parts: "label" (rows of real labels), "padding" (its rows).
    """
    label, padding = partial(_targets, padded=False), partial(_targets, padded=True)
    return verdict(function, part, seed, label=label, padding=padding)


def labels_of(seed: int, *, padded: bool) -> Iterator[tuple[Tensor, int, float]]:
    """Labels, the size of the vocabulary, and how much is smoothed."""
    n, vocab = sizes(seed, 5, 7)
    n, vocab = n + 3, vocab + 4
    labels = torch.randint(1, vocab, (n,), generator=seeded(seed))
    labels[[1, -1]] = PAD
    kept = labels if padded else labels[labels != PAD]
    yield kept, vocab, 0.3 if seed == 0 else 0.2 + 0.01 * (seed % 7)
    yield kept[:1], 50, 0.1
    yield kept.clamp(max=2), 3, 0.0


def wrong_targets(labels: Tensor, vocab: int, smoothing: float) -> Mistakes:
    """Targets that are known to be wrong, each with its cause."""
    hard, real = F.one_hot(labels, vocab).float(), (labels != PAD)[:, None]

    def version(share: float, kept: float, added: bool, pad: bool = False) -> Tensor:
        spread = torch.full((len(labels), vocab), share)
        rows = kept * hard + (spread if added else spread * (1 - hard))
        if not pad:
            rows[:, PAD] = 0
        return rows * real

    n, left = vocab - 1, 1 - smoothing
    even, others = smoothing / n, smoothing / max(vocab - 2, 1)
    sums = "the rows don't add up to 1: padding is no token, so divide by the others"
    lost = "the label has a share of the smoothing, too: the rest is spread over ALL"
    for case in (
        (smoothing / vocab, left, True),
        (even, left, True),
        (even, left, False),
        (others, left, False),
    ):
        yield version(*case, pad=True), "padding gets a share"
    yield version(smoothing / vocab, left, True), sums
    yield version(others, left, False), f"{lost} real tokens"
    yield version(even, left, False), "the label's own share is missing"
    yield version(smoothing, left, True), "each token got all of the smoothing: divide"
    swapped = "swapped: 1 - smoothing is the label's"
    yield version(left / n, smoothing, True), swapped
    yield version(left / max(vocab - 2, 1), smoothing, False), swapped
    yield hard * real, "nothing is smoothed"
    yield version(even, 1.0, True), "the rows add up to more than 1"
    yield version(1 / n, 0.0, True), "all tokens are alike: where is the label?"


def _targets(function: Answer, seed: int, *, padded: bool) -> None:
    for labels, vocab, smoothing in labels_of(seed, padded=padded):
        answer = function(labels, vocab, smoothing)
        turned = getattr(answer, "shape", None) == (vocab, len(labels))
        need(not turned or len(labels) == vocab, "a row for each label: transposed?")
        need_tensor(answer, (len(labels), vocab))
        if padded:
            message = "a padded position should be a row of zeros: it has no target"
            need(not answer[labels == PAD].any(), message)
        right = smoothed_targets(labels, vocab, smoothing)
        mistakes = wrong_targets(labels, vocab, smoothing)
        hint = (
            f"smoothing {smoothing:.2g}, {vocab} tokens, label {int(labels[0])} first"
        )
        compare(answer, right, mistakes, hint)


def check_smoothed_loss(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`smoothed_loss(logits, labels, smoothing)`: nats per real label, one number.

    Parts: "real" (no padding among the labels), "padding".
    """
    real, padding = partial(_loss, padded=False), partial(_loss, padded=True)
    return verdict(function, part, seed, real=real, padding=padding)


def loss_of(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """The right loss."""
    targets = smoothed_targets(labels, logits.size(-1), smoothing)
    log_q = logits[:, PAD + 1 :].log_softmax(-1)
    return -(targets[:, PAD + 1 :] * log_q).sum() / (labels != PAD).sum()


def wrong_losses(logits: Tensor, labels: Tensor, smoothing: float) -> Mistakes:
    """Losses that are known to be wrong, each with its cause."""
    targets, real = smoothed_targets(labels, logits.size(-1), smoothing), labels != PAD
    goal, scores = targets[:, 1:], logits[:, 1:]
    rows, count = -(goal * scores.log_softmax(-1)).sum(-1), real.sum()
    hard = -scores.log_softmax(-1).gather(-1, (labels - 1).clamp(min=0)[:, None])[:, 0]
    with_pad = -(targets * logits.log_softmax(-1)).sum(-1)
    entropy = torch.xlogy(targets, targets).sum(-1)
    built_in = partial(F.cross_entropy, logits, labels, label_smoothing=smoothing)
    on_pad = F.cross_entropy(logits, labels, reduction="none")
    takes_part = "padding takes part in the softmax"
    counted = "divided by all positions: padding is counted. Divide by the real ones"
    kl = "that is the KL divergence: the entropy of the target is missing"
    both = "padding has a share of the smoothing, and a probability"
    yield rows.sum(), "that is the sum: divide by the number of real labels"
    yield rows.mean(), counted
    yield -rows.sum() / count, "the sign: the loss is MINUS the logarithm"
    yield hard[real].mean(), "nothing is smoothed"
    yield with_pad.sum() / count, f"{takes_part}: leave its column out"
    yield with_pad.mean(), f"{takes_part}, and is counted in the mean"
    yield built_in(), "padding takes part: it has a share, and is counted"
    yield built_in(ignore_index=PAD), both
    yield on_pad.mean(), "padded positions count, and nothing is smoothed"
    yield on_pad[real].mean(), f"{takes_part}, and nothing is smoothed"
    yield (rows + entropy).sum() / count, kl
    yield rows.sum() / count / goal.size(-1), "a mean over tokens, too: add them up"
    over = -(goal * scores.log_softmax(0)).sum() / count
    yield over, "the softmax runs over the labels: over the tokens, the last axis"
    yield (
        rows.sum() / count / goal.numel(),
        "a mean, divided again: add up, divide once",
    )
    yield rows.sum() / goal.numel(), "a mean over tokens, too: add them up"
    yield rows.sum() / count / math.log(2), "these are bits: take the natural logarithm"
    yield -(goal * scores.softmax(-1)).sum() / count, "where is the logarithm?"
    yield -(goal * scores).sum() / count, "these are logits: take their log_softmax"
    twice = -(goal * scores.log_softmax(-1).softmax(-1).softmax(-1).log()).sum() / count
    yield twice, "is the softmax taken twice?"


def _loss(function: Answer, seed: int, *, padded: bool) -> None:
    for labels, vocab, smoothing in labels_of(seed, padded=padded):
        logits = 2 * torch.randn(len(labels), vocab, generator=seeded(seed + 1))
        found = function(logits, labels, smoothing)
        each = getattr(found, "numel", lambda: 1)() == len(labels) > 1
        need(not each, "one number for all labels, their mean: not one for each")
        answer, right = need_number(found), loss_of(logits, labels, smoothing).item()
        zero = "not a finite number: does padding's 0 meet an infinite logarithm?"
        need(math.isfinite(answer), zero)
        wrong = wrong_losses(logits, labels, smoothing)
        hint = f"smoothing {smoothing:.2g}, {vocab} tokens, {len(labels)} labels"
        mistakes = [(value.item(), message) for value, message in wrong]
        compare(answer, right, mistakes, hint)
