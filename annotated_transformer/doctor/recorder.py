"""The operations of a forward pass as a graph, however the model is written.

PyTorch reports each operation to a `TorchDispatchMode`.
"""

from collections.abc import Callable, Sequence
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
MASKINGS = set("masked_fill masked_fill_ where add add_ sub mul mul_".split())
PRODUCTS = {"bmm", "baddbmm"}
LINEAR = {"mm", "addmm", "linear", "convolution"}
JOINS = {"cat", "stack", "flip", "roll", "gather", "index", "where", "masked_fill"}
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
    linears: int = 0  # products with weights before it
    users: list["Node"] = field(default_factory=list)

    def named(self, names: set[str]) -> bool:
        """Whether the operation is one of these."""
        return self.op in names


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
        # By place, the sides whose ids an integer tensor holds, moved or joined.
        self.sides = {place(x): frozenset({side}) for side, x in ids.items()}
        self.held = list(ids.values())  # so that no place is used again
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
        if composite(func):  # within another operation only: see its parts instead
            with self:
                return func.decompose(*args, **kwargs)
        tensors = [a for a in tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
        inputs = [self.latest[p] for p in map(place, tensors) if p in self.latest]
        self.leaves |= {place(t): t for t in tensors if t.requires_grad and t.is_leaf}
        name = func.name().removeprefix("aten::").partition(".")[0]
        if name.startswith("_scaled_dot_product"):
            inputs = [self.plain_attention(func, args, kwargs)]
        result = func(*args, **kwargs)
        tokens = frozenset().union(*(node.tokens for node in inputs))
        sides = frozenset().union(*(self.sides.get(place(t), ()) for t in tensors))
        if name in EMBEDDING and tensors[0].is_floating_point():
            tokens |= sides
        linears = max((node.linears for node in inputs), default=0)
        linears += name in LINEAR and bool(tokens)
        for out in tree_leaves(result):
            if isinstance(out, Tensor):
                if sides and name in SHAPES | JOINS and not out.is_floating_point():
                    self.sides[place(out)] = sides
                self.keep(Node(name, func, args, out, inputs, tokens, linears))
        return result

    def keep(self, node: Node) -> None:
        """Add an operation to the graph."""
        for source in node.inputs:
            source.users.append(node)
        self.latest[place(node.out)] = node
        self.nodes.append(node)

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
