"""What does an average of the last weights bring (§6.1, chapter 19)?

The small translator of the study `optimizers`, with Adam. After warmup, the rate either
stays where it is or falls to 0. Rows: `schedule` (constant, falling), `seed`; then the
test loss in nats per token of `last`, the last weights; of `plain`, the mean of the
weights after each of the last 30 steps; and of `ema_10` and `ema_30`, exponential
averages with that memory in steps.
"""

from collections.abc import Callable
from copy import deepcopy
from itertools import product
from typing import Any

from torch import Tensor, nn

from annotated_transformer.lessons import mean_weights
from annotated_transformer.objectives import Objective
from annotated_transformer.optimizers import MovingAverage
from annotated_transformer.schedule import cosine
from annotated_transformer.studies import Measures, Settings, Study
from annotated_transformer.studies._short import short_captions
from annotated_transformer.studies.optimizers import adam, small, train
from annotated_transformer.training import validate
from annotated_transformer.transformer import Transformer

STEPS, RATE, LAST, MEMORIES = 250, 0.008, 30, (10, 30)


def constant(step: int, *, peak: float, warmup: int, total: int) -> float:
    """A rate that rises, and then stays."""
    return peak * min(1.0, step / warmup)


class Keeper:
    """Keeps the last weights of a training, and its moving averages."""

    def __init__(self, last: int = LAST, memories: tuple[int, ...] = MEMORIES):
        self.last, self.memories = last, memories
        self.recent: list[dict[str, Tensor]] = []
        self.averages: list[MovingAverage] = []

    def __call__(self, model: nn.Module) -> None:
        """Look at the model after a step."""
        if not self.averages:
            self.averages = [MovingAverage(model, memory) for memory in self.memories]
        for average in self.averages:
            average.update(model)
        self.recent = [*self.recent[1 - self.last :], deepcopy(model.state_dict())]

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """The candidates, by name."""
        return {
            "last": self.recent[-1],
            "plain": mean_weights(self.recent),
            **{f"ema_{a.memory}": a.weights for a in self.averages},
        }


def losses(kept: dict[str, dict[str, Tensor]], split: str = "test") -> dict[str, float]:
    """The loss of each candidate on what was held out."""
    data, found = short_captions(), {}
    model = Transformer(small(data.sizes))
    for name, weights in kept.items():
        model.load_state_dict(weights)
        found[name] = validate(Objective(model, 0.0), data.pairs[split], 4000)
    return found


def measure(settings: Settings) -> Measures:
    """Train, then measure the last weights and their averages."""
    keeper, schedule = Keeper(), SCHEDULES[settings["schedule"]]
    options: dict[str, Any] = {"steps": STEPS, "schedule": schedule}
    train(adam, RATE, settings["seed"], after_step=keeper, **options)
    return losses(keeper.weights())


SCHEDULES: dict[str, Callable[..., float]] = {"constant": constant, "falling": cosine}
STUDY = Study(
    about="averages of the last weights, with a constant and a falling rate: test loss",
    runs=[
        {"schedule": schedule, "seed": seed}
        for schedule, seed in product(SCHEDULES, range(5))
    ],
    measure=measure,
)
