"""Listening to a forward pass: its attentions, and the positions added to tokens."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves

from annotated_transformer.doctor.recorder import (
    EMBEDDING,
    LINEAR,
    MASKINGS,
    PRODUCTS,
    SHAPES,
    SOFTMAX,
    Node,
    Recorder,
    axis_after,
    place,
)


@dataclass(eq=False)
class Attention:
    """One attention, as found: axes (rows, query, key), rows of batch times heads."""

    query_side: str
    key_side: str
    query: Tensor
    key: Tensor
    scores: Tensor  # what softmax was given
    weights: Tensor  # what softmax gave
    used: Tensor  # the weights that met the values
    over_keys: bool  # whether softmax ran over the axis that meets the values
    scale: float  # the factor between query @ key and the scores
    masks: list[tuple[str, float]]  # operations between product and softmax, values
    masks_after: list[str]  # operations between softmax and values
    output: Node

    @property
    def kind(self) -> str:
        """encoder, decoder, cross, or reversed (source asks, target answers)."""
        sides = (self.query_side, self.key_side)
        names = {("src", "src"): "encoder", ("tgt", "tgt"): "decoder"}
        names |= {("tgt", "src"): "cross", ("src", "tgt"): "reversed"}
        return names.get(sides, "other")


class Trace:
    """The operations of one forward pass on these ids, and the logits that it gave."""

    def __init__(self, call: Callable[..., Tensor], **ids: Tensor):
        self.recorder = Recorder(**ids)
        # Plain attention shows its scores; gradients on shows what stops them.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), self.recorder:
            self.logits = call(*ids.values()).detach()
        self.ids = ids
        self.nodes = self.recorder.nodes
        self.leaves = list(self.recorder.leaves.values())
        self.attentions = list(self.find_attentions())

    def find_attentions(self) -> Iterator[Attention]:
        """Every softmax over products of token vectors whose result meets values."""
        for node in self.nodes:
            if node.named(SOFTMAX) and (found := self.attention(node)):
                yield found

    def attention(self, softmax: Node) -> Attention | None:
        """What stands around a softmax, if it is an attention."""
        path = path_to_product(softmax.inputs[0] if softmax.inputs else None)
        forward = path_to_values(softmax)
        if not path or not forward:
            return None
        product, values = path[-1], forward[-1]
        used = forward[-2] if len(forward) > 1 else softmax  # what met the values
        key_axis = -1 if same(operands(values)[0], used) else -2
        axes = [axis_after(softmax, axis, forward[:-1]) for axis in (-1, -2)]
        turned = axes[0] not in (None, key_axis)  # weights are (key, query)
        first, second = operands(product)
        query, key = first.out, second.out.mT
        if axis_after(product, -2, path[-2::-1]) == (-2 if turned else -1):
            first, second, query, key = second, first, key, query
        over_last = softmax.args[1] % softmax.out.dim() == softmax.out.dim() - 1
        return Attention(
            query_side=last_side(first),
            key_side=last_side(second),
            query=query,
            key=key,
            scores=matrices(softmax.inputs[0].out, turned),
            weights=matrices(softmax.out, turned),
            used=matrices(used.out, key_axis == -2),
            over_keys=over_last != turned,
            scale=total_scale(path, first, second),
            masks=list(masks_on(path[:-1])),
            masks_after=[n.op for n in forward[:-1] if is_mask(n)],
            output=values,
        )

    def sides_of_leaves(self) -> dict[int, frozenset[str]]:
        """By address, the sides whose vectors each parameter met."""
        met: dict[int, frozenset[str]] = {}
        for node in self.nodes:
            for value in tree_leaves(node.args):
                if isinstance(value, Tensor) and node.tokens:
                    pointer = value.data_ptr()
                    met[pointer] = met.get(pointer, frozenset()) | node.tokens
        return {
            leaf.data_ptr(): met.get(leaf.data_ptr(), frozenset())
            for leaf in self.leaves
        }

    def lost(self) -> set[int]:
        """The addresses of parameters whose results the logits are not made from."""
        reached, stack = set(), self.nodes[-1:]
        while stack:
            node = stack.pop()
            if id(node) not in reached:
                reached.add(id(node))
                stack += node.inputs
        useful = {
            value.data_ptr()
            for node in self.nodes
            if id(node) in reached
            for value in tree_leaves(node.args)
            if isinstance(value, Tensor)
        }
        return {leaf.data_ptr() for leaf in self.leaves} - useful

    def of_kind(self, *kinds: str) -> list[Attention]:
        """The attentions of these kinds, in order."""
        return [a for a in self.attentions if a.kind in kinds]

    def positions(self, side: str) -> tuple[Tensor, Tensor] | None:
        """Tokens' vectors and the positions added to them, both (length, d_model)."""
        length = self.ids[side].size(1)
        for tokens, other in self.added(side):
            if length in other.shape[-3:-1]:
                return flat_rows(tokens, length), flat_rows(other, length)
        return None

    def added_by_row(self, rows: int) -> str:
        """The side to whose tokens something is added that differs by sentence."""
        for side in self.ids:
            for _, other in self.added(side):
                if other.dim() == 3 and other.shape[:2] == (rows, 1):
                    return side
        return ""

    def added(self, side: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Each pair of tokens' vectors and something added that is no bias."""
        for node in self.nodes:
            if node.op not in ("add", "add_") or node.tokens != {side} or node.linears:
                continue
            made = {place(n.out) for n in node.inputs if n.tokens}
            pair = [x for x in node.args[:2] if isinstance(x, Tensor)]
            tokens = [x for x in pair if place(x) in made]
            others = [x for x in pair if place(x) not in made]
            real = bool(others) and others[0].is_floating_point()
            if len(tokens) == 1 and real and others[0].dim() >= 2:
                yield tokens[0], others[0]


def flat_rows(x: Tensor, length: int) -> Tensor:
    """One sentence's vectors, (length, d_model), whichever axis holds the positions."""
    x = x.detach().float()
    while x.dim() < 3:
        x = x[None]
    if x.size(-2) != length:
        x = x.transpose(-2, -3)
    return x.reshape(-1, length, x.size(-1))[0]


def same(node: Node, other: Node) -> bool:
    """Whether two nodes hold the same memory."""
    return node.out.data_ptr() == other.out.data_ptr()


def matrices(x: Tensor, turned: bool) -> Tensor:
    """Scores or weights as (rows, query, key); `turned`, if they are (key, query)."""
    x = x.detach().reshape(-1, *x.shape[-2:]).float()
    return x.mT if turned else x


def operands(product: Node) -> tuple[Node, Node]:
    """The two factors of a matrix product."""
    return product.inputs[-2], product.inputs[-1]


def last_side(node: Node) -> str:
    """The side whose tokens a vector stands for: a decoder's have read both."""
    return "tgt" if "tgt" in node.tokens else "src" if node.tokens else ""


def path_to_product(node: Node | None, depth: int = 25) -> list[Node]:
    """Back from softmax to the product of queries and keys, that one last."""
    if node is None or not node.tokens or not depth:
        return []
    if node.named(PRODUCTS):
        two = operands(node) if len(node.inputs) >= 2 else ()
        return [node] if len(two) == 2 and all(n.tokens for n in two) else []
    if node.named(LINEAR | SOFTMAX | EMBEDDING) or "norm" in node.op:
        return []
    for source in node.inputs:
        if path := path_to_product(source, depth - 1):
            return [node, *path]
    return []


def path_to_values(node: Node, depth: int = 12) -> list[Node]:
    """On from softmax to the product with the values, that one last."""
    if not depth:
        return []
    for user in node.users:
        if user.named(PRODUCTS) and len(user.inputs) >= 2:
            if all(n.tokens for n in operands(user)):
                return [user]
        elif not user.named(LINEAR | SOFTMAX) and (
            path := path_to_values(user, depth - 1)
        ):
            return [user, *path]
    return []


def scalar(value: Any) -> float | None:
    """A number, or a tensor that holds just one."""
    if isinstance(value, Tensor):
        return float(value) if value.numel() == 1 else None
    return float(value) if isinstance(value, int | float) else None


def factor(node: Node) -> float | None:
    """What an operation multiplies by, if that is one number."""
    if node.op.rstrip("_") in ("mul", "div"):
        numbers = [scalar(value) for value in node.args[:2]]
        number = next((n for n in numbers if n is not None), None)
        if number:
            return number if node.op.startswith("mul") else 1 / number
    return None


def total_scale(path: list[Node], query: Node, key: Node) -> float:
    """The factor between query @ key, as projected, and the scores.

    Positive: what a sign would do, softmax shows.
    """
    scale = math.prod(factor(node) or 1.0 for node in path)
    for node in (query, key):
        while node.named(SHAPES) or factor(node):
            scale *= factor(node) or 1.0
            if not node.inputs:
                break
            node = next((n for n in node.inputs if n.tokens), node.inputs[0])
    return abs(scale)


def is_mask(node: Node) -> bool:
    """Whether an operation changes scores by something that is not one number."""
    return node.named(MASKINGS) and factor(node) is None


def masks_on(path: list[Node]) -> Iterator[tuple[str, float]]:
    """Each masking operation, with the largest value that it fills in or adds."""
    for node in path:
        if not is_mask(node):
            continue
        if node.op.startswith("masked_fill"):
            yield node.op, abs(scalar(node.args[2]) or 0.0)
            continue
        others = [a for a in node.args if isinstance(a, Tensor)]
        made = {place(n.out) for n in node.inputs if n.tokens}
        values = [
            abs_max(t) for t in others if t.is_floating_point() and place(t) not in made
        ]
        if values and max(values) > 0:  # adding nothing but zeros hides nothing
            yield node.op, max(values)
        elif not values:
            yield node.op, 0.0


def abs_max(x: Tensor) -> float:
    """The largest absolute value; infinity counts."""
    return float(x.detach().float().abs().max()) if x.numel() else 0.0
