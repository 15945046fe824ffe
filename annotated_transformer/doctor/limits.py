"""Modes and limits: eval() and train(), blank and long inputs, half precision."""

from collections.abc import Iterator

import torch
from torch import nn

from annotated_transformer.doctor.findings import (
    DEPENDENCE,
    NOTHING,
    STRUCTURE,
    change,
    finding,
    healthy,
    note,
)
from annotated_transformer.doctor.report import Result
from annotated_transformer.doctor.visit import Visit
from annotated_transformer.errors import InputError

HIGH_DROPOUT = 0.6
LONG = 600  # positions tried beyond which no table is looked for


def repeats(visit: Visit) -> Iterator[Result]:
    """Twice the same logits in `eval()`."""
    name = "eval() repeats"
    first, second = visit.logits(*visit.examples), visit.logits(*visit.examples)
    differ = float(change(second, first).nan_to_num(0.0).max())
    if differ > NOTHING:
        says = f"in eval(), two runs differ by {differ:.2g} of the logits' spread"
        yield finding(name, says, "dropout_in_eval", weight=STRUCTURE + 15)
    else:
        yield healthy(name, "in eval(), two runs are equal")


def dropout_happens(visit: Visit) -> Iterator[Result]:
    """Not twice the same in `train()`, where dropout is set."""
    name, module = "dropout happens", visit.module
    drops = [
        m
        for m in (module.modules() if module is not None else ())
        if isinstance(m, nn.Dropout) and m.p > 0
    ]
    if module is None or not drops:
        return
    most = max(drop.p for drop in drops)
    if most > HIGH_DROPOUT:
        says = f"a dropout of {most:g} keeps {1 - most:.0%} of the numbers"
        yield finding(name, says, "dropout_high", weight=STRUCTURE)
        return
    module.train()
    first, second = visit.logits(*visit.examples), visit.logits(*visit.examples)
    module.eval()
    differ = float(change(second, first).max())
    if differ < NOTHING:
        says = f"in train(), two runs are equal, though dropout is set ({drops[0].p})"
        yield finding(name, says, "dropout_never", weight=DEPENDENCE)
    else:
        yield healthy(name, "in train(), two runs differ")


def blank_source(visit: Visit) -> Iterator[Result]:
    """A source of nothing but padding: it may give anything, but no NaN."""
    name, pad = "a blank source", visit.patient.pad
    if pad is None:
        return
    src, tgt = (ids.clone() for ids in visit.examples)
    src[1] = pad
    logits = visit.logits(src, tgt)
    others = logits[[0, 2]]
    if logits.isfinite().all():
        yield healthy(name, "a source that is all padding gives finite logits")
    elif others.isfinite().all():
        yield note(
            name,
            "a source that is all padding gives NaN, as softmax of only -inf "
            "does: leave such rows out",
        )


def long_inputs(visit: Visit) -> Iterator[Result]:
    """How many target tokens the model takes, and how it refuses more."""
    name, longest, refused = "long inputs", 0, LONG + 1
    error: Exception | None = None
    length = LONG
    while refused - longest > 1:
        try:
            finite = takes(visit, length)
        except Exception as failure:
            error, finite = failure, False
        longest, refused = (length, refused) if finite else (longest, length)
        length = (longest + refused) // 2
    if longest == LONG:
        yield healthy(name, f"{LONG} target tokens are taken")
    elif error is None or isinstance(error, InputError):
        why = f": {error}" if error else ", where logits are not finite"
        yield healthy(name, f"{longest} target tokens are taken, not {refused}{why}")
    else:
        says = f"{longest} target tokens are taken; {refused} fail with "
        says += f"{type(error).__name__}: {error}. Check lengths before, with an error "
        yield note(name, says + "of your own")


def takes(visit: Visit, length: int) -> bool:
    """Whether so many target tokens give finite logits."""
    *src, _ = (ids[:1] for ids in visit.examples)
    return bool(visit.logits(*src, visit.words(1, length)).isfinite().all())


def half_precision(visit: Visit) -> Iterator[Result]:
    """Masks and sums must survive bfloat16 and float16."""
    name, device = "half precision", visit.device.type
    before = visit.logits(*visit.examples)
    for kind in (torch.bfloat16, torch.float16):
        short = str(kind).removeprefix("torch.")
        try:
            with torch.autocast(device, kind):
                after = visit.logits(*visit.examples)
        except Exception as error:
            yield note(
                name,
                f"autocast to {short} fails: {type(error).__name__}: {error}. "
                "Mask with -inf or torch.finfo(scores.dtype).min, not with -1e9",
            )
            return
        if before.isfinite().all() and not after.isfinite().all():
            yield note(name, f"autocast to {short} gives NaN or inf")
            return
    yield healthy(name, "autocast to bfloat16 and float16 stays finite")
