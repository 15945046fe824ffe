"""Checks of Part I, the model: masks, attention, heads, positions, layer norm."""

import math
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from annotated_transformer.attention import attention, fused_attention
from annotated_transformer.checks.common import (
    Function,
    Mistake,
    ask,
    compare,
    need,
    need_number,
    need_tensor,
    same,
    seeded,
    sizes,
    verdict,
)
from annotated_transformer.layers import sinusoids
from annotated_transformer.masks import causal_mask, padding_mask
from annotated_transformer.tokenizers import BOS, EOS, PAD, UNK

UPSIDE_DOWN = "upside down: True should mean may look"
DIVISION_MISSING = "the division by the standard deviation is missing"


def padded_ids(seed: int) -> Tensor:
    """Token ids (batch, length) whose rows end in padding, in other amounts."""
    g = seeded(seed)
    batch, length = sizes(seed, 3, 5)
    length = max(length, 4)
    ids = torch.randint(PAD + 1, 30, (batch, length), generator=g)
    ids[-1, :3] = torch.tensor([BOS, EOS, UNK])  # these are no padding
    kept = torch.randint(2, length, (batch, 1), generator=g)
    kept[0] = length - 2  # padding somewhere, and a row with another amount of it
    kept[-1] = length
    return ids.masked_fill(torch.arange(length) >= kept, PAD)


def check_padding_mask(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`padding_mask(ids)`: every query may look at the keys that are not padding."""
    return verdict(function, part, seed, padding=_padding)


def _padding(function: Function, seed: int) -> None:
    ids = padded_ids(seed)
    answer, right = ask(function, ids), padding_mask(ids)
    need(isinstance(answer, Tensor), f"return a tensor, not a {type(answer).__name__}")
    need(
        answer.shape != ids.shape,
        "the axes for heads and queries are missing: (batch, 1, 1, key)",
    )
    need(
        answer.shape != (len(ids), 1, ids.size(1), 1),
        "the mask hides queries: padding must be on the last axis, the keys",
    )
    need_tensor(answer, tuple(right.shape))
    need(answer.dtype == torch.bool, f"the mask should be bool, not {answer.dtype}")
    compare(
        answer,
        right,
        (
            (~right, UPSIDE_DOWN),
            (torch.ones_like(right), "padding is looked at: compare the ids with PAD"),
            (right[:1].expand_as(right), "every row has the mask of row 0"),
            (
                (ids > UNK)[:, None, None],
                "BOS, EOS and UNK are hidden, too: only PAD is padding",
            ),
            (
                (ids > PAD + 1)[:, None, None],
                "BOS is hidden, too: only PAD is padding",
            ),
        ),
        "wrong entries: hide exactly where the id is PAD",
    )


def check_causal_mask(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`causal_mask(length)`: position i may look at positions 0 to i."""
    return verdict(function, part, seed, future=_future)


def _future(function: Function, seed: int) -> None:
    for length in (5, 1) if seed == 0 else (sizes(seed, 0)[0] + 1, 4):
        answer, right = ask(function, length), causal_mask(length)
        need_tensor(answer, (length, length))
        need(
            answer.dtype == torch.bool,
            f"the mask should be bool, not {answer.dtype}: True = may look",
        )
        compare(
            answer,
            right,
            (
                (
                    right.tril(-1),
                    "off by one: a position may look at itself, too",
                ),
                (right.T, "reversed: it sees the future, and not its past"),
                (~right, UPSIDE_DOWN),
                (~right | right.T, UPSIDE_DOWN),
                (
                    torch.ones_like(right).tril(1),
                    "off by one: it sees the next position",
                ),
                (torch.ones_like(right), "it sees all of the future"),
                (
                    torch.eye(length).bool(),
                    "it sees itself alone: the past is allowed, too",
                ),
            ),
            "wrong entries: row i allows columns 0 to i",
        )


def check_decoder_mask(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`decoder_mask(ids)`: no padding and no future, (batch, 1, query, key)."""
    return verdict(function, part, seed, both=_both)


def _both(function: Function, seed: int) -> None:
    ids = padded_ids(seed)
    padding, causal = padding_mask(ids), causal_mask(ids.size(1))
    answer = ask(function, ids)
    need(isinstance(answer, Tensor), f"return a tensor, not a {type(answer).__name__}")
    right = padding & causal
    need(
        answer.shape != right.shape[:1] + right.shape[2:],
        "the axis for the heads is missing: (batch, 1, query, key)",
    )
    need_tensor(answer, tuple(right.shape), torch.bool)
    compare(
        answer,
        right,
        (
            (~right, UPSIDE_DOWN),
            (padding | causal, "allowed by one of the two: BOTH must allow it, so &"),
            (padding.expand_as(right), "it sees the future: where is causal?"),
            (causal.expand_as(right), "padding is looked at: where is its mask?"),
            (padding & causal.T, "reversed: it sees the future, and not its past"),
            (padding & causal.tril(-1), "off by one: a position sees itself, too"),
            (right & padding.mT, "that hides padded queries: hide padded keys alone"),
        ),
        "wrong entries: may look = not padding, and not later",
    )


def check_attention(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`attention(query, key, value, mask)`: the output of Eq. 1 (§3.2.1).

    Parts: "average" (all may look), "mask", "nowhere" (a query that may look nowhere).
    """
    return verdict(function, part, seed, average=_average, mask=_mask, nowhere=_nowhere)


def attention_case(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values, and a mask that leaves each query some keys."""
    g = seeded(seed)
    batch, n_queries, n_keys, d_k, d_v = sizes(seed, 2, 3, 5, 16, 7)
    shapes = (batch, n_queries, d_k), (batch, n_keys, d_k), (batch, n_keys, d_v)
    query, key, value = (torch.randn(shape, generator=g) for shape in shapes)
    some = torch.rand(n_queries, n_keys, generator=g) < 0.6
    some[:, 0], some[0, -1] = True, False
    return query, key, value, some


def _attended(function: Function, *arguments: Tensor) -> Any:
    """What it answers; a product that PyTorch refuses is named."""
    try:
        return ask(function, *arguments)
    except RuntimeError as error:
        if "batch2" not in str(error):
            raise
        raise Mistake(
            "the shapes of a product don't fit: is the key transposed, query @ key.mT? "
            f"PyTorch says: {error}"
        ) from None


def _average(function: Function, seed: int) -> None:
    query, key, value, some = attention_case(seed)
    n_keys, d_k, d_v = key.size(1), key.size(2), value.size(2)

    def version(divisor: float, axis: int = -1) -> Tensor:
        return (query @ key.mT / divisor).softmax(axis) @ value

    answer = _attended(function, query, key, value, torch.ones_like(some))
    need(not isinstance(answer, tuple), "return the output only, not the weights")
    need(isinstance(answer, Tensor), f"return a tensor, not a {type(answer).__name__}")
    if not answer.isfinite().all() or not answer.any():
        raise Mistake("all may look, yet nobody does: is your mask upside down?")
    root = math.sqrt(d_k)
    compare(
        answer,
        version(root),
        (
            (
                version(1),
                "there is no scale: did you forget to divide by the root of d_k?",
            ),
            (version(d_k), "did you divide by d_k in place of its root?"),
            (version(1 / root), "you multiplied by the root of d_k: divide by it"),
            (
                version(math.sqrt(n_keys)),
                "you divided by the root of the number of keys, not of d_k",
            ),
            (version(math.sqrt(d_v)), "you divided by the root of d_v, not of d_k"),
            (version(root, 0), "is your softmax over the keys, the last axis?"),
            (version(root, 1), "is your softmax over the keys, the last axis?"),
            (
                query @ key.mT / root @ value,
                "where is the softmax? Weights are shares that add up to 1",
            ),
        ),
        f"the output should have shape {tuple(version(1).shape)}, and be that of Eq. 1",
    )


def _mask(function: Function, seed: int) -> None:
    """A row is what the student's own function says of the keys that it may see."""
    query, key, value, some = attention_case(seed)
    everything = torch.ones_like(some)
    shape = (len(query), query.size(1), value.size(2))
    plain = need_tensor(_attended(function, query, key, value, everything), shape)
    if not plain.isfinite().all() or not plain.any():
        raise Mistake("all may look, yet nobody does: is your mask upside down?")
    if same(plain, plain[:, :1].expand_as(plain)):
        raise Mistake("every query gets the same: where is its product with the keys?")
    answer = need_tensor(_attended(function, query, key, value, some), shape)
    rows = []
    for i, seen in enumerate(some):
        visible = torch.ones(1, int(seen.sum())).bool()
        parts = query[:, i : i + 1], key[:, seen], value[:, seen]
        rows.append(_attended(function, *parts, visible))
    if same(answer, torch.cat(rows, 1)):
        return
    if same(answer, plain):
        raise Mistake("the mask changes nothing: is the result of masked_fill used?")
    _average(function, seed)  # first things first: a wrong average is the cause
    scores = query @ key.mT / math.sqrt(key.size(-1))
    compare(
        answer,
        fused_attention(query, key, value, some),
        (
            (
                (scores.softmax(-1) * some) @ value,
                "masked after the softmax: the weights left no longer add up to 1",
            ),
            (
                (scores.masked_fill(~some, 0.0).softmax(-1) * some) @ value,
                "masked after the softmax: the weights left no longer add up to 1",
            ),
            (
                scores.masked_fill(~some, 0.0).softmax(-1) @ value,
                "a masked key still counts: a score of 0 is a share of exp(0) = 1",
            ),
        ),
        "a masked key still counts: is its score -inf, before the softmax?",
    )


def _nowhere(function: Function, seed: int) -> None:
    query, key, value, some = attention_case(seed)
    some[1] = False
    answer = _attended(function, query, key, value, some)
    need_tensor(answer, (len(query), query.size(1), value.size(2)))
    if answer.isnan().any():
        raise Mistake("NaN for a query that may look nowhere: it should get zeros")
    if answer[:, 1].any():
        if not torch.allclose(answer[:, 0], answer[:, 1]):
            _mask(function, seed)  # if no mask works, that is the cause
        raise Mistake("a query that may look nowhere should get zeros")
    if not answer.any():
        raise Mistake("all queries get zeros: only those that may look nowhere should")


def check_split_heads(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`split_heads(x, n_heads)`: heads before positions, each with its slice."""
    return verdict(function, part, seed, split=_split)


def _split(function: Function, seed: int) -> None:
    batch, length, heads, size = sizes(seed, 2, 5, 3, 7)
    x = torch.randn(batch, length, heads * size, generator=seeded(seed))
    answer = ask(function, x, heads)
    need(isinstance(answer, Tensor), f"return a tensor, not a {type(answer).__name__}")
    right = x.view(batch, length, heads, size).transpose(1, 2)
    need(
        answer.shape != (batch, length, heads, size),
        "the heads are cut, but not moved: transpose(1, 2) puts them before positions",
    )
    need(
        answer.shape != (batch, heads, size, length),
        "width and positions are swapped: the last axis is the size of a head",
    )
    need_tensor(answer, tuple(right.shape))
    compare(
        answer,
        right,
        (
            (
                x.reshape(batch, heads, length, size),
                "view without a transpose: a head got whole words in place of its "
                "slice of every word",
            ),
            (
                x.view(batch, length, size, heads).permute(0, 3, 1, 2),
                "a head is a slice of neighbors: cut the width into heads, then size",
            ),
        ),
        f"head 0 should be x[:, :, :{size}], and yours is not",
    )


def check_merge_heads(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`merge_heads(heads)`: the heads side by side again, the opposite of a split."""
    return verdict(function, part, seed, merge=_merge)


def _merge(function: Function, seed: int) -> None:
    batch, length, heads, size = sizes(seed, 2, 5, 3, 7)
    x = torch.randn(batch, heads, length, size, generator=seeded(seed))
    answer = ask(function, x)
    need(isinstance(answer, Tensor), f"return a tensor, not a {type(answer).__name__}")
    right = x.transpose(1, 2).flatten(-2)
    need(
        answer.shape != (batch, length, heads, size),
        "lay the heads side by side: the last two axes become one",
    )
    need(
        answer.shape != (batch, length, size),
        "one head is left of all: lay them side by side, don't add or average",
    )
    need_tensor(answer, tuple(right.shape))
    compare(
        answer,
        right,
        (
            (
                x.reshape(right.shape),
                "no transpose: move the positions before the heads, then flatten",
            ),
            (
                x.permute(0, 2, 3, 1).flatten(-2),
                "the heads are mixed number by number: heads first, then size",
            ),
        ),
        f"the first {size} columns should be head 0, and yours are not",
    )


def check_sinusoids(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`sinusoids(length, d_model)`: the table of positions (§3.5).

    Parts: "table", and "far" (other widths, and positions far out).
    """
    return verdict(function, part, seed, table=_table, far=_far)


def _table(function: Function, seed: int) -> None:
    length, width = sizes(seed, 7, 3)
    width *= 2
    answer = ask(function, length, width)
    need(
        isinstance(answer, Tensor),
        f"the answer should be a tensor, not a {type(answer).__name__}",
    )
    right = sinusoids(length, width)
    need(
        answer.shape != (width, length) or width == length,
        "positions go down, columns across: did you transpose?",
    )
    need_tensor(answer, (length, width))
    pos = torch.arange(length).double()[:, None]
    column = torch.arange(0, width, 2).double()

    def table(angle: Tensor) -> Tensor:
        return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)

    angle, every = pos / 10_000 ** (column / width), torch.arange(width) / width
    every = pos / 10_000**every
    own_pace = torch.stack([every[:, ::2].sin(), every[:, 1::2].cos()], -1)
    compare(
        answer,
        right,
        (
            (
                right.view(length, -1, 2).flip(-1).flatten(1),
                "sines in even columns, cosines in odd",
            ),
            (
                torch.cat([angle.sin(), angle.cos()], 1),
                "these are halves: sine and cosine should alternate",
            ),
            (sinusoids(length + 1, width)[1:], "the first position is 0, not 1"),
            (
                table(pos / 10_000 ** (column / 2 / width)),
                "the exponent is 2i / d_model, not i",
            ),
            (
                table(pos / 10_000 ** (2 * column / width)),
                "2i twice? the columns are 0, 2, 4 already",
            ),
            (
                table(pos * 10_000 ** (column / width)),
                "the paces shrink: divide, don't multiply",
            ),
            (table(pos / 1_000 ** (column / width)), "the base is 10,000"),
            (
                table(pos / 10_000 ** (column / max(width - 2, 1))),
                "divide by d_model, not d_model - 2 (the authors' code does that)",
            ),
            (
                table(pos.expand(length, width // 2)),
                "all paces are 1: is there a // in the exponent?",
            ),
            (table(angle.deg2rad()), "angles are radians, not degrees"),
            (
                own_pace.flatten(1),
                "sine and cosine of a pair share a pace: 2i for both",
            ),
        ),
        f"row 1 should be {right[1]}, not {answer[1]}",
        tolerance=1e-3,
    )
    if not same(answer, right, 1e-5):
        raise Mistake(f"row 1 should be {right[1]}, not {answer[1]}")


def _far(function: Function, seed: int) -> None:
    width, far = 10 + 2 * (seed % 7), 100_001 + seed % 1000
    answer = need_tensor(ask(function, 5, width), (5, width))
    if not same(answer, sinusoids(5, width), 1e-5):
        raise Mistake(f"right for 6 columns, wrong for {width}")
    answer = need_tensor(ask(function, far, 6), (far, 6))
    if not same(answer[-1], sinusoids(far, 6)[-1], 1e-5):
        raise Mistake("inexact at position 100,000: are the angles float64?")


def check_layer_norm(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`layer_norm(x, gain, bias)`, eps 1e-5, over the last axis (§3.1).

    Parts: "statistics" (gain 1, bias 0), "gain" (and bias), "eps". Where eps is an
    argument, it must be used.
    """
    return verdict(function, part, seed, statistics=_statistics, gain=_gain, eps=_eps)


def _norm_case(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    g = seeded(seed + 20)
    x = 3 * torch.randn(5, 5, 5, generator=g) + 2  # all alike, so that mistakes run
    gain, bias = torch.randn(2, 5, generator=g)
    return x, gain, bias


def _norm_of(function: Function, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    given = x.clone()
    try:
        answer = function(given, gain.clone(), bias.clone())
        for piece in (x[:2, :3], x[0, :3]):
            function(piece.clone(), gain, bias)
    except (RuntimeError, IndexError):
        raise Mistake(
            "the shapes don't fit: is it the last axis (-1), and is it kept (keepdim)?"
        ) from None
    need(answer is not None and answer is not ..., "not done yet")
    need(
        torch.equal(given, x),
        "the caller's x has changed: compute new numbers, don't write into it",
    )
    return need_tensor(answer, tuple(x.shape))


def _statistics(function: Function, seed: int) -> None:
    x, _, _ = _norm_case(seed)

    def version(axis: Any = -1, correction: int = 0, root: bool = True) -> Tensor:
        mean = x.mean(axis, keepdim=True)
        variance = x.var(axis, correction=correction, keepdim=True) + 1e-5
        return (x - mean) / (variance.sqrt() if root else variance)

    std = x.std(-1, correction=0, keepdim=True)
    compare(
        _norm_of(function, x, torch.ones(5), torch.zeros(5)),
        version(),
        (
            (version(correction=1), "you divide by d - 1: that is Bessel's correction"),
            (version(root=False), "you divide by the variance: take its root"),
            (version(0), "that is over the batch: take the last axis"),
            (version(1), "that is over the length: take the last axis"),
            (version((1, 2)), "that is over length and width: take the last axis only"),
            (version((0, 1, 2)), "one mean for all numbers: take the last axis"),
            (x / std, "the mean is not subtracted"),
            (x - x.mean(-1, keepdim=True), DIVISION_MISSING),
        ),
        "PyTorch finds other numbers",
    )


def _gain(function: Function, seed: int) -> None:
    x, gain, bias = _norm_case(seed)
    y = _norm_of(function, x, torch.ones(5), torch.zeros(5))
    compare(
        _norm_of(function, x, gain, bias),
        gain * y + bias,
        (
            (y, "gain and bias are forgotten"),
            (y + bias, "the gain is forgotten"),
            (gain * y, "the bias is forgotten"),
            (
                gain * (y + bias),
                "the bias comes after the gain, and is not scaled by it",
            ),
            (bias * y + gain, "gain and bias are swapped"),
        ),
        "PyTorch finds other numbers",
    )


def _eps(function: Function, seed: int) -> None:
    x, _, _ = _norm_case(seed)
    constant, plain = torch.full((2, 5), 3.0 + seed), (torch.ones(5), torch.zeros(5))
    if not same(ask(function, constant, *plain), torch.zeros(2, 5)):
        _statistics(function, seed)  # if that is wrong, it is the cause
        raise Mistake("a constant row should give the bias: is there an eps?")
    small = x / 1000
    answer = ask(function, small, *plain)
    if not same(answer, F.layer_norm(small, (5,))):
        _statistics(function, seed)  # if that is wrong, it is the cause
        raise Mistake(
            "wrong where the variance is tiny: is your eps (1e-5) inside the root?"
        )
    if len(signature(function).parameters) < 4:
        return  # a fixed eps
    own = ask(function, small, *plain, 0.01)
    if not same(own, F.layer_norm(small, (5,), eps=0.01)):
        raise Mistake("eps is an argument: called with 0.01, yours takes another one")


def check_sees_hidden(detector: Function, part: str = "", *, seed: int = 0) -> str:
    """`sees_hidden(attention)`: True if what the mask hides changes the output.

    Parts: "values" (hidden values leak), "keys" (hidden keys do), "honest" (no alarm).
    """
    return verdict(detector, part, seed, values=_values, keys=_keys, honest=_honest)


def _number_instead(number: float) -> Function:
    def careless(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        scores = query @ key.mT / math.sqrt(query.size(-1))
        return scores.masked_fill(~mask, number).softmax(-1) @ value

    return careless


def _unused_mask(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    return attention(query, key, value)[0]


def _masked_too_late(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    return attention(query, key, value)[1].masked_fill(~mask, 0.0) @ value


def _reversed_mask(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    return attention(query, key, value, ~mask)[0]


def _plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    return attention(query, key, value, mask)[0]


def _finds(detector: Function, function: Function) -> bool:
    answer = detector(function)
    if answer is None or answer is ...:
        raise Mistake("not done yet: it returns nothing")
    if isinstance(answer, Tensor) and answer.numel() == 1:
        answer = answer.item()
    need(isinstance(answer, bool), f"return True or False, not {type(answer).__name__}")
    return answer


def _values(detector: Function, seed: int) -> None:
    for function, message in (
        (_unused_mask, "misses an attention that never uses its mask"),
        (_number_instead(-1e-9), "misses the careless attention of this problem"),
        (
            _number_instead(-8.0 - seed % 3),
            "misses a leak of 0.03 %: compare exactly, change what is hidden by much",
        ),
        (_reversed_mask, "misses a mask that is used upside down"),
    ):
        need(_finds(detector, function), message)
    need(
        not _finds(detector, _plain),
        "it calls every attention guilty: compare two outputs, with what is hidden "
        "changed in between",
    )


def _keys(detector: Function, seed: int) -> None:
    message = (
        "misses a mask that comes after the softmax: there hidden KEYS still take "
        "their share. Change keys, not values alone"
    )
    need(_finds(detector, _masked_too_late), message)
    need(not _finds(detector, _plain), "it calls every attention guilty")


def _honest(detector: Function, seed: int) -> None:
    def doubled(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        return (2 + seed) * _plain(query, key, value, mask)

    for function, what in (
        (_plain, "a right attention"),
        (doubled, "twice its output"),
    ):
        need(
            not _finds(detector, function),
            f"false alarm for {what}: only what the mask HIDES may be changed",
        )
    need(_finds(detector, _unused_mask), "it never finds anything")


def check_saturation(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`saturation(query, key, scaled)`: a dict of three means over the queries.

    Parts: "std" of all scores; "largest" weight; "gradient", the length of the gradient
    of a query's largest weight with respect to its scores.
    """
    return verdict(
        function,
        part,
        seed,
        std=lambda f, seed: _measured(f, seed, "std"),
        largest=lambda f, seed: _measured(f, seed, "largest"),
        gradient=lambda f, seed: _measured(f, seed, "gradient"),
    )


def top_gradient(scores: Tensor) -> Tensor:
    """The gradient of each row's largest weight with respect to its scores."""
    weights = scores.softmax(-1)
    top = weights.max(-1, keepdim=True)
    return top.values * (F.one_hot(top.indices[:, 0], scores.size(-1)) - weights)


def saturation_of(scores: Tensor) -> dict[str, float]:
    """The three numbers that are asked for, from scores (query, key)."""
    return {
        "std": scores.std().item(),
        "largest": scores.softmax(-1).amax(-1).mean().item(),
        "gradient": top_gradient(scores).norm(dim=-1).mean().item(),
    }


def _measured(function: Function, seed: int, name: str) -> None:
    g = seeded(seed)
    n_queries, n_keys, d_k = sizes(seed, 64, 12, 48)
    n_queries, d_k = n_queries * 3, max(d_k, 5)
    query, key = (
        torch.randn(n_queries, d_k, generator=g),
        torch.randn(n_keys, d_k, generator=g),
    )
    raw = query @ key.mT
    for scaled in (True, False):
        scores = raw / math.sqrt(d_k) if scaled else raw
        found = ask(function, query, key, scaled)
        need(isinstance(found, dict), "return a dict with std, largest and gradient")
        need(name in found, f"the dict has no {name!r}")
        if found[name] is None or found[name] is ...:
            raise Mistake(f"not done yet: {name!r} is empty")
        number = need_number(found[name])
        weights = scores.softmax(-1)
        gradient = saturation_of(scores)["gradient"]
        other_scale = raw if scaled else raw / math.sqrt(d_k)
        sideways = scores.clone().requires_grad_()
        columns = sideways.softmax(0).amax(-1)
        columns.sum().backward()
        slope = sideways.grad.norm(dim=-1) if sideways.grad is not None else scores
        every = top_gradient(scores)
        mistakes: dict[str, list[tuple[float, str]]] = {
            "std": [
                (scores.var().item(), "that is the variance: take its root"),
                (scores.mean().item(), "that is the mean of the scores"),
                (weights.std().item(), "that is of the weights: take the scores"),
            ],
            "largest": [
                (
                    weights.max().item(),
                    "the largest of all: take it for each query, then the mean",
                ),
                (weights.mean().item(), "that is the mean weight, always 1 / keys"),
                (
                    columns.mean().item(),
                    "is your softmax over the keys, the last axis?",
                ),
                (
                    scores.max(-1).values.mean().item(),
                    "that is the largest score: take the weights",
                ),
            ],
            "gradient": [
                (
                    every.norm().item(),
                    "not the mean over the queries: what did you sum?",
                ),
                (0.0, "a gradient of 0: the weights of a query always add up to 1"),
                (slope.mean().item(), "is your softmax over the keys, the last axis?"),
                (
                    gradient * n_queries,
                    "a sum over queries: take the mean of their lengths",
                ),
                (gradient / n_queries, "the mean was taken before backward, and again"),
                (
                    every.amax(-1).mean().item(),
                    "take the whole gradient, not the largest entry",
                ),
            ],
        }
        swapped = (saturation_of(other_scale)[name], "`scaled` is ignored, or reversed")
        by_d_k = (saturation_of(raw / d_k)[name], "you divided by d_k, not by its root")
        compare(
            number,
            saturation_of(scores)[name],
            [*mistakes[name], swapped, by_d_k],
            f"{name!r} should be {saturation_of(scores)[name]:.4f}, not {number:.4f} "
            f"(scaled={scaled})",
        )
