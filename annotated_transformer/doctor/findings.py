"""How results are written down, what weighs how much, and what a change is."""

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from annotated_transformer.doctor.report import FINDING, HEALTHY, NOTE, SKIPPED, Result
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

# What explains others comes before them: structure explains training, training explains
# decoding, and any of them explains why logits depend on what they should not.
STRUCTURE, TRAINING, DECODING = 80.0, 60.0, 50.0  # proven
DEPENDENCE, SYMPTOM = 40.0, 10.0  # seen from outside: of the wiring, of anything


def change(new: Tensor, old: Tensor) -> Tensor:
    """How much logits have changed, relative to their spread: (batch, tgt)."""
    spread = old.float().std().clamp(min=1e-12)
    return (new - old).abs().amax(-1) / spread


def finding(
    name: str,
    says: str,
    *causes: str,
    weight: float,
    measured: str = "",
    expected: str = "",
) -> Result:
    """Something wrong, with its likely causes, the likeliest first."""
    return Result(
        examination=name,
        kind=FINDING,
        says=says,
        measured=measured,
        expected=expected,
        causes=causes,
        weight=weight,
    )


def proven_first(
    visit: Visit,
    name: str,
    says: str,
    causes: Sequence[str],
    others: Sequence[str],
    *,
    weight: float = DEPENDENCE,
) -> Result:
    """A finding: of `causes`, those that the trace has proven come before `others`."""
    proven = [cause for cause in causes if cause in visit.proven]
    return finding(name, says, *dict.fromkeys([*proven, *others]), weight=weight)


def note(
    name: str, says: str, *causes: str, measured: str = "", expected: str = ""
) -> Result:
    """Something worth knowing, which is not a fault."""
    return Result(
        examination=name,
        kind=NOTE,
        says=says,
        measured=measured,
        expected=expected,
        causes=causes,
    )


def healthy(name: str, says: str, *, measured: str = "", expected: str = "") -> Result:
    """An examination that found nothing wrong."""
    return Result(
        examination=name, kind=HEALTHY, says=says, measured=measured, expected=expected
    )


def skipped(name: str, says: str) -> Result:
    """What was not examined, and why, or what to give."""
    return Result(examination=name, kind=SKIPPED, says=says)


def guarded(
    results: Iterator[Result], failed: Callable[[Exception], Result]
) -> Iterator[Result]:
    """The results, and what `failed` says in the place of those that an error ends."""
    try:
        yield from results
    except Exception as error:  # whatever the reader's code raises
        yield failed(error)


def unexamined(name: str, error: Exception) -> Result:
    """An examination that an error ended."""
    says = f"{name} could not be examined: {type(error).__name__}: {error}"
    return skipped(name, says)


def some(names: Sequence[str]) -> str:
    """The first three names of a list, in words."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
