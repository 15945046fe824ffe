"""Listening to a forward pass: which operations made what from what.

PyTorch reports each operation to a `TorchDispatchMode`, however the model is written.
A trace keeps them as a graph, and finds in it what every Transformer has: attention,
residual connections, norms, and the positions added to the tokens.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SHAPES = set(
    "view _unsafe_view reshape transpose t permute expand unsqueeze squeeze clone "
    "alias slice select split split_with_sizes unbind contiguous detach "
    "_to_copy _scaled_dot_product_flash_attention_for_cpu".split()
)
SCALINGS = {"mul", "mul_", "div", "div_", "neg"}
MASKINGS = set("masked_fill masked_fill_ where add add_ sub mul mul_".split())
PRODUCTS = {"bmm", "baddbmm"}
LINEAR = {"mm", "addmm", "linear"}
SOFTMAX = {"_softmax", "_safe_softmax"}
ACTIVATIONS = set("relu relu_ gelu silu silu_ leaky_relu elu tanh sigmoid".split())
EMBEDDING = {"embedding", "index"}


@dataclass(eq=False)
class Node:
    """One operation, its result, and the sides ("src", "tgt") whose tokens it read."""

    op: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    out: Tensor
    inputs: list["Node"]
    tokens: frozenset[str]
    grad: bool  # whether gradients were recorded
    linears: int = 0  # products with weights before it
    users: list["Node"] = field(default_factory=list)

    def named(self, names: set[str]) -> bool:
        """Whether the operation is one of these."""
        return self.op in names

    def operand(self, index: int) -> Tensor | None:
        """An argument, if it is a tensor."""
        value = self.args[index] if index < len(self.args) else None
        return value if isinstance(value, Tensor) else None


def place(tensor: Tensor) -> tuple[Any, ...]:
    """What identifies a tensor while all of a trace's tensors are alive."""
    return (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))


def composite(func: Any) -> bool:
    """Whether an operation is defined by others, whose gradients give its own."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), "CompositeImplicitAutograd"
    )


class Recorder(TorchDispatchMode):
    """Records each operation on tensors as a `Node`, in order."""

    def __init__(self, **ids: Tensor):
        super().__init__()
        self.ids = ids
        self.nodes: list[Node] = []
        self.latest: dict[tuple[Any, ...], Node] = {}
        self.leaves: dict[tuple[Any, ...], Tensor] = {}  # parameters that were used

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [a for a in tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
        inputs = [self.latest[p] for p in map(place, tensors) if p in self.latest]
        for tensor in tensors:
            if tensor.requires_grad and tensor.is_leaf:
                self.leaves[place(tensor)] = tensor
        if composite(func):  # within another operation only: see its parts instead
            with self:
                return func.decompose(*args, **kwargs)
        name = func.name().removeprefix("aten::").partition(".")[0]
        if name.startswith("_scaled_dot_product"):
            inputs = [self.plain_attention(func, args, kwargs)]
        result = func(*args, **kwargs)
        tokens = frozenset().union(*(node.tokens for node in inputs))
        if name in EMBEDDING:
            tokens |= self.sides(tensors[1:])
        n_linears = max((node.linears for node in inputs), default=0)
        for out in tree_leaves(result):
            if isinstance(out, Tensor):
                node = Node(
                    name,
                    func,
                    args,
                    out,
                    inputs,
                    tokens,
                    torch.is_grad_enabled(),
                    n_linears + (name in LINEAR and bool(tokens)),
                )
                for source in inputs:
                    source.users.append(node)
                self.latest[place(out)] = node
                self.nodes.append(node)
        return result

    def plain_attention(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Node:
        """Compute a fused attention a second time, in the open; the node of its result.

        Needed where a model has chosen a fused kernel itself.
        """
        names = [argument.name for argument in func._schema.arguments]
        given = dict(zip(names, args, strict=False)) | kwargs
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), self:
            out = F.scaled_dot_product_attention(
                given["query"],
                given["key"],
                given["value"],
                given.get("attn_mask", given.get("attn_bias")),
                is_causal=given.get("is_causal", False),
                scale=given.get("scale"),
            )
        return self.latest[place(out)]

    def sides(self, indices: Sequence[Tensor]) -> frozenset[str]:
        """The sides whose ids these are, batch first or not."""
        return frozenset(
            side
            for side, ids in self.ids.items()
            for index in indices
            for candidate in (ids, ids.T)
            if index.numel() == ids.numel()
            and not index.is_floating_point()
            and torch.equal(index.flatten(), candidate.flatten())
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
    scale: float | None  # the factor between query @ key and the scores
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
        rows = axis_after(product, -2, path[-2::-1])
        if rows == (-1 if not turned else -2):
            first, second = second, first
            query, key = first.out.mT, second.out
        else:
            query, key = first.out, second.out.mT
        over_last = softmax.args[1] % softmax.out.dim() == softmax.out.dim() - 1

        def laid(x: Tensor) -> Tensor:
            return matrices(x).mT if turned else matrices(x)

        meets = matrices(used.out)
        return Attention(
            query_side=last_side(first),
            key_side=last_side(second),
            query=query,
            key=key,
            scores=laid(softmax.inputs[0].out),
            weights=laid(softmax.out),
            used=meets if key_axis == -1 else meets.mT,
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


def matrices(x: Tensor) -> Tensor:
    """Scores or weights as (rows, query, key)."""
    return x.detach().reshape(-1, *x.shape[-2:]).float()


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
    """What an operation multiplies by, if that is one number; 1 for shapes."""
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
        yield node.op, max(values, default=0.0)


def abs_max(x: Tensor) -> float:
    """The largest absolute value; infinity counts."""
    return float(x.detach().float().abs().max()) if x.numel() else 0.0


def replay(user: Node, node: Node, labels: Tensor) -> Tensor | None:
    """What a change of shape does to labels in the place of the numbers."""
    if "scaled_dot_product" in user.op:  # its output, or numbers for the gradient
        fits = labels.shape == user.out.shape
        return laid_out(labels, user.out) if fits else None
    where = place(node.out)
    args = [
        labels if isinstance(a, Tensor) and place(a) == where else a for a in user.args
    ]
    moved = user.func(*args)
    if not isinstance(moved, Tensor) or moved.shape != user.out.shape:
        return None
    return laid_out(moved, user.out)


def laid_out(labels: Tensor, like: Tensor) -> Tensor:
    """The labels in memory as that tensor is, so that the same views fit them."""
    if 0 in like.stride():
        return labels.contiguous()
    return labels.new_empty_strided(like.shape, like.stride()).copy_(labels)


def axis_after(node: Node, axis: int, path: Sequence[Node]) -> int | None:
    """Where an axis of a result lies, -1 or -2, after these further operations.

    Along it, and along no other, the numbers' indices on the old axis change.
    """
    size = node.out.size(axis)
    shape = [size if i == axis % node.out.dim() else 1 for i in range(node.out.dim())]
    index = torch.arange(size, device=node.out.device).view(shape)
    labels = laid_out(index.expand(node.out.shape), node.out)
    for step in path:
        if step.named(SHAPES) and len(step.inputs) == 1:
            moved = replay(step, node, labels)
        else:
            moved = labels if labels.shape == step.out.shape else None
        if moved is None:
            return None
        node, labels = step, laid_out(moved, step.out)
    moving = [a for a in (-1, -2) if (labels.diff(dim=a) != 0).any()]
    return moving[0] if len(moving) == 1 else None
