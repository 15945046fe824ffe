"""How far and how fast a layer hears, and who remembers pairs (chapter 01)."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from annotated_transformer.attention import fused_attention
from annotated_transformer.lessons.claims import seeded

Layer = Callable[[Tensor], Tensor]


def layers_needed(make: Callable[[int], Layer], x: Float[Tensor, "n d"]) -> int:
    """How many layers it takes until the last of n positions hears the first (§4).

    `make(level)` is the layer of a level, 0 for the lowest. Layers are added until the
    gradient of the last output reaches position 0.
    """
    first = x.clone().requires_grad_()
    top, level = first, 0
    while True:
        top, level = make(level)(top), level + 1
        (gradient,) = torch.autograd.grad(top[-1].sum(), first, retain_graph=True)
        if gradient[0].any():
            return level


def longest_chain(tensor: Tensor) -> int:
    """How many operations had to wait for one another to make a tensor (§4).

    PyTorch keeps a node for each operation, for the gradient. The chain up to a node is
    1 plus the longest one among those it waited for.
    """
    length: dict[Any, int] = {None: 0}
    todo: list[Any] = [tensor.grad_fn] if tensor.grad_fn else []
    while todo:
        node = todo[-1]
        before = [other for other, _ in node.next_functions]
        unknown = [other for other in before if other not in length]
        if unknown:
            todo += unknown  # first find out about those
        else:
            length[todo.pop()] = 1 + max((length[o] for o in before), default=0)
    return length[tensor.grad_fn]


def operations(layer: Layer, *shape: int) -> int:
    """Multiplications, each with its addition, of one pass for an input of a shape.

    Counted in the products and convolutions that PyTorch knows of, on the device
    "meta", where nothing is computed. The layer must be there, too.
    """
    with FlopCounterMode(display=False) as counter:
        layer(torch.empty(*shape, device="meta"))
    return int(counter.get_total_flops()) // 2


NAMES, VALUES = 16, 8
Numbers = Int[Tensor, " batch"]
Pairs = Int[Tensor, "batch pairs"]
Task = Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]


def recall(
    g: torch.Generator, pairs: int, batch: int = 64
) -> tuple[Pairs, Pairs, Numbers, Numbers]:
    """Lists of names, each with a value; the name asked for; and its value.

    The names in a list are all different.
    """
    shuffled = torch.rand(batch, NAMES, generator=g).argsort(1)  # each row: 0 to 15
    names = shuffled[:, :pairs]
    values = torch.randint(VALUES, (batch, pairs), generator=g)
    asked = torch.randint(pairs, (batch, 1), generator=g)  # the position of the pair
    question, answer = names.gather(1, asked), values.gather(1, asked)
    return names, values, question[:, 0], answer[:, 0]


class Recall(nn.Module):
    """Answers a question by attention to the pairs themselves."""

    def __init__(self, d: int):
        super().__init__()
        self.name, self.value = nn.Embedding(NAMES, d), nn.Embedding(VALUES, d)
        self.ask: nn.Module = nn.Linear(d, d, bias=False)
        self.offer = nn.Linear(d, 2 * d, bias=False)
        self.out = nn.Linear(d, VALUES)

    def memory(self, names: Pairs, values: Pairs) -> Float[Tensor, "batch pairs d"]:
        """One vector for each pair."""
        return self.name(names) + self.value(values)  # type: ignore[no-any-return]

    def forward(
        self, names: Pairs, values: Pairs, question: Numbers
    ) -> Float[Tensor, "batch values"]:
        """The question looks at all of the memory."""
        key, value = self.offer(self.memory(names, values)).chunk(2, -1)
        query = self.ask(self.name(question))[:, None]
        return self.out(fused_attention(query, key, value)[:, 0])


class RecallGRU(Recall):
    """Reads the pairs one by one; the question looks at all states."""

    def __init__(self, d: int):
        super().__init__(d)
        self.read = nn.GRU(d, d, batch_first=True)

    def memory(self, names: Pairs, values: Pairs) -> Float[Tensor, "batch pairs d"]:
        """The state after each pair."""
        return self.read(super().memory(names, values))[0]  # type: ignore[no-any-return]


class RecallFixed(RecallGRU):
    """Reads the pairs one by one; the question gets the last state alone."""

    def __init__(self, d: int):
        super().__init__(d)
        del self.offer
        self.ask = nn.GRUCell(d, d)  # one more recurrent step

    def forward(
        self, names: Pairs, values: Pairs, question: Numbers
    ) -> Float[Tensor, "batch values"]:
        """Whatever the answer needs has to be in one vector."""
        state = self.memory(names, values)[:, -1]
        return self.out(self.ask(self.name(question), state))


def train_recall(
    kind: type[Recall],
    d: int,
    seed: int,
    *,
    task: Task = recall,
    steps: int = 300,
    lr: float = 0.01,
) -> Recall:
    """Train on lists of 1 to 8 pairs, 64 lists a step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # decides the first weights
        model, g = kind(d), seeded(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for _ in range(steps):
        pairs = int(torch.randint(1, 9, (), generator=g))
        names, values, question, answer = task(g, pairs)
        loss = F.cross_entropy(model(names, values, question), answer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def recall_accuracy(model: Recall, pairs: int, task: Task = recall) -> float:
    """Right answers to 2,000 new lists of so many pairs, in percent."""
    names, values, question, answer = task(seeded(99), pairs, batch=2000)
    hits = model(names, values, question).argmax(-1) == answer
    return 100 * hits.float().mean().item()
