"""Models side by side that learn to sort digits (chapters 07, 10 and 18)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from annotated_transformer.config import TransformerConfig
from annotated_transformer.errors import InputError
from annotated_transformer.lessons.claims import seeded
from annotated_transformer.transformer import Transformer


class Sorter(nn.Module):
    """An encoder that learns to sort digits: embeddings, positions, stack, logits."""

    def __init__(self, config: TransformerConfig, **changes: str | int):
        super().__init__()
        model = Transformer(replace(config, **changes))  # type: ignore[arg-type]
        self.embeddings, self.positions = model.src_embeddings, model.positions
        self.encoder = model.encoder

    def forward(
        self, digits: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length vocab"]:
        """Logits of the digit at each position of the sorted row."""
        x = self.encoder(self.positions(self.embeddings(digits)), None)
        return F.linear(x, self.embeddings.weight)


class History(NamedTuple):
    """What training side by side leaves behind, a row for each model."""

    losses: Float[Tensor, "model step"]  # nats per digit
    lengths: Float[Tensor, "model step"]  # root mean square of a step, in rates


Stack = dict[str, Tensor]  # the parameters of equal models, one axis more in front


def stack_of(models: Sequence[nn.Module]) -> Stack:
    """The parameters of equal models by name, each with an axis "model" in front.

    Raises InputError for models that differ in their layers or sizes.
    """
    shapes = [{n: p.shape for n, p in model.named_parameters()} for model in models]
    if any(other != shapes[0] for other in shapes):
        raise InputError("models side by side need equal layers of equal sizes")
    return stack_module_state(list(models))[0]


def side_by_side(
    model: nn.Module, weights: Stack, inputs: Int[Tensor, "model batch length"]
) -> Float[Tensor, "model batch length vocab"]:
    """What each model of a stack says of its own inputs, all in one pass.

    `model` lends its code. `vmap` runs it with the weights and inputs of each.
    """

    def one(weights: Stack, inputs: Tensor) -> Tensor:
        return functional_call(model, weights, (inputs,))  # type: ignore[no-any-return]

    with sdpa_kernel(SDPBackend.MATH):  # attention by its formula: vmap can batch that
        return vmap(one)(weights, inputs)  # type: ignore[no-any-return]


def sorting_losses(
    logits: Float[Tensor, "model batch length vocab"],
    digits: Int[Tensor, "model batch length"],
) -> Float[Tensor, " model"]:
    """Each model's cross entropy in nats per digit; the answer is its sorted row."""
    answers = digits.sort(-1)[0]
    losses = F.cross_entropy(logits.movedim(-1, 1), answers, reduction="none")
    return losses.mean((1, 2))


def adam_step(
    weight: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    step: int,
    rate: Tensor,
) -> Tensor:
    """Adam with the paper's settings (§5.3), in place; returns the step in rates."""
    mean.lerp_(gradient, 1 - 0.9)
    square.lerp_(gradient.square(), 1 - 0.98)
    direction = mean / (1 - 0.9**step)
    direction /= (square / (1 - 0.98**step)).sqrt() + 1e-9
    weight -= rate * direction
    return direction


def clip_each(
    gradients: Sequence[Tensor], limits: Float[Tensor, " model"]
) -> list[Tensor]:
    """Gradients of models side by side, each model's total norm cut to its limit.

    A limit of infinity leaves a model's gradients as they are.
    """
    total = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
    factor = (limits / total).clamp(max=1)
    return [g * factor.view(-1, *[1] * (g.dim() - 1)) for g in gradients]


def train_sorters(
    models: Sequence[Sorter],
    rates: Float[Tensor, "model step"],
    seeds: Sequence[int],
    *,
    update: Callable[..., Tensor] = adam_step,
    treat: Callable[[Sequence[Tensor], int], Sequence[Tensor]] | None = None,
) -> History:
    """Train equal models side by side to sort eight digits, each with its own rates.

    Model i reads the lists of `seeds[i]`, 16 a step: equal seeds, equal lists. `update`
    takes what `adam_step` takes; `treat` gets all gradients and the step before it, and
    may clip. The trained weights are written into the models.
    """
    weights, history = stack_of(models), []
    memories = {
        name: (w.new_zeros(w.shape), w.new_zeros(w.shape))
        for name, w in weights.items()
    }
    generators = {seed: seeded(seed) for seed in seeds}
    for step, now in enumerate(rates.T, start=1):
        lists = {
            seed: torch.randint(10, (16, 8), generator=g)
            for seed, g in generators.items()
        }
        digits = torch.stack([lists[seed] for seed in seeds])
        losses = sorting_losses(side_by_side(models[0], weights, digits), digits)
        raw = torch.autograd.grad(losses.sum(), list(weights.values()))
        gradients = treat(raw, step) if treat else raw
        moved = []
        with torch.no_grad():
            for (name, w), gradient in zip(weights.items(), gradients, strict=True):
                rate = now.view(-1, *[1] * (w.dim() - 1))  # each model has its own
                moved.append(
                    update(w, gradient, *memories[name], step, rate).flatten(1)
                )
        lengths = torch.cat(moved, 1).square().mean(1).sqrt()
        history.append(torch.stack([losses.detach(), lengths]))
    _write_back(weights, models)
    return History(*torch.stack(history, -1))


@torch.no_grad()
def _write_back(weights: Stack, models: Sequence[nn.Module]) -> None:
    for i, model in enumerate(models):
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name][i])
