"""The patient in use: its searches, its cache, its tokenizer, its own data."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from annotated_transformer.doctor.cached import cache
from annotated_transformer.doctor.findings import (
    DECODING,
    SYMPTOM,
    finding,
    guarded,
    healthy,
    note,
    skipped,
)
from annotated_transformer.doctor.forcing import (
    NEAR,
    differences,
    log_probabilities,
    sources,
)
from annotated_transformer.doctor.patient import Ids
from annotated_transformer.doctor.report import FINDING, Result
from annotated_transformer.doctor.script import Script, TooLong
from annotated_transformer.doctor.searches import beam, greedy
from annotated_transformer.doctor.theirs import searched, steady, told
from annotated_transformer.doctor.tokens import tokenizer
from annotated_transformer.doctor.visit import Visit

Examination = Callable[[Visit, Any], Iterator[Result]]


def using(visit: Visit) -> Iterator[Result]:
    """All examinations of what is given; each that isn't is skipped in a line."""
    p = visit.patient
    visit.facts["vocab_size"] = p.vocab_size
    parts: list[tuple[str, Any, str, str, Examination]] = [
        ("cache", p.cache, "cache=Cache(start=..., step=...)", "cache_wrong", cache),
        ("greedy search", p.greedy, "greedy=search", "greedy_wrong", greedy),
        ("beam search", p.beam, "beam=search", "beam_wrong", beam),
        ("tokenizer", p.tokenizer, "tokenizer=...", "tokenizer_lossy", tokenizer),
        ("data", p.batch, "batch=(src, tgt)", "vocab_size", data),
    ]
    why = unfit(visit) if any(part for _, part, *_ in parts[:3]) else ""
    for name, part, way, cause, examination in parts:
        if part is None:
            yield skipped(name, f"give {way}")
        elif p.decoder_only and name in ("beam search", "cache"):
            yield skipped(name, "only with an encoder so far")
        elif why and name in ("greedy search", "beam search", "cache"):
            yield skipped(name, why)
        else:
            yield from judged(visit, part, name, cause, examination)


def unfit(visit: Visit) -> str:
    """Why the model's logits are nothing to compare decoding with, or nothing."""
    src = sources(visit, 2)
    ids = (src,) if visit.patient.decoder_only else (src, visit.words(2, 5))
    try:
        with steady(visit), Script(visit, src).played():
            first, second = visit.logits(*ids), visit.logits(*ids)
            begun = visit.logits(*ids[:-1], ids[-1][:, :2])
            with torch.inference_mode():
                visit.patient(*ids)  # by the faster paths of PyTorch's layers
    except Exception as error:
        return f"the model stopped with {told(error)}"
    if first.shape[:2] != ids[-1].shape:
        shape, needed = tuple(first.shape), tuple(ids[-1].shape)
        return f"logits are {shape}, but ids {needed}: make them fit first"
    if not torch.isfinite(first.logsumexp(-1)).all():
        return "logits are not finite: mend that first"
    if (first - second).abs().max() > NEAR * first.std():
        return "logits differ from run to run in eval(): mend that first"
    if begun.shape[1] != 2 or differences(begun, first[:, :2]).max() > 10 * NEAR:
        return "logits change with later tokens: mend that first"
    return ""


def judged(
    visit: Visit, part: Any, name: str, cause: str, examination: Examination
) -> Iterator[Result]:
    """The results; a finding, too, if the reader's own code fails."""
    failed = partial(stopped, name, cause)
    with steady(visit):
        found = list(guarded(examination(visit, part), failed))
    yield from found
    if not any(result.kind == FINDING for result in found):
        yield healthy(name, f"the {name} is right")


def stopped(name: str, cause: str, error: Exception) -> Result:
    """The reader's own code failed where it should decode."""
    says = f"the {name} stopped with {told(error)}"
    return finding(name, says, cause, weight=SYMPTOM)


def data(visit: Visit, batch: tuple[Ids, ...]) -> Iterator[Result]:
    """Ids within the vocabulary, a start and an end; sources that matter."""
    p = visit.patient
    *_, tgt = batch
    outside = list(out_of_range(visit, batch))
    yield from outside
    if not p.decoder_only:
        yield from ends(visit, tgt)
    first = tgt[:, 0].unique().tolist()
    if first != [p.bos] and not p.decoder_only:
        says = f"rows of the batch begin with {first[:5]}; the start token is {p.bos}"
        yield note("data: the start token", says)
    if p.trained and not p.decoder_only and not outside:
        yield from worth_of_source(visit, *batch)
        yield from same_outputs(visit, batch[0][:4])


def out_of_range(visit: Visit, batch: tuple[Ids, ...]) -> Iterator[Result]:
    """Ids that the vocabulary does not have."""
    p = visit.patient
    sizes = [p.src_vocab_size or p.vocab_size, p.vocab_size][-len(batch) :]
    for name, ids, size in zip(("source", "target"), batch, sizes, strict=False):
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= size:
            yield finding(
                "data: ids",
                f"the batch's {name} ids go from {low} to {high}, but the "
                f"vocabulary has {size}",
                "vocab_size",
                measured=f"{low} to {high}",
                expected=f"0 to {size - 1}",
                weight=DECODING,
            )


def ends(visit: Visit, tgt: Ids) -> Iterator[Result]:
    """Each row of targets should end with the end token."""
    eos = visit.patient.eos
    lacking = int((tgt != eos).all(-1).sum())
    if lacking:
        name = "data: the end token"
        says = f"{lacking} of the batch's {len(tgt)} rows have no end token ({eos})"
        numbers = {
            "measured": f"{lacking} of {len(tgt)} rows",
            "expected": "0, but for rows that are cut",
        }
        if 2 * lacking > len(tgt):
            yield finding(name, says, "end_token_untrained", weight=DECODING, **numbers)
        else:
            yield note(name, says, "end_token_untrained", **numbers)


def worth_of_source(visit: Visit, src: Ids, tgt: Ids) -> Iterator[Result]:
    """A trained model's loss, with each row's own source and with another row's."""
    pad = visit.patient.pad
    src, tgt = src.to(visit.device), tgt.to(visit.device)
    if len(src) < 2 or bool((src == src[:1]).all()):
        return
    own, other = (
        float(
            F.nll_loss(
                log_probabilities(visit.logits(s, tgt[:, :-1])).flatten(0, 1),
                tgt[:, 1:].flatten(),
                ignore_index=-100 if pad is None else pad,
            )
        )
        for s in (src, src.roll(1, 0))
    )
    visit.facts["worth_of_source"] = other - own
    if other - own < 0.05:
        yield finding(
            "data: what the source is worth",
            f"another sentence's source costs {other - own:.2f} nats a token",
            "memory_ignored",
            "encoder_detached",
            "padding_mask_missing",
            measured=f"loss {own:.2f} with its own source, {other:.2f} with another",
            expected="more than 0.05 nats apart, in a trained model",
            weight=DECODING,
        )


def same_outputs(visit: Visit, src: Ids) -> Iterator[Result]:
    """A trained model says different things about different sources."""
    src, search = src.to(visit.device), visit.patient.greedy
    if search is None or bool((src == src[:1]).all()):
        return
    try:
        with Script(visit, src).played():
            rows = searched(search, src)
    except TooLong:
        return
    if all(row == rows[0] for row in rows):
        yield finding(
            "data: outputs",
            f"{len(rows)} different sources get one and the same output",
            "memory_ignored",
            "encoder_detached",
            measured="1 output",
            expected=f"{len(rows)} outputs",
            weight=SYMPTOM,
        )
