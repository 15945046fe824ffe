"""Batches (§5.1): groups of pairs of similar length, padded into tensors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from annotated_transformer.errors import InputError
from annotated_transformer.special import BOS, PAD

# Source and target ids, each ending with the end token.
EncodedPair = tuple[list[int], list[int]]


@dataclass
class Batch:
    """Padded ids (§5.1): src has an end token, tgt a start token and an end token."""

    src: Int[Tensor, "batch src"]
    tgt: Int[Tensor, "batch tgt"]

    @property
    def tgt_in(self) -> Int[Tensor, "batch label"]:
        """What the decoder reads: all but the last token (teacher forcing)."""
        return self.tgt[:, :-1]

    @property
    def labels(self) -> Int[Tensor, "batch label"]:
        """What it must predict at the same positions: all but the first (§3.1)."""
        return self.tgt[:, 1:]

    @property
    def n_tokens(self) -> int:
        """How many labels are not padding: the loss is averaged over these."""
        return int((self.labels != PAD).sum())

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        return Batch(self.src.to(device), self.tgt.to(device))


def collate(pairs: Sequence[EncodedPair]) -> Batch:
    """Pad to the longest sentence in this batch, and no further (§5.1)."""
    src = [torch.tensor(src) for src, _ in pairs]
    tgt = [torch.tensor([BOS, *tgt]) for _, tgt in pairs]
    return Batch(
        pad_sequence(src, batch_first=True, padding_value=PAD),
        pad_sequence(tgt, batch_first=True, padding_value=PAD),
    )


def check_lengths(pairs: Sequence[EncodedPair], max_tokens: int) -> None:
    """Raise InputError if there are no pairs, or if a sentence exceeds the budget."""
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
    """Cut an order into groups that fit in `max_tokens` when padded to their longest.

    An item that is too long by itself forms its own group.
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
    """Group pairs of similar length, at most `max_tokens` per group (§5.1).

    The budget counts padded source or target tokens, whichever are more, so batches of
    short and of long sentences take about the same memory and time. With a generator
    the order is random: pairs of equal length are shuffled, and so are the groups.
    Raises InputError if a single sentence exceeds the budget.
    """
    check_lengths(pairs, max_tokens)
    order = list(range(len(pairs)))
    if generator is not None:
        order = torch.randperm(len(pairs), generator=generator).tolist()
    # A stable sort: pairs of equal length stay shuffled.
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
    """Yield (epoch, group of pairs) forever, in an order set by the seed alone.

    `first_step` skips that many groups, so that a resumed run continues with the next.
    """
    epoch = 0
    while True:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        groups = token_groups(pairs, max_tokens, generator=generator)
        for group in groups[first_step:]:
            yield epoch, group
        first_step = max(0, first_step - len(groups))
        epoch += 1
