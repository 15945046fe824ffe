"""Checks of chapter 11, Regularization: one for each exercise."""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from annotated_transformer.checks.common import (
    NOT_DONE,
    Answer,
    compare,
    errors_mean,
    exercise,
    need,
    need_gradient,
    need_number,
    need_tensor,
    normal,
    seeded,
)
from annotated_transformer.special import EOS, PAD

__all__ = [
    "check_dropout",
    "check_perplexity",
    "check_smoothing_by_pencil",
    "check_unigram",
]


@exercise
def check_dropout(function: Answer) -> None:
    """`my_dropout(x, p, training, generator)`: dropout, scaled up."""
    x = 1 + torch.rand(90, 110, generator=seeded(2))
    for p in (0.2, 0.5, 0.75):
        _name_dropped(function, x, p)
    signed, p = normal(20, 21, 22), 0.3
    kept = need_tensor(function(signed, p, True, seeded(0)), (20, 21, 22)) != 0
    for axis in range(3):
        alone = "one draw for each number: along one axis all go at once"
        need((kept.any(axis) & ~kept.all(axis)).any(), alone)
    loud = function(100 * signed, p, True, seeded(0))
    compare(loud, 100 * signed * kept / (1 - p), hint="for numbers a hundred times as")

    def step(x: Tensor) -> Tensor:
        return function.let(x, p, True, seeded(0))

    need_gradient(Answer(step), lambda x: x * kept / (1 - p), signed)
    compare(function(x, 0.0, True, seeded(0)), x, hint="p = 0 drops nothing")
    for shape in ((50,), (5, 6, 7), (2, 3, 4, 5)):
        other = need_tensor(function(torch.ones(shape), p, True, seeded(0)), shape)
        right = torch.where(other != 0, 1 / (1 - p), 0.0)
        need((other == 0).any(), f"for shape {shape} nothing was dropped")
        compare(other, right, hint=f"for shape {shape}")


def _name_dropped(function: Answer, x: Tensor, p: float) -> None:
    """Raise a Mistake unless a share p goes, by the generator, and the mean is kept."""
    out = need_tensor(function(x, p, True, seeded(0)), tuple(x.shape))
    silent = "in evaluation dropout does nothing, not even scale"
    need(torch.equal(function(x, p, False, seeded(0)), x), silent)
    zeros = (out == 0).double()
    share, wanted = zeros.mean().item(), f"{100 * p:.0f} %"
    need(share, "nothing was dropped")
    rows = "whole rows or columns go at once: one draw for each number"
    need(all(zeros.mean(axis).unique().numel() > 2 for axis in (0, 1)), rows)
    swapped = f"you kept {wanted} and dropped the rest: the other way round"
    need(p == 0.5 or abs(share - (1 - p)) > 0.02, swapped)
    need(abs(share - p) < 0.02, f"{100 * share:.0f} % were dropped, not {wanted}")
    scales = (out / x)[out != 0]
    even = "what is left must be x, all of it times the same number"
    need(scales.max() - scales.min() < 1e-3, even)
    compare(
        scales.mean(),
        1 / (1 - p),
        (
            (1.0, "the mean is not kept: did you forget to scale up the rest?"),
            (1 / p, "you divided by p instead of 1 - p"),
            (1 - p, "you made the rest smaller: divide by 1 - p"),
            (1 + p, "divide by 1 - p: times 1 + p is something else"),
            ((1 - p) ** -0.5, "no root here: the mean is kept, not the variance"),
            (
                1 / (1 - share),
                "divide by 1 - p, not by the share that happened to stay",
            ),
        ),
        "the factor of what is left",
        1e-5,
    )
    again, other = (function(x, p, True, seeded(seed)) for seed in (0, 1))
    used = "do you use the argument?"
    need(not torch.equal(out, other), f"another generator, the same mask: {used}")
    need(torch.equal(out, again), f"the same generator, another mask: {used}")


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The plain loss at each real label."""
    real = labels != PAD
    log_q = logits[real][:, 1:].log_softmax(-1)
    return -log_q.gather(-1, labels[real][:, None] - 1)[:, 0]


@exercise
def check_perplexity(function: Answer) -> None:
    """`my_perplexity(logits, labels)`: of the plain loss of real tokens."""
    logits = 2 * normal(3, 5, 7)
    labels = torch.tensor([[4, 5, 2, 1, 6], [3, 6, 2, 0, 0], [5, 0, 0, 0, 0]])
    unfit = "classes are the second axis of F.cross_entropy: flatten first ({error})"
    beyond = "without padding's column each label is one lower ({error})"
    with errors_mean(beyond, IndexError), errors_mean(unfit, RuntimeError, ValueError):
        answer = function(logits, labels)
    need(getattr(answer, "shape", ()) != (3,), "each *token* counts the same: one mean")
    right = _losses(logits, labels).mean().exp().item()
    compare(need_number(answer), right, _wrong_perplexities(logits, labels))
    many = torch.randint(0, 512, (2, 700), generator=seeded(0))
    rows = torch.tensor([[0, 0, 0], [5, 2, 0]])
    surprise = normal(1, 40, 9)
    surprise[0, 3, 4] += 130.0  # where the label is 3: almost impossible
    loud = normal(2, 700, 512)
    loud[..., PAD] = 200.0
    rare = "a token with a loss of 130 nats: is it log_softmax, not log and softmax?"
    for logits, labels, case in (
        (loud, many, "1400 tokens of 512; padding's logits are 200"),
        (normal(2, 3, 7), rows, "a sentence of padding alone"),
        (normal(1, 1, 5), torch.tensor([[3]]), "one token"),
        (surprise, torch.full((1, 40), 3), rare),
    ):
        right = _losses(logits, labels).mean().exp().item()
        compare(need_number(function(logits, labels)), right, hint=case)


def _wrong_perplexities(logits: Tensor, labels: Tensor) -> list[tuple[Tensor, str]]:
    loss, real = _losses(logits, labels), labels != PAD
    everywhere = F.cross_entropy(logits.mT, labels, reduction="none")
    mean, total = loss.mean(), loss.sum()
    sentences = [part.mean() for part in loss.split(real.sum(-1).tolist())]
    by_sentence = torch.stack(sentences)
    smoothed = 0.9 * mean - 0.1 * logits[real][:, 1:].log_softmax(-1).mean()
    once = "average the losses first, then take the exponential"
    tokens = "you averaged sentences: each *token* counts the same"
    below = "that is 1 / perplexity: the loss is *minus* the logarithm"
    with_pad, end = everywhere[real].mean(), labels[real] != EOS
    over_positions = -logits[..., 1:].log_softmax(1)[real]
    across = over_positions.gather(-1, labels[real][:, None] - 1).mean()
    as_word_1 = F.cross_entropy(logits[..., 1:].mT, (labels - 1).clamp(min=0))
    with_ones = (loss.exp().sum() + (~real).sum()) / labels.numel()
    return [
        (mean, "that is the loss: take the exponential"),
        (everywhere.mean().exp(), "padded positions count: leave them out"),
        ((total / labels.numel()).exp(), "divided by all positions, not the real ones"),
        ((total / len(labels)).exp(), "divided by the sentences, not the real tokens"),
        (with_pad.exp(), "padding takes part in the softmax"),
        (with_pad, "that is a loss, and padding takes part in its softmax"),
        (as_word_1.exp(), "padding is taken for the first word: leave it out"),
        (across.exp(), "the softmax runs over the words, not over the positions"),
        (smoothed.exp(), "that loss is smoothed: report the plain one"),
        (loss.exp().mean(), once),
        (with_ones, once),
        (by_sentence.mean().exp(), tokens),
        (by_sentence.exp().mean(), tokens),
        (2**mean, "the loss is in nats: the base is e, not 2"),
        (10**mean, "the loss is in nats: the base is e, not 10"),
        ((-mean).exp(), below),
        (total.exp(), "divide by the number of real tokens"),
        (loss[end].mean().exp(), "the end token is a token, too"),
    ]


def _unigram(
    logits: Tensor, labels: Tensor, frequency: Tensor, smoothing: float
) -> Tensor:
    """The loss with an explicit target, over the real labels."""
    real = labels != PAD
    hard = F.one_hot(labels[real], len(frequency))
    target = (1 - smoothing) * hard + smoothing * frequency
    return -(target[:, 1:] * logits[real, 1:].log_softmax(-1)).sum()


@exercise
def check_unigram(function: Answer) -> None:
    """`my_unigram_loss(logits, labels, frequency, smoothing)`: summed."""
    frequency = torch.tensor([0.0, 0.5, 0.3, 0.15, 0.05])
    labels = torch.tensor([4, 1, 1, PAD, 2, PAD])
    case = (2 * normal(6, 5), labels, frequency, 0.3)
    with errors_mean("do logits, labels and frequency fit? ({error})"):
        answer = function(*case)
    numbers = "one number is wanted: the sum over the real labels"
    need(getattr(answer, "shape", ()) in ((), (1,)), numbers)
    infinite = "does padding's 0 meet an infinite logarithm?"
    right = _unigram(*case).item()
    hint = infinite if answer != answer else ""
    compare(need_number(answer), right, _wrong_sums(*case), hint)
    many = torch.randint(0, 40, (300,), generator=seeded(3))
    some = torch.rand(40, generator=seeded(1)) * (torch.arange(40) % 3 > 0)
    loud = 10 * normal(300, 40)
    loud[:, PAD] = 100.0
    some /= some.sum()
    for logits, ids, spread, smoothing, words in (
        (loud, many, some, 0.1, "300 labels of 40, some of frequency 0, loud logits"),
        (loud, many, some, 0.0, "smoothing 0: the plain sum"),
        (loud, many, some, 1.0, "smoothing 1: the label counts for nothing"),
        (normal(1, 5), torch.tensor([3]), frequency, 0.3, "one label"),
        (normal(2, 5), torch.tensor([0, 0]), frequency, 0.3, "no real label: 0"),
    ):
        answer = need_number(function(logits, ids, spread, smoothing))
        right = _unigram(logits, ids, spread, smoothing).item()
        compare(answer, right, hint=words)
    need_gradient(function, _unigram, *case, first=1)


def _wrong_sums(*case: Any) -> list[tuple[Tensor, str]]:
    logits, labels, frequency, smoothing = case
    right, plain = _unigram(*case), _unigram(logits, labels, frequency, 0.0)
    real, size = labels != PAD, len(frequency)
    inverse = _unigram(logits, labels, frequency, 1 - smoothing)
    even = F.pad(torch.ones(size - 1), (1, 0)) / (size - 1)
    evenly = _unigram(logits, labels, even, smoothing)
    counts = torch.bincount(labels[real], minlength=size) / real.sum()
    counted = _unigram(logits, labels, counts, smoothing)
    hard = F.one_hot(labels[real], size)
    target = (1 - smoothing) * hard + smoothing * frequency
    with_padding = -(target * logits[real].log_softmax(-1)).sum()
    log_q = logits[:, 1:].log_softmax(-1)
    everywhere = right - smoothing * (frequency[1:] * log_q).sum(-1)[~real].sum()
    return [
        (right / real.sum(), "that is the mean: return the sum"),
        (right / len(labels), "that is a mean, and over padding as well"),
        (evenly, "that is even smoothing: where is the frequency?"),
        (counted, "use the argument frequency, not the counts of these labels"),
        (with_padding, "padding takes part in the softmax"),
        (plain, "there is no smoothing"),
        (inverse, "smoothing and 1 - smoothing: swapped"),
        (everywhere, "positions whose label is padding count for nothing"),
        (right + smoothing * plain, "the label keeps 1 - smoothing, not 1"),
        (right + torch.xlogy(target, target).sum(), "that is the KL divergence"),
        (-right, "the sign: a loss is minus the logarithm"),
        *_wrong_charges(*case),
    ]


def _wrong_charges(
    logits: Tensor, labels: Tensor, frequency: Tensor, smoothing: float
) -> list[tuple[Tensor, str]]:
    """Mistakes in the form of section 2.3: the plain loss and a charge."""
    plain, real = _unigram(logits, labels, frequency, 0.0), labels != PAD
    charge = _unigram(logits, labels, frequency, smoothing) - plain
    own = smoothing * logits[real, labels[real]].sum()
    padding = smoothing * (logits[:, PAD] - logits @ frequency)[~real].sum()
    margin = "the charge is a margin: the label's logit less the mean"
    uncharged = "positions whose label is padding must not be charged"
    full = "in the form with a charge the plain loss counts in full"
    return [
        (plain + charge + padding, uncharged),
        (plain + charge - own, margin),
        (plain + own, margin),
        ((1 - smoothing) * plain + charge, full),
        (plain + charge / real.sum(), "sum the charges, too: that is their mean"),
        (plain - charge, "the charge has the wrong sign"),
        (plain + charge / smoothing, "the charge is not yet multiplied by smoothing"),
    ]


@exercise
def check_smoothing_by_pencil(function: Answer) -> None:
    """`my_smoothing_by_pencil()`: five real words, smoothing 0.2, on paper."""
    answer = function()
    need(isinstance(answer, dict), "return a dict, as the stub does")
    need(all(value is not ... for value in answer.values()), NOT_DONE)
    rights = {
        "label": 0.84,
        "other": 0.04,
        "cross_entropy": math.log(5),
        "gradient": 0.2 - 0.84,
        "lead": math.log(0.84 / 0.04),
    }
    for name, right in rights.items():
        need(name in answer, f"{name} is missing")
        with errors_mean(f"{name}: one number, please ({{error}})", Exception):
            found = float(answer[name])
        mistakes = [(w, f"{name}: {m}") for w, m in _pencil_mistakes(name)]
        compare(found, right, mistakes, f"{name}: 0.2 is spread over five words", 5e-3)


def _pencil_mistakes(name: str) -> Iterator[tuple[float, str]]:
    divided = "divide by five: padding is no word, and the label gets its part, too"
    if name == "label":
        yield 0.8, "the label has its part of the 0.2, too"
        yield 0.8 + 0.2 / 6, divided
    if name == "other":
        yield 0.2 / 4, divided
        yield 0.2 / 6, divided
    if name == "cross_entropy":
        yield -math.log(5), "the sign: a loss is minus the logarithm"
        yield math.log2(5), "take the natural logarithm"
        entropy = -0.84 * math.log(0.84) - 4 * 0.04 * math.log(0.04)
        yield math.log(5) - entropy, "that is the KL divergence: add the entropy"
        yield entropy, "that is the entropy of the target"
        yield 0.84 * math.log(5), "the other words count, too"
    if name == "gradient":
        yield 0.84 - 0.2, "what the model says minus what it should say"
        yield 0.2 - 1, "the target is smoothed: not 1"
    if name == "lead":
        yield 0.84 - 0.04, "logits are compared by the logarithm of q"
        yield 0.84 / 0.04, "take the logarithm of the ratio"
        yield -math.log(0.84 / 0.04), "the label is ahead: a positive number"
        yield math.log(0.84), "ahead of the others: less their logarithm"
