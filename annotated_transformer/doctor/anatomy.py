"""What a trace shows of a model's structure: residuals, heads, norms, masks."""

from collections.abc import Iterator

import torch
from torch import Tensor

from annotated_transformer.doctor.recorder import (
    ACTIVATIONS,
    LINEAR,
    PRODUCTS,
    SHAPES,
    SOFTMAX,
    Node,
    laid_out,
    replay,
)
from annotated_transformer.doctor.trace import Attention, Trace

VISIBLE = 1e-6  # a smaller weight is none


def descendants(node: Node) -> set[int]:
    """The ids of all nodes that were made from a node, itself included."""
    found, stack = {id(node)}, [node]
    while stack:
        for user in stack.pop().users:
            if id(user) not in found:
                found.add(id(user))
                stack.append(user)
    return found


def joins_stream(output: Node, linears: int) -> bool | None:
    """Whether a sub-layer's output is added to what was there before; None: unclear.

    Between the two, as many products with weights may stand as `linears` says.
    """
    own = descendants(output)
    stack, seen, ended = [(output, linears)], {id(output)}, False
    while stack:
        node, left = stack.pop()
        for user in node.users:
            if id(user) in seen:
                continue
            seen.add(id(user))
            if user.op in ("add", "add_"):
                others = [n for n in user.inputs if id(n) not in own and n.tokens]
                if any(n.out.shape == user.out.shape for n in others):
                    return True
            spent = user.named(LINEAR) or (user.named(PRODUCTS) and weighs(user))
            if user.named(PRODUCTS | SOFTMAX) and not spent:
                ended = True
            elif left - spent >= 0:
                stack.append((user, left - spent))
            else:
                ended = True
    return False if ended else None


def weighs(node: Node) -> bool:
    """Whether a product of matrices is one with weights, as einsum makes them."""
    return not all(n.tokens for n in node.inputs)


def feed_forwards(trace: Trace) -> Iterator[Node]:
    """The second product with weights of each feed-forward sub-layer."""
    for node in trace.nodes:
        if node.named(ACTIVATIONS) and node.tokens:
            stack, seen = list(node.users), set()
            while stack:
                user = stack.pop()
                if id(user) in seen or user.named(PRODUCTS | SOFTMAX):
                    continue
                seen.add(id(user))
                if user.named(LINEAR):
                    yield user
                    break
                stack += user.users


def residuals(trace: Trace) -> tuple[int, int]:
    """How many sub-layers are added to their input, of how many that could be judged.

    A last feed-forward whose output is the model's own is not judged.
    """
    judged = [joins_stream(a.output, 1) for a in trace.attentions]
    judged += [joins_stream(node, 0) for node in feed_forwards(trace)]
    known = [answer for answer in judged if answer is not None]
    return sum(known), len(known)


def joined_wrongly(attention: Attention) -> bool:
    """Whether one vector mixes several positions when the heads are joined.

    Each number of the heads' output is labeled with its position, and the labels are
    taken through the same changes of shape.
    """
    output = attention.output
    length = output.out.size(-2)
    labels = torch.arange(length, device=output.out.device)[:, None]
    stack = [(output, laid_out(labels.expand(output.out.shape), output.out))]
    while stack:
        node, labels = stack.pop()
        for user in node.users:
            if user.named(LINEAR | PRODUCTS):
                rows = labels.reshape(-1, labels.size(-1))
                takes = user.named(LINEAR) or weighs(user)
                return bool(takes and (rows != rows[:, :1]).any())
            if user.named(SHAPES) and len(user.inputs) == 1:
                moved = replay(user, node, labels)
                if moved is not None:
                    stack.append((user, moved))
    return False


def changed_positions(first: Tensor, second: Tensor) -> set[int]:
    """The positions at which two (rows, length, d_k) differ."""
    differs = ~torch.isclose(first, second, rtol=1e-5, atol=1e-6, equal_nan=True)
    return set(differs.any(-1).any(0).nonzero()[:, 0].tolist())


def wrong_norms(trace: Trace) -> list[str]:
    """Norms, or means and deviations, that are not over the last axis alone."""
    found = []
    for node in trace.nodes:
        if not node.tokens or not node.inputs:
            continue
        n_axes = node.inputs[0].out.dim()
        if "batch_norm" in node.op:
            found.append("batch norm")
        elif node.op == "native_layer_norm" and len(node.args[1]) > 1:
            found.append(f"layer norm over {len(node.args[1])} axes")
        elif node.op in ("mean", "var", "std", "var_mean") and n_axes >= 3:
            axes = node.args[1] if len(node.args) > 1 else None
            axes = [axes] if isinstance(axes, int) else axes
            if {axis % n_axes for axis in axes or range(n_axes)} != {n_axes - 1}:
                found.append(f"{node.op} over axes {list(axes or range(n_axes))}")
    return found


def seen_keys(weights: Tensor) -> Tensor:
    """Which keys each query sees in any head of one sentence: bool, (query, key)."""
    return (weights.abs() > VISIBLE).any(0)  # NaN sees nothing
