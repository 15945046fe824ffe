"""Does LayerScale help a deep thin model (chapter 19)?

An encoder of 20 layers, 32 wide, learns to sort eight digits (chapter 07's task), with
each sub-layer's output times a factor for every channel, or without.

Rows: `norm` (pre, post), `start` (the factors' first value; 0 means: no factors),
`rate`, `seed`; `loss`, the mean over the last 20 steps in nats per digit; `accuracy`,
the share of right digits in 500 new lists; `factors`, at the end, the mean size of each
layer's factors, first layer first (empty without factors).
"""

from itertools import product

import torch
from torch import nn

from annotated_transformer.config import TransformerConfig
from annotated_transformer.lessons import Sorter, seeded, sorting_losses
from annotated_transformer.schedule import cosine
from annotated_transformer.studies import Measures, Settings, Study, rounded
from annotated_transformer.training import adam, set_rate
from annotated_transformer.variations import add_layer_scale

STEPS, WARMUP, LAYERS = 250, 25, 20


def deep_sorter(norm: str, start: float, seed: int, *, layers: int = LAYERS) -> Sorter:
    """A deep thin model; `start` 0 means: without factors."""
    sizes = {"vocab_size": 10, "d_model": 32, "d_ff": 64, "n_heads": 2}
    config = TransformerConfig(**sizes, n_layers=layers, dropout=0.0, norm=norm)  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Sorter(config)
    if start:
        add_layer_scale(model.encoder, 32, start=start)
    return model


def train(model: Sorter, rate: float, seed: int, *, steps: int = STEPS) -> list[float]:
    """Sort 32 lists in each step; return the losses, in nats per digit."""
    optimizer, generator, losses = adam(model), seeded(seed), []
    for step in range(1, steps + 1):
        set_rate(optimizer, cosine(step, peak=rate, warmup=WARMUP, total=steps))
        digits = torch.randint(10, (32, 8), generator=generator)
        loss = sorting_losses(model(digits)[None], digits[None])[0]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def measure(settings: Settings) -> Measures:
    """Train a deep model, and let it sort new lists."""
    model = deep_sorter(settings["norm"], settings["start"], settings["seed"])
    with torch.enable_grad():
        losses = train(model, settings["rate"], settings["seed"])
    digits = torch.randint(10, (500, 8), generator=seeded(999))
    right = model(digits).argmax(-1) == digits.sort(-1)[0]
    sizes = [
        torch.cat([r.factors for r in layer.residuals]).abs().mean()  # type: ignore
        for layer in model.encoder.layers
        if settings["start"]
    ]
    return {
        "loss": sum(losses[-20:]) / 20,
        "accuracy": right.float().mean().item(),
        "factors": rounded(torch.stack(sizes)) if sizes else [],
    }


STUDY = Study(
    about="20 thin layers sort digits, with LayerScale and without: nats per digit",
    runs=[
        {"norm": norm, "start": start, "rate": rate, "seed": seed}
        for norm, start, rate, seed in product(
            ("pre", "post"), (0.0, 0.1, 0.001), (0.001, 0.003), range(3)
        )
    ],
    measure=measure,
)
