"""What the examinations have in common: symptoms, and what a change is."""

from collections.abc import Sequence

import torch
from torch import Tensor

from annotated_transformer.doctor.report import FINDING, HEALTHY, Result
from annotated_transformer.doctor.visit import Visit

NOTHING = 1e-5  # a relative change of the logits below it is rounding
SAME = 1e-4  # two ways to compute the same logits agree to this
MASK_CAUSES = (
    "mask_inverted",
    "mask_axis",
    "mask_shifted",
    "mask_after_softmax",
    "mask_tiny",
)
MIXING = ("batch_axis", "softmax_axis", "norm_axis", "heads_mixed")
PROVEN_WEIGHT, SYMPTOM_WEIGHT = 80.0, 40.0


def change(new: Tensor, old: Tensor) -> Tensor:
    """How much logits have changed, relative to their spread: (batch, tgt)."""
    spread = old.float().std().clamp(min=1e-12)
    return (new - old).abs().amax(-1) / spread


def finding(
    visit: Visit, name: str, says: str, causes: Sequence[str], others: Sequence[str]
) -> Result:
    """A symptom: of `causes`, those that the trace has proven come before `others`."""
    proven = [cause for cause in causes if cause in visit.proven]
    order = dict.fromkeys([*proven, *others])
    return Result(
        examination=name,
        kind=FINDING,
        says=says,
        causes=tuple(order),
        weight=SYMPTOM_WEIGHT,
    )


def healthy(name: str, says: str, measured: str = "", expected: str = "") -> Result:
    """An examination that found nothing wrong."""
    return Result(
        examination=name,
        kind=HEALTHY,
        says=says,
        measured=measured,
        expected=expected,
    )


def as_logits(output: Tensor) -> Tensor:
    """Logits for what may be probabilities."""
    sums = output.sum(-1)
    if (output >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        return output.clamp(min=1e-30).log()
    return output
