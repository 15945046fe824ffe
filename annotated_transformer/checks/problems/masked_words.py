"""Words hidden for an encoder to guess, problem 4.4."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from annotated_transformer.checks.common import (
    Answer,
    Function,
    Habit,
    Mistake,
    need,
    need_tensor,
    seeded,
    verdict,
)
from annotated_transformer.special import BOS, EOS, PAD, UNK

__all__ = ["check_mask_words"]

MASK, IGNORE = UNK + 1, -100
RATE, SHARES = 0.15, (0.8, 0.1, 0.1)
Shares = tuple[float, float, float]


def check_mask_words(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`mask_words(ids, vocab_size, generator)`: inputs with hidden words, and labels.

    Parts: "choice" (which words), "labels", "shares" (masked, swapped, kept).
    """
    parts = {"choice": _choice, "labels": _labels, "shares": _shares}
    return verdict(function, part, seed, **parts)


@dataclass
class Masked:
    """Sentences, and what the answer made of them."""

    ids: Tensor
    vocab: int
    inputs: Tensor
    labels: Tensor

    @property
    def words(self) -> Tensor:
        """Where a word stands, none of the special tokens."""
        return self.ids > MASK

    @property
    def labeled(self) -> bool:
        """Whether the labels say which words were chosen: all that were changed."""
        ignored = self.labels == IGNORE
        return bool(ignored.any() and (self.inputs == self.ids)[ignored].all())

    @property
    def chosen(self) -> Tensor:
        """Where a word was chosen: by the labels, or else where the input changed."""
        return self.labels != IGNORE if self.labeled else self.inputs != self.ids


def sentences(seed: int, rows: int = 800, length: int = 52) -> tuple[Tensor, int]:
    """Padded sentences between BOS and EOS, and the size of their vocabulary."""
    g = seeded(seed + 31)
    vocab = MASK + 1 + (25 if seed == 0 else 20 + seed % 9)
    ids = torch.randint(MASK, vocab, (rows, length), generator=g)
    ids[ids == MASK] = UNK
    ends = torch.randint(length * 3 // 4, length, (rows, 1), generator=g)
    place = torch.arange(length)
    ids = torch.where(place == ends, EOS, ids).masked_fill(place > ends, PAD)
    ids[:, 0] = BOS
    return ids, vocab


def masked(function: Answer, seed: int) -> Masked:
    """What the answer makes of many sentences; twice the same from one seed."""
    ids, vocab = sentences(seed)
    found = []
    for _ in range(2):
        pair = function(ids, vocab, torch.Generator().manual_seed(seed + 5))
        two = "return two tensors: the inputs and the labels"
        need(isinstance(pair, tuple | list) and len(pair) == 2, two)
        shape = tuple(ids.shape)
        found.append([need_tensor(t, shape, torch.long) for t in pair])
    (inputs, labels), (again, _) = found
    swapped = "inputs and labels are swapped: the inputs come first"
    need(not (inputs == IGNORE).any() or (labels == IGNORE).any(), swapped)
    need(not (inputs == IGNORE).any(), f"an input is {IGNORE}: that is for labels")
    other = "one generator, two results: draw everything from the generator"
    if function.strict and not torch.equal(inputs, again):
        raise Habit(other)
    return Masked(ids, vocab, inputs, labels)


def off(found: float, right: float, n: int) -> bool:
    """Whether a frequency of n draws is five standard deviations away."""
    return abs(found - right) > 5 * math.sqrt(right * (1 - right) / n) + 1e-9


def _choice(function: Answer, seed: int) -> None:
    done = masked(function, seed)
    words, chosen = done.words, done.chosen
    for name, token in (("padding", PAD), ("BOS", BOS), ("EOS", EOS), ("UNK", UNK)):
        hit = (chosen & (done.ids == token)).any()
        need(not hit, f"{name} is chosen, too: only words are, ids above {MASK}")
    # Without labels, a word that stays as it is doesn't show.
    kept = (SHARES[2] + SHARES[1] / (done.vocab - MASK - 1)) * (not done.labeled)
    right, n = RATE * (1 - kept), int(words.sum())
    rate = int(chosen.sum()) / n
    need(rate, "no word is chosen")
    need(off(rate, 1 - RATE, n), "reversed: 85 % are chosen, and 15 % are wanted")
    columns = ((chosen & words).sum(0) / words.sum(0))[words.any(0)]
    every = "the same places in every sentence: draw for each word of each row"
    need(columns.max() < 0.5 or columns.min() > 0.02, every)
    apart = f"{rate:.1%} of the words are chosen, not {RATE:.0%}"
    need(not off(rate, right, n), apart)
    lines = (chosen & words).sum(1) / words.sum(1)
    need(lines.max() < 0.8, "whole sentences are chosen: draw for each word by itself")
    few = torch.tensor([[BOS, EOS, PAD]])
    inputs, _ = function(few, done.vocab, seeded(seed))
    need(torch.equal(inputs, few), "a sentence without words should stay as it is")


def _labels(function: Answer, seed: int) -> None:
    done = masked(function, seed)
    ids, labels = done.ids, done.labels
    changed = done.inputs != ids
    seen = "the labels ask for words that can be seen: copying is all it would learn. "
    fill = f"Fill with IGNORE ({IGNORE})"
    need(not torch.equal(labels, ids), seen + fill)
    after = "a label is the word that WAS there: take it before you mask"
    need(not torch.equal(labels, done.inputs), f"{after}. {fill}")
    at = labels != IGNORE
    if at.all():
        zeros = (labels == PAD).float().mean() > 0.5
        need(not zeros, f"{PAD} is a token, PAD. {fill} where no word is asked")
        raise Mistake(seen + fill)
    need(at.any(), "no label is left: where are the chosen words?")
    hidden = changed & (labels == IGNORE)
    missing = "words were changed that no label asks for"
    need(not hidden.all() and not torch.equal(hidden, changed), f"{missing}: reversed?")
    need(not (labels[at] == MASK).any(), after)
    need(torch.equal(labels[at], ids[at]), after)
    need(not hidden.any(), missing)


# What comes out by one mistake each: masked, swapped, kept.
WRONG: list[tuple[Shares, str]] = [
    ((1.0, 0.0, 0.0), "every chosen word is masked: 80 %, the rest is swapped or kept"),
    ((0.8, 0.0, 0.2), "no word is swapped for another: 10 % are"),
    ((0.8, 0.2, 0.0), "no chosen word stays as it is: 10 % do"),
    ((0.9, 0.1, 0.0), "no chosen word stays as it is: 10 % do"),
    ((0.0, 0.1, 0.9), "no word is masked: are the masks overwritten by the words?"),
    ((0.72, 0.1, 0.18), "a second draw swaps words that were masked: draw once"),
    ((0.8, 0.02, 0.18), "10 % of the REST are swapped: of all chosen, so half of it"),
    ((0.8, 0.18, 0.02), "90 % of the REST are swapped: of all chosen, so half of it"),
    ((0.1, 0.8, 0.1), "mask and swap have each other's share"),
    ((0.1, 0.1, 0.8), "mask and keep have each other's share"),
    ((0.5, 0.5, 0.0), "half and half: 80, 10 and 10 % are wanted"),
]


def _shares(function: Answer, seed: int) -> None:
    done = masked(function, seed)
    if not done.labeled:
        _labels(function, seed)  # nobody can tell which words were kept
    at = done.chosen & done.words
    before, after = done.ids[at], done.inputs[at]
    n, words = len(before), done.vocab - MASK - 1
    need(n, "no word is chosen")
    other = after[(after != MASK) & (after != before)]
    special = "a word is swapped for a special token: draw from the words alone"
    need(not (other < MASK).any(), special)
    beyond = f"id {int(after.max())} is beyond the vocabulary of {done.vocab}"
    need(after.max() < done.vocab, beyond)
    masks, stays = int((after == MASK).sum()), int((after == before).sum())
    found = masks / n, len(other) / n, stays / n
    for shares, message in ((SHARES, ""), *WRONG):
        lucky = shares[1] / words  # swapped for itself
        expected = shares[0], shares[1] - lucky, shares[2] + lucky
        if not any(off(a, b, n) for a, b in zip(found, expected, strict=True)):
            need(not message, message)
            break
    else:
        shown = ", ".join(f"{share:.0%}" for share in found)
        raise Mistake(f"masked, swapped, kept: {shown} of the chosen, not 80, 10, 10")
    one = "every swapped word becomes the same: draw one for each"
    need(len(set(other.tolist())) > 1, one)
    for word in range(MASK + 1, done.vocab):
        never = f"word {word} never comes as a swap: every word should, as often"
        last = ". randint leaves its upper end out" * (word == done.vocab - 1)
        need((other == word).any(), never + last)
