"""Optimizers compared fairly, and unfairly: each at rates of its own (chapter 19).

Each optimizer gets the same number of learning rates, set beforehand around what is
usual for it; all else is fixed. The seeds `TUNING` choose the rate, by the loss on the
validation split; the seeds `FRESH` report, by the loss on the test split. Fair:

    study = results("optimizers")
    rates = chosen(study)  # by optimizer: sgd, adam, adamw, lamb, muon
    fresh(study, "test", optimizer="lamb", rate=rates["lamb"])  # one for each seed

Unfair: the same of LAMB beside Adam at `UNTUNED`, the rate that PyTorch has for it.
Each row has `validation` and `test`, in nats per token, and `train`, the mean over the
last 20 steps of the smoothed loss. Equal seeds: equal first weights, equal batches.
"""

from collections.abc import Callable
from functools import partial
from itertools import islice, product
from typing import Any

import torch
from torch import Tensor, nn

from annotated_transformer.batches import collate, epochs
from annotated_transformer.config import TransformerConfig
from annotated_transformer.objectives import Objective
from annotated_transformer.optimizers import Lamb, Muon, Together
from annotated_transformer.schedule import cosine
from annotated_transformer.studies import Measures, Results, Settings, Study
from annotated_transformer.studies._short import short_captions
from annotated_transformer.training import set_rate, train_step, validate
from annotated_transformer.transformer import Transformer

BETAS = {"betas": (0.9, 0.98), "eps": 1e-9}  # the paper's (§5.3), for all that has them
STEPS, TOKENS = 200, 500


def split_parameters(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters by kind: queries with keys and values, other matrices, the rest.

    Embeddings and the vectors (biases, gains) are the rest.
    """
    kinds: dict[str, list[nn.Parameter]] = {"stacked": [], "matrices": []}
    kinds |= {"embeddings": [], "vectors": []}
    for name, p in model.named_parameters():
        kind = "vectors" if p.dim() < 2 else "matrices"
        kind = "stacked" if "query_key_value" in name else kind
        kinds["embeddings" if "embeddings" in name else kind].append(p)
    return kinds


def with_decay(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Two groups: the matrices decay, the vectors do not."""
    kinds = split_parameters(model)
    vectors = {"params": kinds.pop("vectors"), "weight_decay": 0.0}
    matrices = [p for kind in kinds.values() for p in kind]
    return [{"params": matrices, "weight_decay": decay}, vectors]


def sgd(model: nn.Module) -> Any:
    """Gradient descent with momentum."""
    return torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)


def adam(model: nn.Module) -> Any:
    """The paper's (§5.3)."""
    return torch.optim.Adam(model.parameters(), lr=0.0, **BETAS)  # type: ignore


def adamw(model: nn.Module) -> Any:
    """Adam that shrinks the matrices beside its step, a tenth of the rate each time."""
    return torch.optim.AdamW(with_decay(model, 0.1), lr=0.0, **BETAS)  # type: ignore


def lamb(model: nn.Module) -> Any:
    """Adam with a trust ratio, and the decay of its paper."""
    return Lamb(with_decay(model, 0.01), lr=0.0, **BETAS)  # type: ignore


def muon(model: nn.Module) -> Any:
    """Orthogonal steps for the hidden matrices, Adam at the same rate for the rest."""
    kinds = split_parameters(model)
    hidden = Muon([
        {"params": kinds["stacked"], "pieces": 3},
        {"params": kinds["matrices"], "pieces": 1},
    ], lr=0.0)  # fmt: skip
    rest = [*kinds["embeddings"], *kinds["vectors"]]
    return Together(hidden, torch.optim.Adam(rest, lr=0.0, **BETAS))  # type: ignore


OPTIMIZERS: dict[str, Callable[[nn.Module], Any]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "lamb": lamb,
    "muon": muon,
}
N_RATES = 6
LOWEST = {"sgd": 0.05, "adam": 0.001, "adamw": 0.001, "lamb": 0.0025, "muon": 0.002}
RATES = {  # each the double of the one before
    name: [lowest * 2**k for k in range(N_RATES)] for name, lowest in LOWEST.items()
}
UNTUNED = 0.001  # PyTorch's own rate for Adam
TUNING, FRESH = (10, 11), (0, 1, 2)  # seeds


def train(
    make: Callable[[nn.Module], Any],
    rate: float,
    seed: int,
    *,
    steps: int = STEPS,
    tokens: int = TOKENS,
    schedule: Callable[..., float] = cosine,
    after_step: Callable[[nn.Module], None] = lambda model: None,
) -> tuple[Transformer, list[float]]:
    """A small model trained with this optimizer, and the loss of each step.

    The rate rises for a tenth of the steps, then follows its schedule; a cosine falls
    to 0. Gradients longer than 1 are clipped. The seed decides the first weights, the
    order of the sentences, and dropout.
    """
    data = short_captions()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Transformer(small(data.sizes))
        objective, optimizer, losses = Objective(model, 0.1), make(model), []
        stream = islice(epochs(data.pairs["train"], tokens, seed=seed), steps)
        for step, (_, chosen) in enumerate(stream, start=1):
            model.train()
            now = schedule(step, peak=rate, warmup=steps // 10, total=steps)
            set_rate(optimizer, now)
            batch = collate(chosen)
            n = batch.n_tokens
            loss = train_step(objective, optimizer, [batch], n_tokens=n, clip=1.0)
            losses.append(loss / n)
            after_step(model)
    return model, losses


def small(sizes: dict[str, int]) -> TransformerConfig:
    """One pre-norm layer in each stack, of width 64."""
    wide = {"d_model": 64, "d_ff": 256, "n_heads": 4, "n_layers": 1}
    return TransformerConfig(**sizes, **wide, norm="pre")  # type: ignore[arg-type]


def measure(settings: Settings) -> Measures:
    """Train once, and measure on what was held out."""
    make = OPTIMIZERS[settings["optimizer"]]
    model, losses = train(make, settings["rate"], settings["seed"])
    pairs, plain = short_captions().pairs, Objective(model, 0.0)
    found = {name: validate(plain, pairs[name], 4000) for name in HELD_OUT}
    return {**found, "train": sum(losses[-20:]) / 20}


def chosen(study: Results) -> dict[str, float]:
    """The rate of each optimizer that is best on the validation split, by TUNING."""

    def loss(name: str, rate: float) -> float:
        rows = study.where(optimizer=name, rate=rate)
        return sum(row["validation"] for row in rows if row["seed"] in TUNING)

    return {name: min(RATES[name], key=partial(loss, name)) for name in OPTIMIZERS}


def fresh(study: Results, what: str, **settings: Any) -> Tensor:
    """A measure of runs with these settings, of the seeds that chose nothing."""
    rows = study.where(**settings)
    return torch.tensor([row[what] for row in rows if row["seed"] in FRESH])


HELD_OUT = ("validation", "test")
STUDY = Study(
    about="a small translator trained by five optimizers at six rates: nats per token",
    runs=[
        {"optimizer": name, "rate": rate, "seed": seed}
        for name in OPTIMIZERS
        for rate, seed in product(RATES[name], (*TUNING, *FRESH))
    ],
    measure=measure,
)
