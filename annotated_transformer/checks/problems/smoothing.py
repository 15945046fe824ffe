"""Label smoothing, problem 2.1: the targets and the loss."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from annotated_transformer.checks.common import (
    Function,
    Mistake,
    ask,
    compare,
    need_number,
    need_tensor,
    same,
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
