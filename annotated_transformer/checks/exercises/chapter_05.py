"""Checks of chapter 05, Feed-forward, embeddings, softmax: one for each exercise."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from annotated_transformer.checks.common import Answer, exercise
from annotated_transformer.checks.common import close as same
from annotated_transformer.layers import Embeddings

__all__ = ["check_feed_forward", "check_gated", "check_gradient", "check_tie"]


def normal(*shape: Any, seed: Any = 0) -> Any:
    """Normal numbers, the same ones each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def count(module: Any) -> Any:
    """How many numbers a module trains."""
    return sum(p.numel() for p in module.parameters())


def new_embeddings(vocab_size: Any, d_model: Any, *, seed: Any = 0) -> Any:
    """Embeddings of variance 1 / d_model."""
    embeddings = Embeddings(vocab_size, d_model)
    g = torch.Generator().manual_seed(seed)
    nn.init.normal_(embeddings.weight, std=d_model**-0.5, generator=g)
    return embeddings


class Broken(nn.Module):
    """A model that was meant to share one matrix three ways."""

    def __init__(self, vocab_size: Any = 8, d_model: Any = 4) -> None:
        super().__init__()
        self.source = Embeddings(vocab_size, d_model)
        self.target = Embeddings(vocab_size, d_model)
        self.output = nn.Linear(d_model, vocab_size, bias=False)
        for embeddings in (self.source, self.target):
            nn.init.normal_(embeddings.weight, std=d_model**-0.5)
        self.output.weight = self.target.weight  # the output is the target's
        self.target.weight = self.source.weight  # the target is the source's


@exercise
def check_feed_forward(function: Answer) -> str:
    """`my_feed_forward(x, W1, b1, W2, b2)`: Eq. 2 with tensors."""
    x, W1, b1, W2, b2 = (
        normal(*shape, seed=i)
        for i, shape in enumerate(((2, 3, 5), (5, 11), (11,), (11, 5), (5,)))
    )
    try:
        answer = function(x, W1, b1, W2, b2)
    except (RuntimeError, TypeError) as error:
        if "shapes cannot" in str(error) or "size" in str(error):
            return f"the shapes don't fit: W1 first, without a transpose ({error})"
        return f"does your max take each number alone, as clamp does? ({error})"
    if answer.shape != x.shape:
        return f"the output should be as wide as the input, {tuple(x.shape)}"
    right = F.relu(x @ W1 + b1) @ W2 + b2
    for wrong, mistake in (
        ((x @ W1 + b1) @ W2 + b2, "there is no bend: where is max(0, .)?"),
        (F.relu(x @ W1) @ W2 + b2, "is b1 forgotten?"),
        (F.relu(x @ W1 + b1) @ W2, "is b2 forgotten?"),
        (F.relu(x @ W1) @ W2, "both biases are forgotten"),
        ((F.relu(x @ W1) + b1) @ W2 + b2, "b1 comes before the max, not after"),
        (F.relu((x @ W1 + b1) @ W2 + b2), "the max stands between the maps, not last"),
        (F.relu(right), "one max only: outputs may be negative"),
        ((F.relu(x) @ W1 + b1) @ W2 + b2, "the max stands between the maps, not first"),
        (F.relu(x @ W2.T + b1) @ W1.T + b2, "W1 and W2 have changed places"),
        (F.gelu(x @ W1 + b1) @ W2 + b2, "that is GELU; Eq. 2 has max(0, .)"),
        ((x @ W1 + b1).softmax(-1) @ W2 + b2, "no softmax: hidden units don't compete"),
    ):
        if same(answer, wrong):
            return mistake
    return "correct" if same(answer, right) else "other numbers than Eq. 2"


@exercise
def check_gradient(function: Answer) -> str:
    """`my_gradient(ids, upstream, ...)`: the gradient of a look-up."""
    embeddings = new_embeddings(7, 5)
    ids, upstream = torch.tensor([[1, 2, 1], [5, 2, 0]]), normal(2, 3, 5)
    embeddings(ids).backward(upstream)
    right = embeddings.weight.grad
    answer = function(ids, upstream.clone(), 7)
    if answer.shape != right.shape:
        return f"one row for each token of the vocabulary: {tuple(right.shape)}"
    root = math.sqrt(5)
    written_once = torch.zeros(7, 5)
    written_once[ids] = upstream
    uses = torch.bincount(ids.flatten(), minlength=7)[:, None]
    without_padding = right.clone()
    without_padding[0] = 0
    for wrong, mistake in (
        (right / root, "the factor is forgotten: what multiplied the rows going in?"),
        (right / 5, "multiplied going in, so multiplied coming back, not divided"),
        (right * root, "d_model instead of its root"),
        (right / root * 5 / 2, "half of d_model instead of its root"),
        (right / uses.clamp(min=1), "a sum over the uses of a token, not their mean"),
        (without_padding, "token 0 is a row like the others here"),
        (root * written_once, "tokens 1 and 2 occur twice: only one use counts"),
        (written_once, "only one use of a token counts, and the factor is missing"),
    ):
        if same(answer, wrong):
            return mistake
    return "correct" if same(answer, right) else "autograd finds other numbers"


@exercise
def check_tie(function: Answer) -> str:
    """`my_tie(model)`: one matrix for source, target and output."""
    torch.manual_seed(0)
    model: Any = Broken()
    wanted = model.source.weight.detach().clone()
    function.let(model)
    if not isinstance(model.output, nn.Linear):
        return "the output is no linear layer any more: it has to score, not to look up"
    three = [model.source.weight, model.target.weight, model.output.weight]
    different = len({id(p) for p in three})
    places = len({p.data_ptr() for p in three})
    equal = all(torch.equal(p, three[0]) for p in three)
    if different == 2 and three[0] is three[1] and not equal:
        return "not done yet: the output still has the target's first matrix"
    if not all(isinstance(p, nn.Parameter) for p in three):
        return "a matrix is no nn.Parameter any more: the optimizer would not see it"
    if not all(p.requires_grad for p in three):
        return "a matrix gets no gradient any more"
    if not equal:
        return "the three matrices hold different numbers"
    if different > 1 and places > 1:
        return "equal numbers in different places: they drift apart at the first step"
    if different > 1:
        return "one memory, but several Parameters: each collects a gradient of its own"
    if not torch.equal(three[0].detach(), wanted):
        return "shared, but not with the numbers of source"
    return "correct" if count(model) == 32 else f"{count(model)} parameters, not 32"


@exercise
def check_gated(function: Answer, hidden_units: Any) -> str:
    """`my_gated(x, ...)`: a gated layer for the same price."""
    x, gate, up, down = (
        normal(*shape, seed=i)
        for i, shape in enumerate(((2, 3, 5), (5, 7), (5, 7), (7, 5)))
    )
    try:
        answer, hidden = function(x, gate, up, down), hidden_units(2048)
    except RuntimeError as error:
        return f"the shapes don't fit: is a * an @, or an @ a *? ({error})"
    for name, result in (("my_gated", answer), ("my_hidden", hidden)):
        if result is None:
            return f"{name}: not done yet"
    a, b = x @ gate, x @ up
    for wrong, mistake in (
        (F.silu(a) + b, "the two copies are multiplied, not added"),
        (a * F.silu(b), "SiLU is on the gate, not on up"),
        (F.silu(a * b), "SiLU comes before the product"),
        (F.silu(a) * F.silu(b), "only one of the copies goes through SiLU"),
        (a.sigmoid() * b, "that gate is a sigmoid (GLU): SiLU is x * sigmoid(x)"),
        (F.relu(a) * b, "that gate is a ReLU"),
        (a * b, "where is SiLU?"),
        (F.silu(a), "where is the second copy, up?"),
    ):
        if same(answer, wrong @ down):
            return mistake
    if answer.shape != x.shape:
        return f"the output should have shape {tuple(x.shape)}: is down the last step?"
    if not same(answer, (F.silu(a) * b) @ down):
        return "other numbers than silu(x gate) * (x up), narrowed by down"
    if hidden == 2048:
        return "with as many hidden units it costs half as much again: three matrices"
    if hidden == 1024:
        return "half is too few: 3 * h = 2 * d_ff"
    if hidden == 1366:
        return "rounded up: it would cost a little more than Eq. 2"
    if not isinstance(hidden, int):
        return "units are counted in whole numbers: use // or int"
    if hidden != 1365:
        return f"{hidden} units are not the same price"
    if hidden_units(1000) != 666:
        return f"{hidden_units(1000)} for d_ff = 1,000: rounded down it is 666"
    return "correct"
