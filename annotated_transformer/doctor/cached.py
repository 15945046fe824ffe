"""Decoding with a cache: each step is what the whole prefix would give."""

from collections.abc import Iterator

import torch
from torch import Tensor

from annotated_transformer.doctor.findings import DECODING, finding, skipped
from annotated_transformer.doctor.forcing import (
    NEAR,
    differences,
    sources,
    training_start,
)
from annotated_transformer.doctor.patient import Cache, Ids
from annotated_transformer.doctor.report import Result
from annotated_transformer.doctor.visit import Visit


def cache(visit: Visit, parts: Cache) -> Iterator[Result]:
    """Step by step with the cache, each logit is that of the whole prefix."""
    src = sources(visit, 1).expand(3, -1).contiguous()
    start = torch.full((3, 1), training_start(visit), device=visit.device)
    tgt = torch.cat([start, visit.words(3, 6)], 1)
    found = list(compare_steps(visit, parts, src, tgt, "step by step"))
    if not found and visit.patient.pad is not None:
        padded = sources(visit, 3)
        padded[1, 4:], padded[2, 2:] = visit.patient.pad, visit.patient.pad
        padded[1, 3], padded[2, 1] = visit.patient.eos, visit.patient.eos
        found = list(compare_steps(visit, parts, padded, tgt, "with padded sources"))
    if not found and parts.reorder:
        found = list(reorder(visit, parts, src, tgt))
    if parts.reorder is None:
        says = "give Cache(reorder=...)"
        yield skipped("reordering the cache", says)
    visit.facts["cache_causes"] = [name for result in found for name in result.causes]
    yield from found


def compare_steps(
    visit: Visit, parts: Cache, src: Ids, tgt: Ids, how: str
) -> Iterator[Result]:
    """Cached logits against those of the whole target, and why they may differ."""
    errors = differences(stepped(parts, src, tgt), visit.logits(src, tgt)).tolist()
    wrong = [step for step, error in enumerate(errors) if not error < NEAR]
    if not wrong:
        return
    restarts = restarted(visit, parts, src, tgt) if wrong[0] else ""
    causes = ["cache_wrong", "cache_positions"]
    yield finding(
        f"cached decoding, {how}",
        f"cached logits, {how}, differ from the model's from step {wrong[0] + 1} "
        f"on, by {max(errors):.2g} of their spread{restarts}",
        *(causes[::-1] if restarts else causes),
        measured=f"{max(errors):.2g} standard deviations",
        expected=f"below {NEAR:.3f}",
        weight=DECODING,
    )


def stepped(parts: Cache, src: Ids, tgt: Ids, order: Tensor | None = None) -> Tensor:
    """Logits (rows, tgt, vocab) with the cache, reordered after half of the steps."""
    state, logits = parts.start(src), []
    for step in range(tgt.size(1)):
        if order is not None and parts.reorder and step == tgt.size(1) // 2:
            moved = parts.reorder(state, order)
            state = state if moved is None else moved  # in place
        new, state = parts.step(tgt[:, step], state)
        logits.append(new.reshape(len(tgt), -1).float())
    return torch.stack(logits, 1)


def restarted(visit: Visit, parts: Cache, src: Ids, tgt: Ids) -> str:
    """What a token said again and again tells of the positions: words, or nothing.

    Without a position, all keys and values are alike, and so is every layer's output.
    Where positions are in the scores alone, as in rotary ones, that is always so: then
    only the weights can be wrong where other tokens' logits are.
    """
    same = tgt[:, 1:2].expand_as(tgt)
    cached, whole = stepped(parts, src, same), visit.logits(src, same)
    first = cached[:, :1].expand_as(cached)
    moved, should = differences(cached, first).max(), differences(whole, first).max()
    if moved < NEAR < should:
        return ": each step has the first one's position"
    if should < NEAR and differences(cached, whole).max() < NEAR:
        return ", but not if all tokens are alike: so the positions are wrong"
    return ""


def reorder(visit: Visit, parts: Cache, src: Ids, tgt: Ids) -> Iterator[Result]:
    """Rows exchanged and doubled halfway, as beams do, go on from their new pasts."""
    order, half = torch.tensor([1, 1, 0], device=tgt.device), tgt.size(1) // 2
    cached = stepped(parts, src, tgt, order)[:, half:]
    moved = torch.cat([tgt[order, :half], tgt[:, half:]], 1)
    errors = differences(cached, visit.logits(src, moved)[:, half:]).tolist()
    if not max(errors) < NEAR:
        stayed = differences(cached, visit.logits(src, tgt)[:, half:])
        ignored = ": they go on from the old ones" if stayed.max() < NEAR else ""
        yield finding(
            "reordering the cache",
            "after beams change places, cached logits do not follow from their "
            f"new pasts{ignored}",
            "cache_not_reordered",
            "cache_wrong",
            measured=f"{max(errors):.2g} standard deviations apart",
            expected=f"below {NEAR:.3f}",
            weight=DECODING,
        )
