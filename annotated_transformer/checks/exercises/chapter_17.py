"""Checks of chapter 17, Looking inside: one for each exercise."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from annotated_transformer.checks.common import (
    NOT_DONE,
    Answer,
    compare,
    copy_of,
    errors_mean,
    exercise,
    need,
    normal,
    seeded,
    state_of,
)
from annotated_transformer.config import TransformerConfig
from annotated_transformer.transformer import Transformer

__all__ = ["check_gates", "check_off", "check_rollout", "check_share"]


def _numbers(answer: Any) -> Tensor:
    """The answer as a tensor, whatever it holds its numbers in."""
    wanted = "return a tensor of numbers, or a list of them"
    with errors_mean(wanted, TypeError, ValueError, RuntimeError):
        return torch.as_tensor(answer).detach()


def _share(weights: Tensor, real: Tensor, step: int) -> Tensor:
    places = torch.arange(weights.size(-1))
    away = places == places[:, None] + step  # (query, key)
    return ((weights * away).sum(-1) * real).sum(-1) / real.sum()


def _share_mistakes(
    weights: Tensor, real: Tensor, step: int
) -> list[tuple[Tensor, str]]:
    n, right = len(real), _share(weights, real, step)
    everyone, places = torch.ones(n).bool(), torch.arange(n) + step
    inside = real & (places >= 0) & (places < n)
    wrapped = weights[:, torch.arange(n), places % n] @ real.float() / real.sum()
    diagonal = weights.diagonal(step, -2, -1)
    asked = real[max(step, 0) : n + min(step, 0)].float()  # the columns' places
    shorter = "rows without such a key count as 0: divide by all real rows"
    around = "the first and the last token are no neighbors: don't wrap around"
    direction = "other direction: rows ask, columns are looked at"
    return [
        (_share(weights, real, -step), direction),
        (_share(weights.mT, real, step), "you read rows as columns"),
        (_share(weights, everyone, step), "padding rows count: leave them out"),
        (right * real.sum() / n, "divide by the real rows only"),
        (right * real.sum(), "a sum, not a mean"),
        (right.mean(), "one number for each head, not one in all"),
        (right * real.sum() / inside.sum(), shorter),
        (diagonal.mean(-1), f"padding rows count: leave them out; and {shorter}"),
        (wrapped, around),
        (diagonal @ asked / real.sum(), "`real` is about rows, not columns"),
        (diagonal @ asked / asked.sum(), "`real` is about rows, not columns"),
        (100 * right, "a share from 0 to 1, not percent"),
    ]


@exercise
def check_share(function: Answer) -> None:
    """`my_share(weights, real, step)`: each head's mean weight at an offset."""
    real = torch.tensor([1, 1, 1, 0, 1, 1, 0]).bool()
    late = torch.arange(40) > 4  # padding at the front
    for heads, rows, steps in (
        (3, real, (-1, 2, 0, 1, -6)),
        (6, late, (-5, 30)),
        (2, real, (9,)),
        (1, torch.tensor([True]), (0, 1)),
    ):
        weights = normal(heads, len(rows), len(rows)).softmax(-1)
        for step in steps:
            case = f"step {step} of {len(rows)} rows"
            with errors_mean(f"{case}: {{error}}"):
                answer = _numbers(function(weights, rows, step))
            table = _share_mistakes(weights, rows, step) if heads == 3 else ()
            compare(answer, _share(weights, rows, step), table, case)


def _rollout(maps: Tensor) -> Tensor:
    layers = (maps.mean(1) + torch.eye(maps.size(-1))) / 2
    return reduce(torch.matmul, layers.flip(0))


def _rollout_mistakes(maps: Tensor) -> list[tuple[Tensor, str]]:
    mean, one = maps.mean(1), torch.eye(maps.size(-1))
    half, right = (mean + one) / 2, _rollout(maps)
    separate = reduce(torch.matmul, ((maps + one) / 2).flip(0)).mean(0)
    bare = reduce(torch.matmul, mean.flip(0))
    largest = _rollout(maps.amax(1, keepdim=True))
    divide = "rows add up to 8: divide map + identity by 2"
    return [
        (_rollout(maps.flip(0)), "wrong order: the last layer stands on the left"),
        (bare, "where is the skip connection? add the identity"),
        (2 ** len(maps) * right, divide),
        (reduce(torch.mul, half), "cell by cell: layers follow by matrix products"),
        (half.mean(0), "layers follow one another: multiply, don't average"),
        (mean.mean(0), "layers follow one another: multiply, don't average"),
        (half[-1], "only the last layer"),
        (half[0], "only the first layer"),
        (_rollout(maps[1:]), "the first layer is missing"),
        (_rollout(maps[:-1]), "the last layer is missing"),
        (separate, "mean over heads first: heads of different layers mix freely"),
        (largest, "the mean over heads, not the largest weight"),
        (_rollout(maps[:, :1]), "only the first head: take the mean over heads"),
        ((bare + one) / 2, "the identity belongs to each layer, not to the end"),
        (right.mT, "transposed: rows are the output's positions"),
    ]


@exercise
def check_rollout(function: Answer) -> None:
    """`my_rollout(maps)`: (layer, head, query, key) to one (query, key) matrix."""
    for layers, heads, n in ((3, 2, 5), (1, 6, 4), (6, 8, 17), (2, 1, 1)):
        maps = (2 * normal(layers, heads, n, n)).softmax(-1)
        answer, size = _numbers(function(maps)), (n, n)
        one = f"one (query, key) matrix is wanted, not {tuple(answer.shape)}"
        need(answer.shape == size, one)
        hint = "mean over heads first, then the identity, then products"
        table = _rollout_mistakes(maps) if layers == 3 else ()
        case = f"{layers} layers of {heads} heads: {hint}"
        compare(answer, _rollout(maps), table, case, 1e-5)


def small_model(n_heads: int, d_k: int) -> Transformer:
    """Random, in eval; the course's model has six heads of 32 numbers.

    Its output embeddings are small, so that some heads help and others harm.
    """
    config = TransformerConfig(
        vocab_size=50,
        d_model=n_heads * d_k,
        d_ff=32,
        n_heads=n_heads,
        n_layers=1,
        norm="pre",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Transformer(config).eval()
    torch.nn.init.normal_(model.tgt_embeddings.weight, std=0.02, generator=seeded(1))
    return model


def _loss_of(net: Transformer) -> Callable[[], Tensor]:
    src, tgt, labels = torch.randint(4, 50, (3, 6, 8), generator=seeded(1))
    return lambda: F.cross_entropy(net(src, tgt).mT, labels)


@exercise
def check_gates(function: Answer) -> None:
    """`my_gates(attention, loss_of)`: the loss's slope at each head's gate."""
    for n_heads, d_k in ((6, 32), (4, 8)):
        net = small_model(n_heads, d_k)
        module: Any = net.decoder.layers[0].cross_attention
        _need_slopes(function, net, module, _loss_of(net))


def _gate_mistakes(each: Tensor, n_heads: int) -> list[tuple[Tensor, str]]:
    """What comes out by one mistake each, from thousandths of slopes of all inputs."""
    right = each.view(n_heads, -1).sum(1)
    strided = each.view(-1, n_heads).sum(0)
    spread = "a mean over d_v: one gate scales all of a head's numbers"
    scaled = "slopes as they are: don't divide by their sum, length or largest"
    zeros = "zeros: do the gates take part in the pass?"
    return [
        (strided, "every sixth number: a head's numbers are neighbors"),
        (right.abs(), "keep the sign: it says whether the head helps"),
        (-right, "the sign: the slope of the loss, not minus the slope"),
        (each.view(n_heads, -1).mean(1), spread),
        (torch.zeros(n_heads), zeros),
        (right.flip(0), "the heads are in reverse order"),
        *((1000 * right / size, scaled) for size in (right.norm(), right.abs().max())),
        *((1000 * right / size, scaled) for size in (right.sum(), right.abs().sum())),
    ]


def _need_slopes(
    function: Answer, net: Transformer, module: Any, loss_of: Callable[[], Tensor]
) -> None:
    """Raise a Mistake unless the slopes are right and the model is left as it was."""
    twin, before, n_heads = copy_of(net), state_of(net), module.n_heads
    answer = function.let(module, loss_of)
    need(answer is not None and answer is not ..., NOT_DONE)
    function.need_unchanged(0, twin, net, before)
    found = _numbers(answer)
    shape = f"one number for each of the {n_heads} heads, not {tuple(found.shape)}"
    need(found.shape == (n_heads,), shape)
    weight = module.output.weight
    (slope,) = torch.autograd.grad(loss_of(), weight)
    each = 1000 * (slope * weight).sum(0).detach()  # d loss / d gate of each input
    table, right = _gate_mistakes(each, n_heads), each.view(n_heads, -1).sum(1)
    compare(1000 * found, right, table, "in thousandths", 1e-3)


@exercise
def check_off(function: Answer) -> None:
    """`my_off(attention, head)`: the head says nothing; all others are as before."""
    for n_heads, d_k, heads in ((6, 32, (2, 0)), (4, 8, (3,))):
        for head in heads:
            net = small_model(n_heads, d_k)
            module: Any = net.decoder.layers[0].cross_attention
            _need_silence(function, module, head)


def _need_silence(function: Answer, module: Any, head: int) -> None:
    """Raise a Mistake unless the module speaks as it should without the head."""
    whole, n_heads = copy_of(module), module.n_heads
    grads = "weights keep their history: write under torch.no_grad()"
    with errors_mean(f"{{error}} ({grads})", RuntimeError):
        answer = function.let(module, head)
    need(answer is not ..., NOT_DONE)
    x = normal(2, 7, module.output.weight.size(0))
    mask = torch.ones(7, 7).bool()
    with torch.no_grad():
        said = _said(module, x, mask)
        if torch.equal(said, _said(whole, x, mask)):
            need(answer is None, "change the module itself; nothing is returned")
            size = f"{n_heads} heads of {module.d_v} numbers"
            need(n_heads < 6, NOT_DONE)
            need(False, f"for {size} nothing changes: `attention.d_v` knows")
        table = [
            (_said(_silenced(whole, rows, kind), x, mask), what)
            for rows, kind, what in _slips(n_heads, module.d_v, head)
        ]
        right = _said(_silenced(whole, _own(module.d_v, head), "columns"), x, mask)
    compare(said, right, table, f"head {head} of {n_heads}")
    need(module.output.weight.requires_grad, "leave requires_grad as it was")


def _own(d_v: int, head: int) -> slice:
    return slice(head * d_v, (head + 1) * d_v)


def _slips(n_heads: int, d_v: int, head: int) -> list[tuple[slice, str, str]]:
    own = _own(d_v, head)
    return [
        (own, "rows", "rows of W^O are its outputs: a head is heard by its columns"),
        (slice(head, None, n_heads), "columns", "a head's numbers are neighbors"),
        (slice(head, head + 1), "columns", "one column is 1 of d_v numbers of a head"),
        (slice(None), "columns", "all heads are silent: only one should be"),
        (_own(d_v, head - 1), "columns", "the head before it: heads count from 0"),
        (_own(d_v, head + 1), "columns", "the head after it: heads count from 0"),
        (own, "queries", "that is flat: it looks everywhere alike, and still speaks"),
    ]


def _silenced(module: Any, part: slice, kind: str) -> Any:
    """A copy with zeros in columns or rows of W^O, or in rows of W^Q."""
    copy = copy_of(module)
    if kind == "columns":
        copy.output.weight[:, part] = 0
    else:
        matrix = copy.output if kind == "rows" else copy.query_key_value
        matrix.weight[part] = 0
    return copy


def _said(module: Any, x: Tensor, mask: Tensor) -> Tensor:
    said: Tensor = module(x, x, mask)
    return said
