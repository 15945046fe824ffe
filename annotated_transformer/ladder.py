"""One training step, written slowly and then faster: the same gradient at each rung."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from annotated_transformer.attention import attention, fused_attention
from annotated_transformer.batches import Batch, EncodedPair, collate, token_groups
from annotated_transformer.devices import (
    attention_by_products,
    fast_products,
    other_attention,
)
from annotated_transformer.loss import label_smoothed_loss, smoothed_kl
from annotated_transformer.speed import Task
from annotated_transformer.transformer import Transformer

Heads = Float[Tensor, "batch heads length size"]
Mask = Bool[Tensor, "..."]


def one_by_one(
    query: Heads, key: Heads, value: Heads, mask: Mask, *, dropout: float = 0.0
) -> Heads:
    """Eq. 1 as a loop: one query of one head at a time."""
    batch, heads, length, _ = query.shape
    mask = mask.expand(batch, heads, length, key.size(2))
    rows = [
        attention(query[:, h, i : i + 1], key[:, h], value[:, h], mask[:, h, i : i + 1])
        for h in range(heads)
        for i in range(length)
    ]
    return torch.cat([row for row, _ in rows], 1).unflatten(1, (heads, length))


def head_by_head(
    query: Heads, key: Heads, value: Heads, mask: Mask, *, dropout: float = 0.0
) -> Heads:
    """Eq. 1 as matrices: all queries of a head at once."""
    batch, heads, length, _ = query.shape
    mask = mask.expand(batch, heads, length, key.size(2))
    each = [
        attention(query[:, h], key[:, h], value[:, h], mask[:, h]) for h in range(heads)
    ]
    return torch.stack([output for output, _ in each], 1)


def all_heads_at_once(
    query: Heads, key: Heads, value: Heads, mask: Mask, *, dropout: float = 0.0
) -> Heads:
    """Eq. 1 with the heads as one more axis of a batch."""
    return attention(query, key, value, mask, dropout=dropout)[0]


def loss_by_distribution(model: Transformer, batch: Batch) -> Float[Tensor, ""]:
    """Logits, then a smoothed distribution for every label, then their divergence."""
    logits = model(batch.src, batch.tgt_in).flatten(0, 1)
    return smoothed_kl(logits, batch.labels.flatten())


def loss_in_chunks(model: Transformer, batch: Batch) -> Float[Tensor, ""]:
    """The same but for a constant; the logits are never stored as a whole."""
    features = model.features(batch.src, batch.tgt_in).flatten(0, 1)
    weight = model.tgt_embeddings.weight
    return label_smoothed_loss(features, weight, batch.labels.flatten())


@dataclass(frozen=True)
class Rung:
    """One way to train, as the settings that it changes."""

    attend: Callable[..., Tensor] = one_by_one
    loss: Callable[[Transformer, Batch], Tensor] = loss_by_distribution
    fused_optimizer: bool = False
    fast_products: bool = False
    buckets: bool = False


def ladder(device: str = "cpu") -> dict[str, Rung]:
    """The rungs, from the bottom; each changes one thing of the one before.

    Fast products are `devices.fast_path`: on a CPU attention is made of them, too.
    """
    by_products = {"attend": attention_by_products} if device == "cpu" else {}
    changes: dict[str, dict[str, Any]] = {
        "loop over positions": {},
        "matrices": {"attend": head_by_head},
        "heads packed": {"attend": all_heads_at_once},
        "fused attention": {"attend": fused_attention},
        "fused loss": {"loss": loss_in_chunks},
        "fused optimizer": {"fused_optimizer": True},
        "fast products": {"fast_products": True, **by_products},
        "length buckets": {"buckets": True},
    }
    rungs, rung = {}, Rung()
    for name, change in changes.items():
        rungs[name] = rung = replace(rung, **change)
    return rungs


@contextmanager
def standing_on(rung: Rung, model: Transformer) -> Iterator[None]:
    """Inside, the model attends and multiplies as on this rung."""
    with ExitStack() as stack:
        stack.enter_context(other_attention(model, lambda _: rung.attend))
        if rung.fast_products:
            stack.enter_context(fast_products(next(model.parameters()).device))
        yield


def cut_into_batches(
    pairs: Sequence[EncodedPair], size: int, *, buckets: bool
) -> list[Batch]:
    """Batches of `size` pairs as they come; or of pairs of like length, as large."""
    if not buckets:
        cuts = range(0, len(pairs), size)
        return [collate(pairs[i : i + size]) for i in cuts]
    longest = max(len(ids) for pair in pairs for ids in pair)
    return [collate(group) for group in token_groups(pairs, size * longest)]


def epoch(
    rung: Rung, model: Transformer, pairs: Sequence[EncodedPair], size: int
) -> Task:
    """One pass over the pairs: a step for each batch. Call it as often as you like."""
    device = next(model.parameters()).device
    batches = [
        b.to(device) for b in cut_into_batches(pairs, size, buckets=rung.buckets)
    ]
    counts = [batch.n_tokens for batch in batches]
    fused = rung.fused_optimizer  # one call for all, or a loop over parameters
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=fused, foreach=False)

    def run() -> None:
        with standing_on(rung, model):
            for batch, n_tokens in zip(batches, counts, strict=True):
                optimizer.zero_grad()
                (rung.loss(model, batch) / n_tokens).backward()
                optimizer.step()

    return run
