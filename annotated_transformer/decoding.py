"""Decoding: greedy, sampling and beam search (§6.1), in batches, with a cache."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from annotated_transformer.config import SearchConfig
from annotated_transformer.special import BOS, EOS, PAD
from annotated_transformer.transformer import Transformer

EXTRA_LENGTH = 50  # the paper stops at input length + 50 (§6.1)


def length_limits(src: Int[Tensor, "batch src"]) -> Int[Tensor, " batch"]:
    """The most tokens each output may have: input length + 50 (§6.1)."""
    return (src != PAD).sum(-1) + EXTRA_LENGTH


def forbid_specials(
    logits: Float[Tensor, "*batch vocab"],
) -> Float[Tensor, "*batch vocab"]:
    """Padding and the start token are never an output."""
    logits[..., [PAD, BOS]] = -torch.inf
    return logits


def drop_finished(
    done: Bool[Tensor, " rows"], keepers: Sequence[Any], *state: Tensor
) -> tuple[Tensor, ...]:
    """Go on without the rows that are done: in what can `keep` rows, and in tensors.

    Dropping rows copies the others, so it waits until a fifth of them are done.
    """
    if done.float().mean() <= 0.2:
        return state
    rows = (~done).nonzero()[:, 0]
    for keeper in keepers:
        keeper.keep(rows)
    return tuple(tensor[rows] for tensor in state)


@torch.inference_mode()
def decode_stepwise(
    model: Transformer,
    src: Int[Tensor, "batch src"],
    choose: Callable[[Float[Tensor, "rows vocab"]], Int[Tensor, " rows"]],
) -> list[list[int]]:
    """Let `choose` pick one next token at a time until the end token or the limit.

    Returns the ids of each output, without start and end token. Sentences that have
    ended leave the batch, so the rest goes on faster.
    """
    model.eval()
    limits = length_limits(src)
    outputs: list[list[int]] = [[] for _ in src]
    rows = torch.arange(len(src), device=src.device)  # which output each row is
    done = torch.zeros_like(rows, dtype=torch.bool)
    cache = model.start(src, int(limits.max()))
    ids = torch.full_like(rows, BOS)
    while True:
        ids = choose(forbid_specials(model.step(ids[:, None], cache)[:, 0]))
        done = done | (ids == EOS)
        chosen = zip(rows.tolist(), ids.tolist(), done.tolist(), strict=True)
        for row, token, ended in chosen:
            if not ended:
                outputs[row].append(token)
        done = done | (cache.step >= limits[rows])
        if done.all():
            return outputs
        rows, ids, done = drop_finished(done, [cache], rows, ids, done)


def greedy_search(model: Transformer, src: Int[Tensor, "batch src"]) -> list[list[int]]:
    """Take the likeliest next token, every time. Puts the model in `eval()`."""
    # `max` finds the same token as `argmax`, several times faster on a CPU.
    return decode_stepwise(model, src, lambda logits: logits.max(-1).indices)


def keep_top_k(
    logits: Float[Tensor, "rows vocab"], k: int
) -> Float[Tensor, "rows vocab"]:
    """Rule out all but the k likeliest tokens."""
    worst = logits.topk(min(k, logits.size(-1))).values[:, -1:]
    return logits.masked_fill(logits < worst, -torch.inf)


def keep_top_p(
    logits: Float[Tensor, "rows vocab"], p: float
) -> Float[Tensor, "rows vocab"]:
    """Rule out all but the fewest likeliest tokens that together have probability p."""
    ordered, index = logits.softmax(-1).sort(descending=True)
    surplus = ordered.cumsum(-1) - ordered >= p  # what came before was already enough
    surplus[:, 0] = False  # the likeliest token stays, however small p is
    return logits.masked_fill(surplus.scatter(-1, index, surplus), -torch.inf)


def sample(
    model: Transformer,
    src: Int[Tensor, "batch src"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """Draw each next token by its probability. Puts the model in `eval()`.

    A low temperature sharpens the distribution, a high one flattens it; `top_k` and
    `top_p` cut its tail first. Raises InputError for values that leave nothing to draw.
    """
    SearchConfig(temperature=temperature, top_k=top_k, top_p=top_p)  # checks them

    def choose(logits: Tensor) -> Tensor:
        logits = logits / temperature
        if top_k is not None:
            logits = keep_top_k(logits, top_k)
        if top_p is not None:
            logits = keep_top_p(logits, top_p)
        return logits.softmax(-1).multinomial(1, generator=generator)[:, 0]

    return decode_stepwise(model, src, choose)


def length_penalty(length: Tensor | int, alpha: float) -> Tensor | float:
    """((5 + length) / 6) ** alpha, which divides a hypothesis's log-probability (§6.1).

    From Wu et al. 2016, Eq. 14; without it, every word makes a sentence look worse.
    """
    return ((5 + length) / 6) ** alpha


class Beams:
    """The beginnings that beam search keeps of each sentence, the likeliest first.

    The beams of a sentence share one cache that never moves; `past` (batch, beam, key)
    says which of its keys belong to a beam's own beginning.
    """

    def __init__(self, batch: int, beam_size: int, device: torch.device):
        self.ids = torch.full((batch, beam_size), BOS, device=device)  # the last tokens
        self.tokens = self.ids.new_empty(batch, beam_size, 0)  # all, without the start
        self.own = torch.eye(beam_size, dtype=torch.bool, device=device)
        self.past = self.own.expand(batch, -1, -1)
        self.log_probs = torch.full((batch, beam_size), -torch.inf, device=device)
        self.log_probs[:, 0] = 0.0  # all begin alike: let only the first one branch

    def extend(self, logits: Float[Tensor, "batch beam vocab"]) -> None:
        """Replace the beams by their likeliest continuations, as many as before."""
        batch, beam_size, vocab_size = logits.shape
        top, tokens = logits.log_softmax(-1).topk(min(beam_size, vocab_size))
        scores = (self.log_probs[..., None] + top).flatten(1)
        self.log_probs, index = scores.topk(beam_size)  # (batch, beam)
        self.ids = tokens.flatten(1).gather(1, index)
        origin = (index // top.size(-1))[..., None]  # the beam that each one extends
        past = self.past.gather(1, origin.expand_as(self.past))
        self.past = torch.cat([past, self.own.expand(batch, -1, -1)], -1)
        before = self.tokens.gather(1, origin.expand_as(self.tokens))
        self.tokens = torch.cat([before, self.ids[..., None]], -1)

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Go on with these sentences of the batch only."""
        self.ids, self.tokens = self.ids[rows], self.tokens[rows]
        self.past, self.log_probs = self.past[rows], self.log_probs[rows]


@torch.inference_mode()
def beam_search(
    model: Transformer,
    src: Int[Tensor, "batch src"],
    *,
    beam_size: int = 4,
    alpha: float = 0.6,
) -> list[list[int]]:
    """Keep the `beam_size` likeliest beginnings, and return the best ending (§6.1).

    "Best" is log-probability over `length_penalty`. A hypothesis that ends leaves its
    beam empty; a sentence is done when no beginning can still win. Returns ids without
    start and end token. Puts the model in `eval()`. Raises InputError for no beam.
    """
    SearchConfig(beam_size=beam_size, alpha=alpha)  # checks them
    model.eval()
    rows, limits = torch.arange(len(src), device=src.device), length_limits(src)
    outputs: list[list[int]] = [[] for _ in src]
    cache = model.start(src, int(limits.max()) * beam_size)
    beams = Beams(len(src), beam_size, src.device)
    best = torch.full((len(src),), -torch.inf, device=src.device)
    while True:
        beams.extend(forbid_specials(model.step(beams.ids, cache, beams.past[:, None])))
        ended = (beams.ids == EOS) | (cache.step >= limits[rows])[:, None]
        final = beams.log_probs / length_penalty(cache.step, alpha)
        score, winner = final.masked_fill(~ended, -torch.inf).max(-1)
        for i in (score > best).nonzero()[:, 0].tolist():
            tokens = beams.tokens[i, winner[i]].tolist()
            outputs[rows[i]] = [token for token in tokens if token != EOS]
        best = best.maximum(score)
        beams.log_probs = beams.log_probs.masked_fill(ended, -torch.inf)
        # Log-probabilities only fall: a beginning cannot reach more than this.
        hope = beams.log_probs.max(-1).values / length_penalty(limits[rows], alpha)
        done = hope <= best
        if done.all():
            return outputs
        rows, best = drop_finished(done, [cache, beams], rows, best)
