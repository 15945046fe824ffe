"""Checks of chapter 17, Looking inside: one for each exercise."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from annotated_transformer.checks.common import (
    Answer,
    close,
    exercise,
    seeded,
)
from annotated_transformer.config import TransformerConfig
from annotated_transformer.transformer import Transformer

__all__ = ["check_gates", "check_rollout", "check_share"]


@exercise
def check_share(function: Answer) -> str:
    """`my_share(weights, real, step)`: each head's mean weight at an offset."""
    weights = torch.randn(3, 7, 7, generator=seeded(0)).softmax(-1)
    real = torch.tensor([1, 1, 1, 0, 1, 1, 0]).bool()

    def right(step: int, real: Tensor, weights: Tensor = weights) -> Tensor:
        away = torch.arange(7) - torch.arange(7)[:, None] == step
        return ((weights * away).sum(-1) * real).sum(-1) / real.sum()

    for step in (-1, 2):
        answer = function(weights.clone(), real.clone(), step)
        answer = torch.as_tensor(answer)
        everyone, places = torch.ones(7).bool(), torch.arange(7) + step
        inside = real & (places >= 0) & (places < 7)
        shorter = right(step, real) * real.sum() / inside.sum()
        wrapped = weights[:, torch.arange(7), places % 7] @ real.float() / real.sum()
        diagonal = weights.diagonal(step, -2, -1)
        asked = real[max(step, 0) : 7 + min(step, 0)]  # the columns' places
        for wrong, mistake in (
            (right(-step, real), "other direction: rows ask, columns are looked at"),
            (right(step, real, weights.mT), "you read rows as columns"),
            (right(step, everyone), "padding rows count: leave them out"),
            (right(step, real) * real.sum() / 7, "divide by the real rows only"),
            (right(step, real) * real.sum(), "a sum, not a mean"),
            (right(step, real).mean(), "one number for each head, not one in all"),
            (shorter, "rows without such a key count as 0: divide by all real rows"),
            (
                wrapped,
                "the first and the last token are no neighbors: don't wrap around",
            ),
            (
                diagonal @ asked.float() / real.sum(),
                "`real` is about rows, not columns",
            ),
        ):
            if close(answer, wrong):
                return mistake
        if not close(answer, right(step, real)):
            return f"step {step}: expected {right(step, real)}, not {answer}"
    return "correct"


@exercise
def check_rollout(function: Answer) -> str:
    """`my_rollout(maps)`: (layer, head, query, key) to one (query, key) matrix."""
    maps = (2 * torch.randn(3, 2, 5, 5, generator=seeded(0))).softmax(-1)
    answer = function(maps.clone())
    answer = torch.as_tensor(answer)
    mean, one = maps.mean(1), torch.eye(5)
    half = (mean + one) / 2
    each = (maps + one) / 2
    separate = (each[2] @ each[1] @ each[0]).mean(0)
    if answer.shape != (5, 5):
        return f"one (query, key) matrix is wanted, not {tuple(answer.shape)}"
    for wrong, mistake in (
        (half[0] @ half[1] @ half[2], "wrong order: the last layer stands on the left"),
        (mean[2] @ mean[1] @ mean[0], "where is the residual road? add the identity"),
        (
            8 * half[2] @ half[1] @ half[0],
            "rows add up to 8: divide map + identity by 2",
        ),
        (half[2] * half[1] * half[0], "cell by cell: layers follow by matrix products"),
        (half.mean(0), "layers follow one another: multiply, don't average"),
        (half[2], "only the last layer"),
        (separate, "mean over heads first: heads of different layers mix freely"),
        (
            (half[2] @ half[1] @ half[0]).T,
            "transposed: rows are the output's positions",
        ),
    ):
        if close(answer, wrong):
            return mistake
    if not close(answer, half[2] @ half[1] @ half[0]):
        return "other numbers: mean over heads first, then the identity, then products"
    return "correct"


def small_model() -> Transformer:
    """Random, with the six heads of 32 numbers that the course's model has, in eval.

    Its output embeddings are small, so that some heads help and others harm.
    """
    config = TransformerConfig(
        vocab_size=50, d_model=192, d_ff=32, n_heads=6, n_layers=1, norm="pre"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Transformer(config).eval()
    torch.nn.init.normal_(model.tgt_embeddings.weight, std=0.02, generator=seeded(1))
    return model


@exercise
def check_gates(function: Answer) -> str:
    """`my_gates(attention, loss_of)`: the loss's slope at each head's gate."""
    net = small_model()
    module: Any = net.decoder.layers[0].cross_attention
    heads = module.n_heads
    src, tgt, labels = torch.randint(4, 50, (3, 6, 8), generator=seeded(1))

    def loss_of() -> Tensor:
        return F.cross_entropy(net(src, tgt).mT, labels)

    answer = function.let(module, loss_of)
    if answer is None:
        return "not done yet"
    if module.output._forward_pre_hooks or module.output._forward_hooks:
        return "a hook is left behind: remove it, even if the pass fails"
    answer = torch.as_tensor(answer).detach()
    weight = module.output.weight
    (slope,) = torch.autograd.grad(loss_of(), weight)
    each = (slope * weight).sum(0).detach()  # d loss / d gate of each of 192 inputs
    right = each.view(heads, -1).sum(1)
    if answer.shape != (heads,):
        return f"one number for each of the {heads} heads, not {tuple(answer.shape)}"

    def equal(wrong: Any) -> bool:
        return torch.allclose(answer, wrong, atol=1e-6, rtol=1e-3)

    for wrong, mistake in (
        (
            each.view(-1, heads).sum(0),
            "every sixth number: a head's numbers are neighbors",
        ),
        (right.abs(), "keep the sign: it says whether the head helps"),
        (-right, "the sign: the slope of the loss, not minus the slope"),
        (
            each.view(heads, -1).mean(1),
            "a mean over d_v: one gate scales all 32 numbers",
        ),
        (torch.zeros(heads), "zeros: do the gates take part in the pass?"),
        (right.flip(0), "the heads are in reverse order"),
    ):
        if equal(wrong):
            return mistake
    if any(p.grad is not None for p in net.parameters()):
        return "the model's own .grad is filled: use torch.autograd.grad"
    if not equal(right):
        return f"expected {1000 * right} thousandths, not {1000 * answer}"
    return "correct"
