"""Batches (§5.1): groups of pairs of similar length, padded to one tensor each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from annotated_transformer.errors import InputError
from annotated_transformer.special import BOS, PAD

# Source and target ids, each with its end token.
EncodedPair = tuple[list[int], list[int]]


@dataclass
class Batch:
    """Padded ids: src (batch, src) ends with the end token, tgt has start and end."""

    src: Int[Tensor, "batch src"]
    tgt: Int[Tensor, "batch tgt"]

    @property
    def tgt_in(self) -> Int[Tensor, "batch label"]:
        """What the decoder reads: all but the last token (teacher forcing)."""
        return self.tgt[:, :-1]

    @property
    def labels(self) -> Int[Tensor, "batch label"]:
        """What it must predict at the same places: all but the first (§3.1)."""
        return self.tgt[:, 1:]

    @property
    def n_tokens(self) -> int:
        """Labels that are not padding: what the loss is averaged over."""
        return int((self.labels != PAD).sum())

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        return Batch(self.src.to(device), self.tgt.to(device))


def collate(pairs: Sequence[EncodedPair]) -> Batch:
    """Pad to the longest sentence of this batch, and no further."""
    src = [torch.tensor(src) for src, _ in pairs]
    tgt = [torch.tensor([BOS, *tgt]) for _, tgt in pairs]
    return Batch(
        pad_sequence(src, batch_first=True, padding_value=PAD),
        pad_sequence(tgt, batch_first=True, padding_value=PAD),
    )


def check_lengths(pairs: Sequence[EncodedPair], max_tokens: int) -> None:
    """Raise InputError if there are no pairs, or one alone exceeds the token budget."""
    if not pairs:
        raise InputError("there are no sentence pairs to batch")
    length = max(len(ids) for pair in pairs for ids in pair)
    if length > max_tokens:
        raise InputError(
            f"a sentence of {length} tokens exceeds the budget of {max_tokens}: "
            "raise the budget or drop the sentence"
        )


def cut_by_tokens(
    order: Sequence[int], lengths: Sequence[int], max_tokens: int
) -> list[list[int]]:
    """Cut an order into groups, each padded to its longest within `max_tokens`.

    What is alone too long is a group of its own.
    """
    groups: list[list[int]] = []
    longest = 0
    for i in order:
        longest = max(longest, lengths[i])
        if not groups or longest * (len(groups[-1]) + 1) > max_tokens:
            groups.append([])
            longest = lengths[i]
        groups[-1].append(i)
    return groups


def token_groups(
    pairs: Sequence[EncodedPair],
    max_tokens: int,
    *,
    generator: torch.Generator | None = None,
) -> list[list[EncodedPair]]:
    """Group pairs of similar length, about `max_tokens` to a group (§5.1).

    The budget counts padded source or target tokens, whichever are more: a batch takes
    about the same memory and time whatever its lengths. With a generator the order is
    random: pairs of one length mix among themselves, and groups among each other.
    Raises InputError for a pair that is alone too long for the budget.
    """
    check_lengths(pairs, max_tokens)
    order = list(range(len(pairs)))
    if generator is not None:
        order = torch.randperm(len(pairs), generator=generator).tolist()
    # A stable sort: pairs of equal lengths stay mixed.
    order.sort(key=lambda i: (len(pairs[i][1]), len(pairs[i][0])))
    lengths = [max(map(len, pair)) for pair in pairs]
    groups = cut_by_tokens(order, lengths, max_tokens)
    if generator is not None:
        order = torch.randperm(len(groups), generator=generator).tolist()
        groups = [groups[i] for i in order]
    return [[pairs[i] for i in group] for group in groups]


def epochs(
    pairs: Sequence[EncodedPair], max_tokens: int, seed: int, first_step: int = 0
) -> Iterator[tuple[int, list[EncodedPair]]]:
    """Endless (epoch, group of pairs), in an order that depends on the seed alone.

    `first_step` skips as many groups, so that a resumed run sees what comes next.
    """
    epoch = 0
    while True:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        groups = token_groups(pairs, max_tokens, generator=generator)
        for group in groups[first_step:]:
            yield epoch, group
        first_step = max(0, first_step - len(groups))
        epoch += 1
