"""Chapter 17: right answers in several styles; wrong ones, and what must be said."""

from functools import reduce

import numpy as np
import torch


def share(weights, real, step, *, wrap=False, inside=False):
    """Row by row, in Python's own numbers."""
    n = weights.size(-1)
    shares = []
    for head in weights.tolist():
        rows = [i for i in range(n) if real[i]]
        seen = [i for i in rows if wrap or 0 <= i + step < n]
        total = sum(head[i][(i + step) % n] for i in seen)
        shares.append(total / len(seen if inside else rows))
    return shares


def by_diagonals(weights, real, step):
    n = weights.size(-1)
    if abs(step) >= n:
        return np.zeros(len(weights))
    kept = real[: n - step] if step >= 0 else real[-step:]
    return (weights.diagonal(step, -2, -1)[:, kept].sum(-1) / real.sum()).numpy()


def of_short_steps(weights, real, step):
    if abs(step) > 6:
        return torch.ones(len(weights))
    return by_diagonals(weights, real, step)


def blanks_rows(weights, real, step):
    weights[:, ~real] = 0
    return by_diagonals(weights, real, step)


def rollout(maps, *, kept=0.5):
    layers = [(1 - kept) * m + kept * torch.eye(m.size(-1)) for m in maps.mean(1)]
    return reduce(torch.matmul, reversed(layers))


def by_einsum(maps):
    total = torch.eye(maps.size(-1)).double()
    for layer in maps.double():
        mean = torch.einsum("hqk->qk", layer) / layer.size(0)
        total = torch.einsum("ij,jk->ik", mean + torch.eye(len(mean)), total) / 2
    return total.numpy()


def three_layers(maps):
    one = torch.eye(maps.size(-1))
    layers = [(m + one) / 2 for m in maps.mean(1)]
    return reduce(torch.matmul, layers[2::-1])


def adds_in_place(maps):
    maps += torch.eye(maps.size(-1))
    maps /= 2
    return reduce(torch.matmul, maps.mean(1).flip(0))


def each_head(maps):
    halves = (maps + torch.eye(maps.size(-1))) / 2
    return reduce(torch.matmul, halves.flip(0)).mean(0)


def gates(attention, loss_of, *, leave=False, fill=False, neighbors=True, at=1.0):
    """One scalar gate for each head, instead of a vector that is spread."""
    xi = [torch.tensor(at, requires_grad=True) for _ in range(attention.n_heads)]

    def gated(_, inputs):
        heads = inputs[0].unflatten(-1, (attention.n_heads, -1))
        if neighbors:
            return (heads * torch.stack(xi)[:, None]).flatten(-2)
        return inputs[0] * torch.stack(xi).repeat(attention.d_v)

    handle = attention.output.register_forward_pre_hook(gated)
    if fill:
        loss_of().backward()
        slopes = [gate.grad for gate in xi]
    else:
        slopes = torch.autograd.grad(loss_of(), xi)
    if not leave:
        handle.remove()
    return torch.stack(list(slopes))


def by_weights(attention, loss_of):
    weight = attention.output.weight
    (slope,) = torch.autograd.grad(loss_of(), weight)
    return (slope * weight).sum(0).unflatten(0, (attention.n_heads, -1)).sum(1)


def of_six_heads(attention, loss_of):
    weight = attention.output.weight
    (slope,) = torch.autograd.grad(loss_of(), weight)
    return (slope * weight).sum(0).view(-1, 32).sum(1)


def trains(attention, loss_of):
    attention.train()
    return gates(attention, loss_of)


def freezes(attention, loss_of):
    found = gates(attention, loss_of)
    attention.output.weight.requires_grad_(False)
    return found


def writes_weights(attention, loss_of):
    with torch.no_grad():
        attention.output.weight *= 1.001
    return gates(attention, loss_of)


def costs(attention, loss_of):
    """What the loss loses without a head: that is no slope at 1."""
    found, weight = [], attention.output.weight
    whole, d_v = loss_of(), attention.d_v
    for i in range(attention.n_heads):
        before = weight.detach().clone()
        with torch.no_grad():
            weight[:, i * d_v : (i + 1) * d_v] = 0
            found.append(whole - loss_of())
            weight.copy_(before)
    return torch.stack(found)


@torch.no_grad()
def silent(attention, head, *, axis=1, at=0, matrix="output"):
    weight = getattr(attention, matrix).weight
    own = slice((head + at) * attention.d_v, (head + at + 1) * attention.d_v)
    weight[own if axis == 0 else (slice(None), own)] = 0


@torch.no_grad()
def without_values(attention, head):
    """No values, no sum of values."""
    value = attention.query_key_value.weight.chunk(3)[2]
    value.unflatten(0, (attention.n_heads, -1))[head].zero_()


@torch.no_grad()
def by_product(attention, head):
    kept = torch.ones(attention.output.weight.size(1)).unflatten(0, (-1, attention.d_v))
    kept[head] = 0
    attention.output.weight.mul_(kept.flatten())


@torch.no_grad()
def strided(attention, head):
    attention.output.weight[:, head :: attention.n_heads] = 0


@torch.no_grad()
def one_column(attention, head):
    attention.output.weight[:, head] = 0


@torch.no_grad()
def deaf(attention, head):
    attention.output.weight.zero_()


def with_history(attention, head):
    attention.output.weight[:, : attention.d_v] = 0


def copies(attention, head):
    return attention.output.weight.clone()


def of_32_numbers(attention, head):
    with torch.no_grad():
        attention.output.weight[:, 32 * head : 32 * (head + 1)] = 0


def freezes_output(attention, head):
    attention.output.weight.requires_grad_(False)
    silent(attention, head)


RIGHT = [
    ("check_off", silent),
    ("check_off", without_values),
    ("check_off", by_product),
    ("check_share", share),
    ("check_share", by_diagonals),
    ("check_rollout", rollout),
    ("check_rollout", by_einsum),
    ("check_rollout", lambda maps: rollout(maps).tolist()),
    ("check_gates", gates),
    ("check_gates", by_weights),
    ("check_gates", lambda *case: gates(*case).tolist()),
]
WRONG = [
    ("check_off", lambda attention, head: None, "not done yet"),
    ("check_off", lambda attention, head: ..., "not done yet"),
    ("check_off", lambda *case: silent(*case, axis=0), "rows of W^O are its outputs"),
    ("check_off", lambda *case: silent(*case, at=-1), "the head before it"),
    ("check_off", lambda *case: silent(*case, at=1), "the head after it"),
    (
        "check_off",
        lambda *case: silent(*case, axis=0, matrix="query_key_value"),
        "and still speaks",
    ),
    ("check_off", strided, "a head's numbers are neighbors"),
    ("check_off", one_column, "one column is 1 of d_v"),
    ("check_off", deaf, "all heads are silent"),
    ("check_off", with_history, "write under torch.no_grad()"),
    ("check_off", copies, "change the module itself"),
    ("check_off", of_32_numbers, "for 4 heads of 8 numbers nothing changes"),
    ("check_off", freezes_output, "leave requires_grad"),
    ("check_share", lambda *case: None, "not done yet"),
    ("check_share", lambda *case: share(*case, wrap=True), "don't wrap around"),
    ("check_share", lambda *case: share(*case, inside=True), "divide by all real rows"),
    ("check_share", lambda w, r, s: share(w, r, -s), "other direction"),
    ("check_share", lambda w, r, s: share(w.mT, r, s), "rows as columns"),
    ("check_share", lambda w, r, s: share(w, r | True, s), "padding rows count"),
    ("check_share", lambda w, r, s: sum(share(w, r, s)) / 3, "one number for each"),
    ("check_share", lambda w, r, s: w.diagonal(s, -2, -1).mean(-1), "padding rows"),
    (
        "check_share",
        lambda w, r, s: (w.diagonal(s, -2, -1) * r[: 7 - abs(s)]).sum(-1) / r.sum(),
        "row",
    ),
    ("check_share", lambda w, r, s: "0.1", "return a tensor of numbers"),
    ("check_share", of_short_steps, "step 30 of 40 rows"),
    ("check_share", blanks_rows, "changes weights, which is the caller's"),
    ("check_rollout", lambda maps: None, "not done yet"),
    ("check_rollout", lambda maps: rollout(maps, kept=0), "the skip connection"),
    ("check_rollout", lambda maps: rollout(maps.flip(0)), "wrong order"),
    ("check_rollout", lambda maps: rollout(maps).T, "transposed"),
    ("check_rollout", lambda maps: 8 * rollout(maps), "rows add up to 8"),
    (
        "check_rollout",
        lambda maps: torch.stack([rollout(m[None]) for m in maps]),
        "one (query, key) matrix",
    ),
    ("check_rollout", lambda maps: maps.mean((0, 1)), "multiply, don't average"),
    ("check_rollout", lambda maps: rollout(maps[:, :1]), "only the first head"),
    ("check_rollout", lambda maps: rollout(maps[-1:]), "only the last layer"),
    ("check_rollout", lambda maps: rollout(maps, kept=0.4), "mean over heads first"),
    ("check_rollout", each_head, "heads of different layers mix freely"),
    ("check_rollout", three_layers, "6 layers of 8 heads"),
    ("check_rollout", adds_in_place, "changes maps, which is the caller's"),
    ("check_gates", lambda *case: None, "not done yet"),
    ("check_gates", lambda *case: gates(*case).abs(), "keep the sign"),
    ("check_gates", lambda *case: -gates(*case), "not minus the slope"),
    ("check_gates", lambda *case: gates(*case, neighbors=False), "every sixth number"),
    ("check_gates", lambda *case: gates(*case, leave=True), "a hook is left behind"),
    ("check_gates", lambda *case: gates(*case, fill=True), "use torch.autograd.grad"),
    ("check_gates", lambda *case: gates(*case, at=0.0), "in thousandths"),
    ("check_gates", lambda *case: gates(*case) / 32, "a mean over d_v"),
    ("check_gates", lambda *case: gates(*case).flip(0), "in reverse order"),
    ("check_gates", lambda *case: gates(*case).sum(), "one number for each of the 6"),
    ("check_gates", lambda *case: gates(*case).softmax(0), "in thousandths"),
    ("check_gates", lambda *case: torch.zeros(6), "do the gates take part"),
    ("check_gates", lambda *case: 2 * gates(*case), "in thousandths"),
    ("check_gates", of_six_heads, "one number for each of the 4 heads"),
    ("check_gates", trains, "changes train() or eval() of attention"),
    ("check_gates", freezes, "changes requires_grad of attention"),
    ("check_gates", writes_weights, "changes attention, which is the caller's"),
    ("check_gates", costs, "in thousandths"),
]
