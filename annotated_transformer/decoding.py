"""Decoding: greedy, sampling and beam search (§6.1), in batches, with a cache."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from annotated_transformer.errors import InputError
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
    rows = torch.arange(
        len(src), device=src.device
    )  # which output a batch row belongs to
    done = torch.zeros_like(rows, dtype=torch.bool)
    cache = model.start(src, int(limits.max()))
    ids = torch.full_like(rows, BOS)
    while True:
        ids = choose(forbid_specials(model.step(ids[:, None], cache)[:, 0]))
        done = done | (ids == EOS)
        for row, token, ended in zip(
            rows.tolist(), ids.tolist(), done.tolist(), strict=True
        ):
            if not ended:
                outputs[row].append(token)
        done = done | (cache.step >= limits[rows])
        if done.all():
            return outputs
        if done.float().mean() > 0.2:  # dropping a row copies the others: not for a few
            kept = (~done).nonzero()[:, 0]
            cache.keep(kept)
            rows, ids, done = rows[kept], ids[kept], done[kept]


def greedy_search(model: Transformer, src: Int[Tensor, "batch src"]) -> list[list[int]]:
    """Take the likeliest next token, every time. Puts the model in `eval()`."""
    return decode_stepwise(model, src, lambda logits: logits.argmax(-1))


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
    if temperature <= 0:
        raise InputError(
            f"temperature must be above 0, not {temperature}: for 0 use greedy search"
        )
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k must be 1 or more, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p must be above 0 and at most 1, not {top_p}")

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
    slot in the beam empty; a sentence is done when no beginning can still win. The
    beams of a sentence share one cache that never moves: `past` says which of its keys
    each beam may look at. Returns ids without start and end token. Puts the model in
    `eval()`.
    """
    if beam_size < 1:
        raise InputError(f"beam_size must be 1 or more, not {beam_size}")
    if alpha < 0:
        raise InputError(f"alpha must be 0 or more, not {alpha}")
    model.eval()
    batch, device = len(src), src.device
    outputs: list[list[int]] = [[] for _ in src]
    rows = torch.arange(batch, device=device)
    limits = length_limits(src)
    cache = model.start(src, int(limits.max()) * beam_size)
    ids = torch.full((batch, beam_size), BOS, device=device)
    history = ids.new_empty(batch, beam_size, 0)
    log_probs = torch.full((batch, beam_size), -torch.inf, device=device)
    log_probs[:, 0] = 0.0  # all beams begin alike: let only the first one branch
    best = torch.full((batch,), -torch.inf, device=device)
    own = torch.eye(beam_size, dtype=torch.bool, device=device)
    past = own.new_empty(batch, beam_size, 0)  # (batch, beam, key)
    while True:
        past = torch.cat([past, own.expand(len(rows), -1, -1)], -1)
        logits = forbid_specials(model.step(ids, cache, past[:, None]))
        top, tokens = logits.topk(min(beam_size, logits.size(-1)))
        scores = log_probs[..., None] + top - logits.logsumexp(-1, keepdim=True)
        log_probs, index = scores.flatten(1).topk(beam_size)
        ids = tokens.flatten(1).gather(1, index)
        origin = (index // tokens.size(-1))[..., None]
        past = past.gather(1, origin.expand_as(past))
        history = torch.cat(
            [history.gather(1, origin.expand_as(history)), ids[..., None]], -1
        )

        ended = (ids == EOS) | (cache.step >= limits[rows])[:, None]
        final = (log_probs / length_penalty(cache.step, alpha)).masked_fill(
            ~ended, -torch.inf
        )
        score, winner = final.max(-1)
        for i in (score > best).nonzero()[:, 0].tolist():
            outputs[rows[i]] = [t for t in history[i, winner[i]].tolist() if t != EOS]
        best = best.maximum(score)
        log_probs = log_probs.masked_fill(ended, -torch.inf)
        # Log-probabilities only fall: a beginning cannot reach more than this.
        hope = log_probs.max(-1).values / length_penalty(limits[rows], alpha)
        done = hope <= best
        if done.all():
            return outputs
        if done.float().mean() > 0.2:  # dropping a row copies the others: not for a few
            kept = (~done).nonzero()[:, 0]
            cache.keep(kept)
            rows, ids, history, past = rows[kept], ids[kept], history[kept], past[kept]
            log_probs, best = log_probs[kept], best[kept]
