"""Decoding with a cache: each step is what the whole prefix would give."""

from collections.abc import Iterator

import torch
from torch import Tensor

from annotated_transformer.doctor.forcing import (
    NEAR,
    PROVEN,
    log_probabilities,
    sources,
    training_start,
)
from annotated_transformer.doctor.patient import Cache, Ids
from annotated_transformer.doctor.report import FINDING, SKIPPED, Result
from annotated_transformer.doctor.visit import Visit


def cache(visit: Visit, parts: Cache) -> Iterator[Result]:
    """Step by step with the cache, each logit is that of the whole prefix."""
    src = sources(visit, 1).expand(3, -1).contiguous()
    start = torch.full((3, 1), training_start(visit), device=visit.device)
    tgt = torch.cat([start, visit.words(3, 6)], 1)
    errors = differences(stepped(parts, src, tgt), visit.logits(src, tgt))
    wrong = [step for step, error in enumerate(errors) if not error < NEAR]
    if wrong:
        restarts = wrong[0] > 0 and restarted(visit, parts, src, tgt)
        causes = ["cache_wrong", "cache_positions"]
        yield Result(
            examination="cached decoding, step by step",
            kind=FINDING,
            says=f"cached logits differ from the model's from step {wrong[0] + 1} on, "
            f"by {max(errors):.2g} of their spread"
            + (": each step's position is the first" if restarts else ""),
            measured=f"{max(errors):.2g} standard deviations",
            expected=f"below {NEAR:.3f}",
            causes=causes[::-1] if restarts else causes,
            weight=PROVEN,
        )
    elif parts.reorder:
        yield from reorder(visit, parts, src, tgt)
    else:
        says = "give Cache(reorder=...)"
        yield Result(examination="reordering the cache", kind=SKIPPED, says=says)


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


def differences(cached: Tensor, whole: Tensor) -> list[float]:
    """Each step's largest difference, in standard deviations of the logits."""
    cached, whole = log_probabilities(cached), log_probabilities(whole)
    if cached.shape != whole.shape:
        return [float("inf")] * whole.size(1)
    worst = (cached - whole).abs().amax((0, 2))
    return (worst / whole.std(-1).mean(0)).tolist()


def restarted(visit: Visit, parts: Cache, src: Ids, tgt: Ids) -> bool:
    """Whether a token said again and again gets the same logits at each step.

    Without a position, all keys and values are alike, and so is every layer's output.
    """
    same = tgt[:, 1:2].expand_as(tgt)
    steps = log_probabilities(stepped(parts, src, same))
    whole = log_probabilities(visit.logits(src, same))
    moved, should = (
        float((x - x[:, :1]).abs().max() / x.std()) for x in (steps, whole)
    )
    return moved < NEAR < should


def reorder(visit: Visit, parts: Cache, src: Ids, tgt: Ids) -> Iterator[Result]:
    """Rows exchanged and doubled halfway, as beams do, go on from their new pasts."""
    order, half = torch.tensor([1, 1, 0], device=tgt.device), tgt.size(1) // 2
    cached = stepped(parts, src, tgt, order)[:, half:]
    moved = torch.cat([tgt[order, :half], tgt[:, half:]], 1)
    errors = differences(cached, visit.logits(src, moved)[:, half:])
    if not max(errors) < NEAR:
        stayed = differences(cached, visit.logits(src, tgt)[:, half:])
        ignored = ": they go on from the old ones" if max(stayed) < NEAR else ""
        yield Result(
            examination="reordering the cache",
            kind=FINDING,
            says="after beams change places, cached logits do not follow from their "
            f"new pasts{ignored}",
            measured=f"{max(errors):.2g} standard deviations apart",
            expected=f"below {NEAR:.3f}",
            causes=["cache_not_reordered", "cache_wrong"],
            weight=PROVEN,
        )
