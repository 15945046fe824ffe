"""The whole examination: every examination that fits, and the patient as before."""

import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from annotated_transformer.doctor.adapters import as_patient
from annotated_transformer.doctor.findings import finding, guarded, healthy, unexamined
from annotated_transformer.doctor.keep import unchanged
from annotated_transformer.doctor.learning import learning
from annotated_transformer.doctor.limits import repeats
from annotated_transformer.doctor.report import Report, Result
from annotated_transformer.doctor.using import using
from annotated_transformer.doctor.visit import Visit
from annotated_transformer.doctor.wiring import STRUCTURAL, Examination, wiring
from annotated_transformer.errors import InputError


def examine(model: Any, vocab_size: int | None = None, **parts: Any) -> Report:
    """Examine a Transformer, and report what is wrong with it, worst first.

    `model` maps (src, tgt_in), or ids alone, to logits (batch, tgt, vocab): a module or
    a function of any framework on PyTorch, or a `Patient`; `parts` are further fields
    of `Patient`, such as `train_step` and `greedy`. Weights, gradients, modes,
    optimizers and random states are as before afterwards. Raises InputError for what
    cannot be examined.
    """
    patient = as_patient(model, vocab_size, **parts)
    began = time.perf_counter()
    visit = Visit(patient)
    check_weights(visit)
    with unchanged(patient), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        results = list(results_of(visit))
    visit.facts["warnings"] = sorted({str(warning.message) for warning in caught})
    visit.facts["seconds"] = round(time.perf_counter() - began, 1)
    if visit.module is not None:
        visit.facts["parameters"] = sum(p.numel() for p in visit.module.parameters())
    return Report(results, visit.facts, visit.pictures)


def check_weights(visit: Visit) -> None:
    """Raise InputError for weights that are not there, or too rough to measure with."""
    for name, weight in (
        visit.module.named_parameters() if visit.module is not None else ()
    ):
        if weight.is_meta:
            raise InputError(f"{name} is on the meta device: load the weights first")
        if weight.dtype not in (torch.float32, torch.float64):
            kind = str(weight.dtype).removeprefix("torch.")
            raise InputError(
                f"{name} is {kind}, whose rounding would hide what is measured: "
                "examine model.float()"
            )


def results_of(visit: Visit) -> Iterator[Result]:
    """The results of all examinations; one that fails is skipped, and says why."""
    arrived = {
        m: m.training
        for m in (visit.module.modules() if visit.module is not None else ())
    }
    if visit.module is not None:
        visit.module.eval()
    first = [*tried(vocabulary, visit), *tried(repeats, visit)]
    yield from first
    causes = {cause for result in first for cause in result.causes}
    if "swapped" in causes:
        return  # nothing else can be trusted
    for examination in STRUCTURAL if "dropout_in_eval" in causes else wiring(visit):
        yield from tried(examination, visit)
    for examination in (learning, using):
        for module, training in arrived.items():
            module.training = training
        yield from tried(examination, visit)


def tried(examination: Examination, visit: Visit) -> Iterator[Result]:
    """An examination's results. Raises InputError if the model cannot be examined."""
    name = examination.__name__.replace("_", " ")
    return guarded(examination(visit), partial(unexamined_or_refused, name))


def unexamined_or_refused(name: str, error: Exception) -> Result:
    """A line in the place of an examination, unless the whole visit must end."""
    if isinstance(error, InputError):
        raise error
    return unexamined(name, error)


def vocabulary(visit: Visit) -> Iterator[Result]:
    """Every id of the vocabulary must be read, and have a logit.

    Raises InputError if the model fails on ordinary ids, too.
    """
    size, tgt = visit.patient.vocab_size, visit.examples[-1]
    try:
        logits = visit.logits(*with_last_words(visit))
    except InputError:
        raise
    except Exception as error:
        check_runs(visit)
        says = f"id {size - 1}, the last of a vocabulary of {size}, fails "
        says += f"({type(error).__name__}: {error})"
        yield wrong_size(says)
        return
    if logits.size(1) != tgt.size(1):
        yield finding(
            "shapes",
            f"logits for {logits.size(1)} positions, where the target has "
            f"{tgt.size(1)} and the source {visit.examples[0].size(1)}",
            "swapped",
            measured=str(logits.size(1)),
            expected=str(tgt.size(1)),
            weight=100.0,
        )
    elif logits.size(2) != size:
        yield wrong_size(f"{logits.size(2)} logits for a vocabulary of {size}")
        visit.patient = replace(visit.patient, vocab_size=min(size, logits.size(2)))
    else:
        yield healthy("vocabulary", f"all {size} ids are read and scored")


def check_runs(visit: Visit) -> None:
    """Go on with half the vocabulary. Raises InputError if that fails, too."""
    half = max(8, visit.patient.vocab_size // 2)
    visit.patient = replace(visit.patient, vocab_size=half)
    del visit.examples
    try:
        visit.logits(*visit.examples)
    except Exception as error:
        raise InputError(
            "the model fails on int64 ids (batch, length): "
            f"{type(error).__name__}: {error}"
        ) from error


def wrong_size(says: str) -> Result:
    """The vocabulary and the model do not fit."""
    return finding("vocabulary", says, "vocab_size", weight=100.0)


def with_last_words(visit: Visit) -> tuple[Any, ...]:
    """The examples, with the last id of each vocabulary in them."""
    patient = visit.patient
    sizes = {"src": patient.src_vocab_size or patient.vocab_size}
    sizes["tgt"] = patient.vocab_size
    named = {side: ids.clone() for side, ids in visit.named(visit.examples).items()}
    for side, ids in named.items():
        ids[0, 1] = sizes[side] - 1
    return tuple(named.values())
