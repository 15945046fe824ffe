"""Eight bits for a weight, problem 4.5."""

from collections.abc import Iterator

import torch
from torch import Tensor

from annotated_transformer.checks.common import (
    Answer,
    Function,
    Mistakes,
    compare,
    errors_mean,
    need,
    need_tensor,
    seeded,
    sizes,
    verdict,
)

__all__ = ["check_int8_product", "check_quantize_rows"]

TOP = 127


def check_quantize_rows(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`quantize(weight)`: int8 codes, and a scale for each row.

    Parts: "scale", "codes" (the rounding), "zero" (a row of zeros, and a tiny one).
    """
    parts = {"scale": _scale, "codes": _codes, "zero": _zero}
    return verdict(function, part, seed, **parts)


def matrices(seed: int) -> Iterator[Tensor]:
    """Weights whose rows have very different sizes; the largest number is negative."""
    rows, columns = sizes(seed, 5, 7)
    for shape in ((rows + 3, columns), (6, 6)):
        g = seeded(seed + sum(shape))
        weight = torch.randn(shape, generator=g) + 0.3
        weight *= 4.0 ** torch.arange(-2, shape[0] - 2)[:, None]
        weight[::2] *= -weight[::2].amax(1, keepdim=True).sign()
        weight[:, -1] = weight[:, -1].abs()  # no row is negative as a whole
        weight[0, 0] = -1.5 * weight[0].abs().max()
        yield weight


def quantized(function: Answer, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The codes and the scales, of the right kinds."""
    with errors_mean("does the scale fit the rows? {error}", RuntimeError):
        found = function(weight)
    two = "return two tensors: the codes and the scales"
    need(isinstance(found, tuple | list) and len(found) == 2, two)
    codes, scale = found
    tensors = isinstance(codes, Tensor) and isinstance(scale, Tensor)
    need(tensors, two)
    swapped = "codes and scales are swapped: the codes come first"
    need(codes.dim() == 2 or scale.dim() != 2, swapped)
    one = f"one scale for each of the {len(weight)} rows, in one axis, not "
    alone = scale.numel() == 1 and len(weight) > 1
    need(not alone, one + "one for the whole matrix")
    need(scale.shape == weight.shape[:1], f"{one}{tuple(scale.shape)}")
    return need_tensor(codes, tuple(weight.shape)), scale


def wrong_scales(weight: Tensor) -> Mistakes:
    """Scales that are known to be wrong, each with its cause."""
    size = weight.abs()
    each, top = size.amax(1), "the largest number of a row becomes 127, so divide by "
    whole, n = size.max() / TOP, len(weight)
    yield each / 128, f"{top}127: 128 does not fit into int8"
    yield each / 255, f"{top}127: 255 steps go from -127 to 127"
    yield each / 256, f"{top}127"
    yield TOP / each, "upside down: a code times its scale is the weight"
    yield each, "not divided by 127"
    yield weight.amax(1) / TOP, "the largest without its sign: take abs() first"
    yield (weight.amax(1) - weight.amin(1)) / 255, "from the range: no zero point here"
    yield whole.expand(n), "one scale for the whole matrix: one for each row"
    yield size.mean(1) / TOP, "the mean of the row: its largest number"
    yield weight.std(1) / TOP, "the standard deviation: take the largest number"
    yield weight.norm(dim=1) / TOP, "the length of the row: take its largest number"
    if weight.size(1) == n:
        columns = "a scale for each column: a row is an output channel"
        yield size.amax(0) / TOP, columns


def _scale(function: Answer, seed: int) -> None:
    # The square matrix first: there a scale of the columns runs.
    for weight in [*matrices(seed)][::-1]:
        _, scale = quantized(function, weight)
        need(scale.isfinite().all(), "a scale is not finite: what was divided?")
        right = weight.abs().amax(1) / TOP
        mistakes = [(w / right, message) for w, message in wrong_scales(weight)]
        ones, hint = torch.ones(len(right)), "in units of the right scale"
        compare(scale / right, ones, mistakes, hint)


def wrong_codes(weight: Tensor, scale: Tensor) -> Mistakes:
    """Codes that are known to be wrong for these scales, each with its cause."""
    steps = weight / scale[:, None]
    cut = "cut off, not rounded: .round() before the int8"
    yield steps.trunc(), cut
    yield steps.floor(), "rounded down: .round() goes to the nearest"
    yield steps.ceil(), "rounded up: .round() goes to the nearest"
    yield weight.round(), "divide by the scale before you round"
    yield weight.trunc(), "divide by the scale, and round"
    yield (weight * scale[:, None]).round(), "multiplied by the scale: divide"
    yield steps.round().abs(), "the sign is lost"
    yield steps.round().clamp(0, TOP), "the negative numbers are lost: int8 has a sign"
    yield steps.round() + 128, "shifted by 128: int8 has a sign, 0 stays 0"
    yield (steps.round() + 128) % 256 - 128, "out of int8, and wrapped: clamp first"


def _codes(function: Answer, seed: int) -> None:
    for weight in matrices(seed):
        codes, scale = quantized(function, weight)
        need(codes.dtype == torch.int8, f"the codes should be int8, not {codes.dtype}")
        usable = scale.isfinite().all() and (scale > 0).all()
        if not usable:
            _scale(function, seed)  # if that is wrong, it is the cause
        right = (weight / scale[:, None]).round().clamp(-TOP, TOP) + 0.0
        around = "out of int8, and wrapped: clamp first"
        flipped = (codes * right < 0) & (right.abs() > TOP - 1)
        need(not flipped.any(), f"the largest number has lost its sign: {around}")
        compare(codes.float(), right, wrong_codes(weight, scale), "weight / scale")


def _zero(function: Answer, seed: int) -> None:
    weight = next(matrices(seed))
    weight[1], weight[2] = 0.0, weight[2] / weight[2].abs().max() * 1e-4
    codes, scale = quantized(function, weight)
    zero = "a row of zeros has no largest number: give it any positive scale, say 1"
    need(scale.isfinite().all() and scale[1] > 0, f"its scale is {scale[1]:g}: {zero}")
    need(not codes[1].any(), "a row of zeros should have codes of 0")
    tiny = codes[2].float().abs().max().item()
    if tiny != TOP:
        _scale(function, seed)  # if that is wrong, it is the cause
        _codes(function, seed)
        small = f"a row of numbers below 0.0001 has no code above {tiny:g}"
        need(False, f"{small}: is its scale held too large?")


def check_int8_product(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`int8_product(x, x_scale, weight, w_scale)`: the product x Wᵀ from codes.

    Parts: "sums" (all scales are 1), "scales".
    """
    return verdict(function, part, seed, sums=_sums, scales=_scales)


Codes = tuple[Tensor, Tensor, Tensor, Tensor]


def products(seed: int, top: int) -> Iterator[Codes]:
    """Codes up to `top` of inputs and weights, with scales; small, square, and long."""
    batch, n_in, n_out = sizes(seed, 2, 3, 5)
    for shape in ((batch, n_in, n_out), (4, 4, 4), (3, 512, 6)):
        g = seeded(seed + sum(shape))
        codes, scales = [], []
        for n in (shape[0], shape[2]):
            drawn = torch.randint(-top, top + 1, (n, shape[1]), generator=g)
            codes.append(drawn.to(torch.int8))
            scales.append(torch.rand(n, generator=g) + 0.1)
        yield codes[0], scales[0], codes[1], scales[1]
        if top < TOP:  # longer sums would not fit into int8
            break


def product(function: Answer, case: Codes) -> Tensor:
    """What it answers, of the right shape and in floats."""
    fit = "is the weight (out, in) transposed, and do the scales fit? {error}"
    with errors_mean(fit, RuntimeError):
        answer = function(*case)
    return need_tensor(answer, (len(case[0]), len(case[2])))


def wrapped(sums: Tensor, bits: int) -> Tensor:
    """Whole numbers as an integer of so many bits would hold them."""
    return (sums + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def _sums(function: Answer, seed: int) -> None:
    for a, _, b, _ in products(seed, TOP):
        x, weight = a.double(), b.double()
        sums = x @ weight.T
        wide = "widen the codes first, .int() or .float()"
        over = f"the sums do not fit into int8, and wrap around: {wide}"
        mistakes = [
            (wrapped(sums, 8), over),
            (wrapped(sums, 16), over.replace("int8", "int16")),
            (sums.clamp(-TOP, TOP), "the sums are cut off at 127: they stay as large"),
            (sums.clamp(-TOP - 1, TOP), "the sums are cut off: they stay as large"),
            (-sums, "the sign"),
        ]
        if a.shape == b.shape == b.T.shape:
            turned = "the weight is (out, in): the product is with its transpose"
            mistakes.append((x @ weight, turned))
        case = a, torch.ones(len(a)), b, torch.ones(len(b))
        hint = f"sums of {a.size(1)} products, all scales 1"
        compare(product(function, case), sums, mistakes, hint)


def _scales(function: Answer, seed: int) -> None:
    for a, s, b, t in products(seed, 3):
        sums, both = a.double() @ b.double().T, s[:, None] * t
        mistakes = (
            (sums, "the scales are not used: the product is in codes still"),
            (sums * t, "the scale of x is not used"),
            (sums * s[:, None], "the scale of the weight is not used"),
            (sums / both, "divided by the scales: a code times its scale is a number"),
            (sums * s[:, None] / t, "divided by the weight's scale: multiply"),
            (sums * (s[:, None] + t), "the two scales are factors: multiply them"),
            ((sums * both).round(), "rounded again: the result is a float"),
        )
        answer = product(function, (a, s, b, t))
        compare(answer, sums * both, mistakes, "row i times x_scale[i], column j times")
