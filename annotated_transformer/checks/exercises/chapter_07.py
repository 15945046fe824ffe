"""Checks of chapter 07, Residuals and layer normalization: one for each exercise."""

from collections.abc import Callable, Iterator

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
    need_tensor,
    normal,
)

__all__ = [
    "check_block",
    "check_norm_backward",
    "check_post_norm",
    "check_rms_norm",
    "check_two_orders",
]

EPS = 1e-5
KEEP = "the shapes don't fit: do your means keep their axis (keepdim)? ({error})"


def _mean(x: Tensor) -> Tensor:
    return x.mean(-1, keepdim=True)


def _rms_norm(x: Tensor, gain: Tensor, eps: float = EPS) -> Tensor:
    return gain * x / (_mean(x.square()) + eps).sqrt()


@exercise
def check_rms_norm(function: Answer) -> None:
    """`my_rms_norm(x, gain)`: divided by the root of the mean square."""
    x, gain = normal(4, 3, 5) + 1, normal(5, seed=1)
    with errors_mean(KEEP):
        answer = need_tensor(function(x, gain), (4, 3, 5))
    hint = "x over the root of its mean square, times the gain"
    compare(answer, _rms_norm(x, gain), _rms_norm_mistakes(x, gain), hint)
    small = x / 1000
    tiny = "wrong for tiny x: is your eps (1e-5) inside the root?"
    size = _mean(small.square())
    compare(
        need_tensor(function(small, gain), (4, 3, 5)),
        _rms_norm(small, gain),
        (
            (gain * small / size.sqrt(), "wrong for tiny x: where is eps (1e-5)?"),
            (gain * small / (size.sqrt() + EPS), tiny),
            (gain * small / (size + EPS**2).sqrt(), "eps is not squared"),
            (gain * small / (EPS + small.square().sum(-1, True)).sqrt(), tiny),
            *((_rms_norm(small, gain, eps), "eps is 1e-5") for eps in (1e-6, 1e-8)),
        ),
        tiny,
    )
    for case, *shape in (
        ("two axes", 2, 7),
        ("a batch of 1", 1, 2, 16),
        ("four axes", 3, 2, 2, 4),
        ("1030 positions of width 512", 1030, 512),
        ("one number alone", 1, 1, 1),
    ):
        more, gain_of_it = 20 * normal(*shape, seed=2), normal(shape[-1], seed=3)
        with errors_mean(f"{case}: {KEEP}"):
            found = function(more, gain_of_it)
        compare(found, _rms_norm(more, gain_of_it), hint=case)
    zeros = torch.zeros(2, 5)
    compare(function(zeros, gain), zeros, hint="all zeros stay zeros")
    need_gradient(function, _rms_norm, x, gain)


def _rms_norm_mistakes(x: Tensor, gain: Tensor) -> Iterator[tuple[Tensor, str]]:
    square, d = x.square(), x.size(-1)
    mean = _mean(square)
    deviation = x.std(-1, keepdim=True, correction=0)
    for divisor, message in (
        (deviation, "the standard deviation has the mean taken out: square x itself"),
        (mean, "take the root of the mean square"),
        (x.norm(dim=-1, keepdim=True), "that is the root of the sum: take the mean"),
        (mean.sqrt() / d**0.5, "d belongs under the root: the mean comes first"),
        ((mean * d / (d - 1)).sqrt(), "divide the sum by d, not by d - 1"),
        (square.mean().sqrt(), "one size for all positions: take the last axis"),
        (
            square.mean((-2, -1), keepdim=True).sqrt(),
            "one size for a whole sentence: take the last axis",
        ),
        (square.mean(0).sqrt(), "that is over the batch: take the last axis"),
        (
            square.mean(1, keepdim=True).sqrt(),
            "that is over the length: take the last axis",
        ),
        (_mean(x).abs(), "square first, then take the mean"),
        (_mean(x), "square first, then take the mean"),
        (_mean(x.abs()), "that is the mean of |x|: square, take the mean, then root"),
        (1 / mean.sqrt(), "divide by the root, don't multiply"),
        (x.std(-1, keepdim=True), "that is the standard deviation: square x itself"),
        (x.abs().amax(-1, keepdim=True), "that is the largest number, not a mean"),
    ):
        yield gain * x / divisor, message
    right = x / (mean + EPS).sqrt()
    yield gain * F.layer_norm(x, (d,)), "you subtract the mean: that is layer norm"
    yield right, "the gain is forgotten"
    yield right + gain, "the gain is a factor, it is not added"
    yield right / gain, "multiply by the gain, don't divide"
    yield right * (1 + gain), "the factor is the gain itself, not 1 + gain"
    yield _rms_norm(gain * x, gain * 0 + 1), "the gain comes after the division"
    yield gain * right.abs(), "the sign of x is lost: divide x, not its square"


def _post_norm(
    norm: Callable[[Tensor], Tensor],
    dropout: Callable[[Tensor], Tensor],
    x: Tensor,
    sublayer: Callable[[Tensor], Tensor],
) -> Tensor:
    return norm(x + dropout(sublayer(x)))


def _ask(
    function: Answer, rule: Callable[..., Tensor], mistakes: Callable, hint: str
) -> tuple:
    """Compare a residual with the rule on three inputs; returns what it was given."""
    norm, dropout, sublayer, calls = _parts()
    x = normal(2, 3, 5)
    answer = need_tensor(function(norm, dropout, x, sublayer), (2, 3, 5))
    need(len(calls) == 1, f"the sub-layer is called {len(calls)} times, not once")
    right = rule(norm, dropout, x, sublayer)
    compare(answer, right, mistakes(norm, dropout, x, sublayer), hint)
    for case, more in (
        ("x a hundred times as large", 100 * x),
        ("one position", normal(1, 1, 5, seed=1)),
    ):
        found = function(norm, dropout, more, sublayer)
        compare(found, rule(norm, dropout, more, sublayer), hint=case)
    return norm, dropout, x, sublayer


@exercise
def check_post_norm(function: Answer) -> None:
    """`my_post_norm(norm, dropout, x, sublayer)`: as printed, with its dropout."""
    hint = "sub-layer, dropout, sum, norm: in this order"
    norm, dropout, x, sublayer = _ask(function, _post_norm, _post_norm_mistakes, hint)
    need_gradient(function, _post_norm, norm, dropout, x, sublayer)


def _parts() -> tuple[
    Callable[[Tensor], Tensor],
    Callable[[Tensor], Tensor],
    Callable[[Tensor], Tensor],
    list[int],
]:
    """A norm as if trained, a dropout, a sub-layer, and a list of its calls."""
    calls: list[int] = []

    def norm(x: Tensor) -> Tensor:
        return F.layer_norm(x, (5,)) * torch.arange(1, 6)

    def dropout(z: Tensor) -> Tensor:
        return z * torch.tensor([0.0, 2.0, 2.0, 0.0, 2.0])

    def sublayer(z: Tensor) -> Tensor:
        calls.append(1)
        return z.roll(1, -1) ** 2

    return norm, dropout, sublayer, calls


def _post_norm_mistakes(
    norm: Callable[[Tensor], Tensor],
    dropout: Callable[[Tensor], Tensor],
    x: Tensor,
    sublayer: Callable[[Tensor], Tensor],
) -> tuple[tuple[Tensor, str], ...]:
    raw, y = sublayer(x), norm(x)
    pre = "that is pre-norm: here the sum is normalized, not what goes in"
    no_sum = "where is the addition? x goes past the sub-layer"
    before = "dropout belongs before the sum: on what the sub-layer returns"
    return (
        (norm(x + raw), "dropout is missing (§5.4): on what the sub-layer returns"),
        (x + dropout(raw), "where is the norm? It comes last"),
        (x + raw, "where are the norm and dropout?"),
        (norm(dropout(raw)), no_sum),
        (norm(raw), f"{no_sum}; and dropout is missing"),
        (dropout(raw), f"{no_sum}; and the norm is missing"),
        (norm(dropout(x + raw)), f"{before}, not on the sum"),
        (dropout(norm(x + raw)), f"{before}, not on the result"),
        (norm(x + sublayer(dropout(x))), f"{before}, not on what goes in"),
        (norm(dropout(x) + raw), f"{before}, not on x"),
        (x + dropout(sublayer(y)), pre),
        (x + sublayer(y), f"{pre}; and dropout is missing"),
        (x + norm(dropout(raw)), "the norm comes last: around the whole sum"),
        (x + dropout(norm(raw)), "the norm comes last: around the whole sum"),
        (norm(x + dropout(sublayer(y))), "one norm too many: x goes in as it is"),
        (norm(y + dropout(sublayer(y))), "one norm too many: x goes in as it is"),
        (norm(x) + dropout(raw), "the norm goes around the whole sum, not x alone"),
        (norm(2 * x + dropout(raw)), "x is added twice"),
        (norm(x - dropout(raw)), "what the sub-layer returns is added"),
    )


@exercise
def check_two_orders(function: Answer) -> None:
    """`my_two_orders()`: post-norm and pre-norm of (3, 3, 7, 7), on paper."""
    answer = function()
    names = ("post_triple", "pre_triple", "post_minus", "pre_minus")
    need(isinstance(answer, dict), "return a dict, as the stub does")
    need(all(value is not ... for value in answer.values()), NOT_DONE)
    x, y = torch.tensor([3.0, 3, 7, 7]), torch.tensor([-1.0, -1, 1, 1])
    unsure = "the mean is 5, the variance 4"
    rights = (y, x + 3 * y, 0 * x, x - y)
    for name, right in zip(names, rights, strict=True):
        need(name in answer, f"{name} is missing")
        with errors_mean(f"{name}: four numbers, please ({{error}})", Exception):
            found = torch.as_tensor(answer[name], dtype=torch.float32)
        mistakes = [(w, f"{name}: {m}") for w, m in _order_mistakes(name, x, y)]
        compare(found, right, mistakes, f"{name}: {unsure}")


def _order_mistakes(name: str, x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, str]]:
    factor = 3 if name.endswith("triple") else -1
    bessel = 3**0.5 / 2
    last = "the norm comes last"
    if name.startswith("post"):
        yield (1 + factor) * x, f"that is the sum: {last}"
        yield x + factor * y, "that is pre-norm"
        yield x + y, f"{last}: around the whole sum"
        yield (1 + factor) * y, f"normalize the sum: {last}"
        yield -y, "the sum x - x is 0 everywhere, and its norm is, too"
        yield y, "the sum x - x is 0 everywhere, and its norm is, too"
    else:
        yield (1 + factor) * x, "the sub-layer gets the normalized x"
        yield factor * y, "x itself is still to be added"
        yield (1 + factor) * y, "x goes past the norm: add x itself"
        yield y, "that is post-norm: here the sum is not normalized"
        yield x + factor * bessel * y, "the variance divides by 4, not by 3"
    yield bessel * y, "the variance divides by 4, not by 3"
    yield 0.5 * y, "divide by the standard deviation, not by the variance"


def _block(
    norm: Callable[[Tensor], Tensor],
    dropout: Callable[[Tensor], Tensor],
    x: Tensor,
    sublayer: Callable[[Tensor], Tensor],
) -> Tensor:
    return x + dropout(sublayer(norm(x)))


@exercise
def check_block(function: Answer) -> None:
    """`my_block(norm, dropout, x, sublayer)`: pre-norm, repaired."""
    hint = "draw both paths, and follow each one"
    norm, dropout, x, sublayer = _ask(function, _block, _block_mistakes, hint)
    silent = function(norm, dropout, x, torch.zeros_like)
    compare(
        silent, x, hint="a sub-layer that says nothing leaves x as it is", tolerance=0
    )
    need_gradient(function, _block, norm, dropout, x, sublayer)


def _block_mistakes(
    norm: Callable[[Tensor], Tensor],
    dropout: Callable[[Tensor], Tensor],
    x: Tensor,
    sublayer: Callable[[Tensor], Tensor],
) -> tuple[tuple[Tensor, str], ...]:
    y = norm(x)
    branch, raw = sublayer(y), sublayer(x)
    through = "the skip connection goes through the norm"
    front = "the norm belongs in front of the sub-layer"
    return (
        (dropout(y + branch), "nothing is repaired yet"),
        (y + branch, f"dropout is gone, and {through}"),
        (y + dropout(branch), through),
        (dropout(x + branch), "dropout falls on the sum: it tears holes into x"),
        (dropout(x) + branch, "dropout falls on x: it belongs behind the sub-layer"),
        (x + dropout(y + branch), "the branch carries the normed x once more"),
        (2 * x + dropout(branch), "x is added twice"),
        (x + y + dropout(branch), "x is added twice, the second time normed"),
        (x + branch, "dropout is gone"),
        (x + dropout(sublayer(dropout(y))), "dropout twice: behind the sub-layer only"),
        (x + sublayer(dropout(y)), "dropout belongs behind the sub-layer"),
        (x + sublayer(norm(dropout(x))), "dropout belongs behind the sub-layer"),
        (x + dropout(raw), "the sub-layer gets x without its norm"),
        (norm(x + dropout(raw)), "that is post-norm: right, but not what was asked"),
        (norm(x + raw), "that is post-norm, without dropout"),
        (norm(dropout(x + raw)), "that is post-norm, and dropout falls on the sum"),
        (norm(x + branch), "dropout is gone, and the sum goes through a norm"),
        (dropout(x + dropout(branch)), "dropout twice: on the branch alone"),
        (dropout(branch), "where is the addition?"),
        (branch, "where is the addition, and where is dropout?"),
        (x - dropout(branch), "the branch is added, not subtracted"),
        (x + dropout(norm(raw)), front),
        (x + norm(dropout(raw)), front),
        (x + norm(dropout(branch)), f"one norm too many: {front}"),
        (x + dropout(norm(branch)), f"one norm too many: {front}"),
        (norm(x + dropout(branch)), "one norm too many: the sum stays as it is"),
    )


def _norm_backward(y: Tensor, sigma: Tensor, gain: Tensor, upstream: Tensor) -> Tensor:
    g = upstream * gain
    return (g - _mean(g) - y * _mean(g * y)) / sigma


@exercise
def check_norm_backward(function: Answer) -> None:
    """`my_norm_backward(y, sigma, gain, upstream)`: the gradient of layer norm."""
    case = _norm_case(2, 3, 5)
    with errors_mean(KEEP):
        answer = need_tensor(function(*case), (2, 3, 5))
    right = _norm_backward(*case)
    compare(answer, right, _backward_mistakes(*case), "autograd finds other numbers")
    for what, *shape in (
        ("a single word", 7),
        ("a batch of 1", 1, 2, 16),
        ("four axes", 3, 2, 2, 4),
        ("1030 positions of width 512", 1030, 512),
    ):
        more = _norm_case(*shape)
        with errors_mean(f"{what}: {KEEP}"):
            found = function(*more)
        compare(found, _norm_backward(*more), hint=what)
    small = _norm_case(2, 5, scale=0.01)
    compare(function(*small), _norm_backward(*small), hint="x as small as 0.01")


def _norm_case(*shape: int, scale: float = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The numbers that a forward pass leaves behind, and a gradient from above."""
    x, gain = scale * normal(*shape), normal(shape[-1], seed=1)
    sigma = (x.var(-1, correction=0, keepdim=True) + EPS).sqrt()
    return (x - _mean(x)) / sigma, sigma, gain, normal(*shape, seed=2)


def _backward_mistakes(
    y: Tensor, sigma: Tensor, gain: Tensor, upstream: Tensor
) -> Iterator[tuple[Tensor, str]]:
    g = upstream * gain
    for top, message in _term_mistakes(y, gain, upstream):
        yield top / sigma, message
    ones, right = torch.ones_like(gain), _norm_backward(y, sigma, gain, upstream)
    center, along = g - _mean(g), y * _mean(g * y)
    bare = _norm_backward(y, sigma, ones, upstream)
    yield bare, "first bring the gradient past the gain"
    yield gain * bare, "the gain comes before the means"
    yield gain * right, "the gain is in g already: not once more"
    yield _norm_backward(y, sigma, 1 / gain, upstream), "times the gain, not over it"
    yield right * sigma, "divide by sigma at the end"
    yield right * sigma.square(), "divide by sigma, don't multiply"
    yield right / sigma, "sigma is the root already: divide by it once"
    yield right * sigma.sqrt(), "sigma is the root already: don't take another"
    yield g / sigma - _mean(g) - along, "divide all three terms by sigma"
    yield center / sigma - along, "divide all three terms by sigma"
    yield g * sigma, "divide by sigma, and each x also moves the mean and the deviation"


def _term_mistakes(
    y: Tensor, gain: Tensor, upstream: Tensor
) -> Iterator[tuple[Tensor, str]]:
    g, d = upstream * gain, y.size(-1)
    center, along = g - _mean(g), y * _mean(g * y)
    only = "only the first term: each x also moves the mean and the deviation"
    yield g, only
    yield upstream, f"the gain is forgotten, and {only}"
    yield center, "the deviation moves, too: the term with y is missing"
    yield g - along, "the mean moves, too: a term is missing"
    means, minus = "means, not sums: divide by d", "both terms are subtracted"
    biased, less = "divide by d, not by d - 1", d / (d - 1)
    for a, b, message in (
        *((d, d, means), (1, d, means), (d, 1, means)),
        *((less, less, biased), (1, less, biased)),
        *((1, -1, minus), (-1, 1, minus), (-1, -1, minus)),
    ):
        yield g - a * _mean(g) - b * along, message
    yield along - center, "the sign: g comes first, and both terms are subtracted"
    twice = "y stands twice: inside the mean, and in front of it"
    yield center - _mean(g * y), twice
    yield center - y * _mean(g), twice
    yield center - y * _mean(y), "the mean of g times y, not of y alone"
    yield center - g * _mean(g * y), "y stands in front of the last mean, not g"
    yield center - y * _mean(upstream * y), "the last term takes g, with the gain"
    yield g - _mean(upstream) - along, "the mean takes g, with the gain"
    yield center - y * g * y, "the last term has a mean over g times y"
    yield (
        gain * (upstream - _mean(g) - along),
        "the gain is in g already: not once more",
    )
    for axes in ((0, 1, 2), 0, 1):
        g_mean, gy_mean = (z.mean(axes, keepdim=True) for z in (g, g * y))
        yield g - g_mean - y * gy_mean, "means over the last axis only"
