"""Examinations of the wiring: what depends on what, masks, gradients, parameters."""

import math
from collections.abc import Callable, Iterator

import torch.nn.functional as F

from annotated_transformer.doctor.dependence import (
    calls_are_independent,
    future_is_hidden,
    padding_is_hidden,
    past_matters,
    positions_matter,
    rows_are_independent,
    source_matters,
)
from annotated_transformer.doctor.evidence import proofs
from annotated_transformer.doctor.findings import (
    DEPENDENCE,
    MASK_CAUSES,
    STRUCTURE,
    finding,
    healthy,
    proven_first,
    skipped,
)
from annotated_transformer.doctor.limits import (
    blank_source,
    dropout_happens,
    half_precision,
    long_inputs,
)
from annotated_transformer.doctor.masks import masks
from annotated_transformer.doctor.parameters import (
    gradients_arrive,
    layers_are_distinct,
    sizes_by_depth,
    ties_are_real,
)
from annotated_transformer.doctor.patient import as_logits
from annotated_transformer.doctor.report import Result
from annotated_transformer.doctor.visit import Visit

Examination = Callable[[Visit], Iterator[Result]]


def wiring(visit: Visit) -> list[Examination]:
    """The examinations that every patient gets, in order."""
    encoder: list[Examination] = [source_matters, padding_is_hidden, blank_source]
    both: list[Examination] = [
        structure,
        starting_loss,
        past_matters,
        positions_matter,
        future_is_hidden,
        rows_are_independent,
        calls_are_independent,
        masks,
        dropout_happens,
        layers_are_distinct,
        ties_are_real,
        gradients_arrive,
        sizes_by_depth,
        long_inputs,
        half_precision,
    ]
    return both if visit.patient.decoder_only else both[:2] + encoder + both[2:]


def structure(visit: Visit) -> Iterator[Result]:
    """What the trace of a forward pass proves."""
    name = "structure"
    trace = visit.trace
    if trace is None or not trace.attentions:
        why = visit.facts.get("not_traced", "no attention was recognized in forward")
        yield skipped(name, why)
        return
    found: dict[str, tuple[str, str, str]] = {}
    for cause, *words in proofs(visit):
        found.setdefault(cause, (words[0], words[1], words[2]))
    for rank, (cause, (says, measured, expected)) in enumerate(found.items()):
        visit.proven[cause] = says
        yield finding(
            name,
            says,
            cause,
            measured=measured,
            expected=expected,
            weight=STRUCTURE - rank + 20 * (cause == "unregistered"),
        )
    if not found:
        n = len(trace.attentions)
        yield healthy(
            name,
            f"{n} attentions: scale, softmax, masks, heads and residuals are right",
        )


def starting_loss(visit: Visit) -> Iterator[Result]:
    """Before training, every token should look about equally likely."""
    name, patient = "loss at the start", visit.patient
    logits = visit.logits(*visit.examples)
    if not logits.isfinite().all():
        share = float((~logits.isfinite()).float().mean())
        says = f"{share:.0%} of the logits on padded sentences are not finite"
        yield proven_first(
            visit,
            name,
            says,
            [*MASK_CAUSES, "init_large"],
            ["mask_inverted", "init_large"],
        )
        return
    labels = visit.words(*logits.shape[:2])
    loss = F.cross_entropy(as_logits(logits).flatten(0, 1), labels.flatten()).item()
    floor = math.log(patient.vocab_size)
    visit.facts |= {"starting_loss": loss, "ln_vocab": floor}
    if patient.trained:
        yield healthy(name, "not judged: the model is trained")
    elif loss > floor + 4:
        says = f"the loss on random words is {loss:.1f}; ln {patient.vocab_size} = "
        says += f"{floor:.1f} is what guessing costs"
        yield finding(name, says, "init_large", weight=DEPENDENCE)
    else:
        yield healthy(
            name,
            "the loss on random words is that of guessing",
            measured=f"{loss:.2f}",
            expected=f"{floor:.2f}",
        )


# What can be told of a model that gives other logits each time.
STRUCTURAL = (structure, layers_are_distinct, ties_are_real, gradients_arrive)
