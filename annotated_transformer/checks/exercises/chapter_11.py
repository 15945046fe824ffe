"""Checks of chapter 11, Regularization: one for each exercise."""

import math
from typing import Any

import torch
import torch.nn.functional as F

from annotated_transformer.checks.common import Answer, exercise, seeded
from annotated_transformer.special import PAD

__all__ = ["check_dropout", "check_perplexity", "check_unigram"]


@exercise
def check_dropout(function: Answer, p: Any = 0.2) -> str:
    """`my_dropout(x, p, training, generator)`: dropout, scaled up."""
    x = 1 + torch.rand(300, 400, generator=seeded(2))
    before = x.clone()
    out = function(x, p, True, seeded(0))
    if not torch.equal(x, before):
        return "x itself has changed: make a new tensor"
    if out.shape != x.shape:
        return f"the shape was {tuple(x.shape)}, now it is {tuple(out.shape)}"
    if not torch.equal(function(x, p, False, seeded(0)), x):
        return "in evaluation dropout does nothing, not even scale"
    zeros = (out == 0).float()
    if not zeros.any():
        return "nothing was dropped"
    if any(m.unique().numel() < 3 for m in (zeros.mean(0), zeros.mean(1))):
        return "whole rows or columns go at once: one draw for each number"
    if abs(zeros.mean() - (1 - p)) < 0.02:
        return "you dropped 80 % and kept 20 %: the other way round"
    if abs(zeros.mean() - p) > 0.02:
        return f"{100 * zeros.mean():.0f} % were dropped, not 20 %"
    scales = (out / x)[out != 0]
    if scales.max() - scales.min() > 1e-3:
        return "what is left must be x, all of it times the same number"
    left = scales.mean().item()
    for scale, mistake in (
        (1, "the mean is not kept: did you forget to scale up the rest?"),
        (1 / p, "you divided by p instead of 1 - p"),
        (1 - p, "you made the rest smaller: divide by 1 - p"),
    ):
        if abs(left - scale) < 1e-3:
            return mistake
    if abs(left - 1 / (1 - p)) > 1e-4:
        return f"what is left should be {1 / (1 - p):.4f} times x, not {left:.4f}"
    if torch.equal(out, function(x, p, True, seeded(1))):
        return "another generator, the same mask: do you use the argument?"
    if not torch.equal(out, function(x, p, True, seeded(0))):
        return "the same generator, another mask: do you use the argument?"
    for shape in ((50,), (5, 6, 7)):
        other = function(torch.ones(shape), p, True, seeded(0))
        if other is None or other.shape != shape or other.unique().numel() != 2:
            return f"for a tensor of shape {shape} it does something else"
    return "correct"


@exercise
def check_perplexity(function: Answer) -> str:
    """`my_perplexity(logits, labels)`: of the plain loss of real tokens."""
    logits = 2 * torch.randn(3, 6, 7, generator=seeded(0))
    labels = torch.tensor([[4, 5, 2, 1, 3, 6], [3, 6, 2, 0, 0, 0], [5, 0, 0, 0, 0, 0]])
    answer = function(logits.clone(), labels.clone())
    if torch.as_tensor(answer).numel() != 1:
        return "return one number: average over the real tokens"
    answer, real = float(answer), labels != PAD
    log_q = logits[..., 1:].log_softmax(-1)
    loss = -log_q.gather(-1, (labels - 1).clamp(min=0)[..., None])[..., 0]
    everywhere = -logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]
    smoothed = 0.9 * loss - 0.1 * log_q.mean(-1)
    plain = loss[real].mean()
    sentences = (loss * real).sum(-1) / real.sum(-1)
    for value, mistake in (
        (plain, "that is the loss: take the exponential"),
        (everywhere.mean().exp(), "padded positions count: leave them out"),
        (
            (loss * real).mean().exp(),
            "you divided by all positions, not by the real ones",
        ),
        (everywhere[real].mean().exp(), "padding takes part in the softmax"),
        (smoothed[real].mean().exp(), "that loss is smoothed: report the plain one"),
        (
            loss[real].exp().mean(),
            "average the losses first, then take the exponential",
        ),
        (
            sentences.mean().exp(),
            "you averaged sentences: each *token* counts the same",
        ),
        (2**plain, "the loss is in nats: the base is e, not 2"),
        ((-plain).exp(), "that is 1 / perplexity: the loss is *minus* the logarithm"),
        (loss[real].sum().exp(), "divide by the number of real tokens"),
    ):
        if math.isclose(answer, value.item(), rel_tol=1e-4):
            return mistake
    right = plain.exp().item()
    same = math.isclose(answer, right, rel_tol=1e-4)
    return "correct" if same else f"it should be {right:.3f}, not {answer:.3f}"


@exercise
def check_unigram(function: Answer) -> str:
    """`my_unigram_loss(logits, labels, frequency, smoothing)`: summed."""
    logits, smoothing = 2 * torch.randn(6, 5, generator=seeded(0)), 0.3
    frequency = torch.tensor([0.0, 0.5, 0.3, 0.15, 0.05])
    labels = torch.tensor([4, 1, 3, PAD, 2, PAD])
    answer = function(logits.clone(), labels.clone(), frequency.clone(), smoothing)
    if torch.as_tensor(answer).numel() != 1:
        return "return one number: the sum over the real labels"
    answer = float(answer)
    if not math.isfinite(answer):
        return "not a finite number: does padding's 0 meet an infinite logarithm?"
    real, n = labels != PAD, 5 - 1

    def loss(
        spread: Any, smoothing: Any = smoothing, logits: Any = logits, rows: Any = real
    ) -> Any:
        hard = F.one_hot(labels, 5).float()
        target = (1 - smoothing) * hard + smoothing * spread
        return -(target * logits.log_softmax(-1)).sum(-1)[rows].sum()

    no_pad = logits.clone()
    no_pad[:, PAD] = -1e4
    right = loss(frequency, logits=no_pad)
    even = (frequency > 0).float() / n
    target = (1 - smoothing) * F.one_hot(labels, 5)[real] + smoothing * frequency
    counted = -(smoothing * frequency * no_pad.log_softmax(-1))[~real].sum()
    charged = smoothing * (logits[:, PAD] - logits @ frequency)[~real].sum()
    for value, mistake in (
        (right / real.sum(), "that is the mean: return the sum"),
        (right / len(labels), "that is a mean, and over padding as well"),
        (loss(even, logits=no_pad), "that is even smoothing: where is the frequency?"),
        (loss(frequency), "padding takes part in the softmax"),
        (loss(frequency, 0.0, no_pad), "there is no smoothing"),
        (
            loss(frequency, 1 - smoothing, no_pad),
            "smoothing and 1 - smoothing: swapped",
        ),
        (right + counted, "positions whose label is padding count for nothing"),
        (right + charged, "positions whose label is padding must not be charged"),
        (
            right - smoothing * logits[real, labels[real]].sum(),
            "the charge is a margin: the label's logit less the mean",
        ),
        (right + torch.xlogy(target, target).sum(), "that is the KL divergence"),
        (2 * loss(frequency, 0.0, no_pad) - right, "the charge has the wrong sign"),
    ):
        if math.isclose(answer, value.item(), rel_tol=1e-4):
            return mistake
    same = math.isclose(answer, right.item(), rel_tol=1e-4)
    return "correct" if same else f"it should be {right:.3f}, not {answer:.3f}"
