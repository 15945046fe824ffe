"""Chapter 22: right answers in several styles; wrong ones, and what must be said."""

import torch
import torch.nn.functional as F


def shifted(x):
    scale = (x.max() - x.min()) / 255
    zero = (-x.min() / scale).round()
    codes = ((x / scale).round() + zero).clamp(0, 255)
    return (codes - zero) * scale


def in_a_loop(x):
    low, high = x.min().item(), x.max().item()
    scale = (high - low) / 255
    zero = round(-low / scale)
    codes = [min(max(round(n / scale) + zero, 0), 255) for n in x.tolist()]
    return torch.tensor([(code - zero) * scale for code in codes])


def by_pytorch(x):
    scale = ((x.max() - x.min()) / 255).item()
    zero = round(-x.min().item() / scale)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)


def raw(x):
    scale = (x.max() - x.min()) / 255
    return ((x - x.min()) / scale).round() * scale + x.min()


def rounded(weight, top=127):
    scale = weight.abs().amax(1, keepdim=True) / top
    return (weight / scale).round() * scale


def row_by_row(weight):
    rows = []
    for row in weight:
        scale = max(abs(x) for x in row.tolist()) / 127
        codes = (row / scale).round().clamp(-127, 127).to(torch.int8)
        rows.append(codes * scale)
    return torch.stack(rows)


def one_scale(weight, top=127):
    scale = weight.abs().max() / top
    return (weight / scale).round() * scale


def distilled(student, teacher):
    return F.cross_entropy(student, teacher.softmax(-1))


def summed(student, teacher):
    return -(teacher.softmax(-1) * student.log_softmax(-1)).sum(-1).mean()


def by_kl(student, teacher):
    p = teacher.softmax(-1)
    kl = F.kl_div(student.log_softmax(-1), p, reduction="batchmean")
    return kl - (p * p.log()).sum(-1).mean()


def grouped(weight, size, top=7):
    parts = weight.unflatten(1, (-1, size))
    scale = parts.abs().amax(-1, keepdim=True) / top
    return ((parts / scale).round() * scale).flatten(1)


def group_by_group(weight, size):
    parts = []
    for part in weight.split(size, dim=1):
        scale = part.abs().max(1, keepdim=True).values / 7
        parts.append((part / scale).round().clamp(-7, 7) * scale)
    return torch.cat(parts, 1)


def bfloat16(x, digits=8):
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * 2**digits).round(), exponent - digits)


def by_bits(x):
    bits = x.contiguous().view(torch.int32)
    even = (bits >> 16) & 1
    return ((bits + 0x7FFF + even) & ~0xFFFF).view(torch.float32)


RIGHT = [
    ("check_four_bits", grouped),
    ("check_four_bits", group_by_group),
    ("check_bfloat16", bfloat16),
    ("check_bfloat16", by_bits),
    ("check_zero_point", shifted),
    ("check_zero_point", in_a_loop),
    ("check_zero_point", by_pytorch),
    ("check_rounded_rows", rounded),
    ("check_rounded_rows", row_by_row),
    ("check_distilled", distilled),
    ("check_distilled", summed),
    ("check_distilled", by_kl),
]
WRONG = [
    ("check_four_bits", lambda weight, size: None, "not done yet"),
    ("check_four_bits", lambda weight, size: rounded(weight, 7), "for the whole row"),
    ("check_four_bits", lambda weight, size: one_scale(weight, 7), "the whole matrix"),
    ("check_four_bits", lambda weight, size: grouped(weight, size, 127), "eight bits"),
    ("check_four_bits", lambda weight, size: grouped(weight, size, 8), "from -7 to 7"),
    (
        "check_four_bits",
        lambda weight, size: grouped(weight, weight.size(1) // size),
        "not how many groups",
    ),
    ("check_four_bits", lambda weight, size: weight, "nothing is rounded"),
    ("check_bfloat16", lambda x: None, "not done yet"),
    ("check_bfloat16", lambda x: bfloat16(x, 7), "seven digits"),
    ("check_bfloat16", lambda x: bfloat16(x, 11), "float16's eleven"),
    ("check_bfloat16", lambda x: x.half().float(), "float16's eleven"),
    (
        "check_bfloat16",
        lambda x: (x.contiguous().view(torch.int32) & ~0xFFFF).view(torch.float32),
        "cut off",
    ),
    ("check_bfloat16", lambda x: (x * 256).round() / 256, "not from the point"),
    ("check_bfloat16", lambda x: x, "nothing is rounded"),
    ("check_zero_point", lambda x: None, "not done yet"),
    ("check_zero_point", lambda x: x, "nothing is rounded"),
    ("check_zero_point", lambda x: one_scale(x), "that is symmetric"),
    ("check_zero_point", raw, "0 must stay 0"),
    ("check_zero_point", lambda x: shifted(x) * 2, "2 times what they should be"),
    (
        "check_zero_point",
        lambda x: (
            shifted(x) / ((x.max() - x.min()) / 255)
            + (-x.min() / ((x.max() - x.min()) / 255)).round()
        ),
        "these are the codes",
    ),
    ("check_rounded_rows", lambda weight: None, "not done yet"),
    ("check_rounded_rows", one_scale, "one scale for the whole matrix"),
    ("check_rounded_rows", lambda weight: rounded(weight.T).T, "for each column"),
    ("check_rounded_rows", lambda weight: weight, "nothing is rounded"),
    ("check_rounded_rows", lambda weight: rounded(weight, 128), "128 does not fit"),
    ("check_rounded_rows", lambda weight: rounded(weight, 255), "from -127 to 127"),
    (
        "check_rounded_rows",
        lambda weight: (weight / weight.abs().amax(1, keepdim=True) * 127).round(),
        "these are the codes",
    ),
    (
        "check_rounded_rows",
        lambda weight: (
            (weight / weight.amax(1, keepdim=True) * 127).round()
            * weight.amax(1, keepdim=True)
            / 127
        ),
        "take abs()",
    ),
    ("check_distilled", lambda student, teacher: None, "not done yet"),
    (
        "check_distilled",
        lambda student, teacher: F.cross_entropy(student, teacher.argmax(-1)),
        "likeliest token alone",
    ),
    ("check_distilled", lambda s, t: distilled(t, s), "turned around"),
    ("check_distilled", lambda s, t: F.cross_entropy(s, t), "softmax of the teacher"),
    (
        "check_distilled",
        lambda s, t: F.kl_div(s.log_softmax(-1), t.softmax(-1), reduction="batchmean"),
        "KL divergence",
    ),
    ("check_distilled", lambda s, t: -distilled(s, t), "the sign"),
    ("check_distilled", lambda s, t: distilled(s, t) * len(s), "not the sum"),
    ("check_distilled", lambda s, t: distilled(s, t).detach(), "no gradient"),
]
