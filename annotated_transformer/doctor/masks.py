"""Examinations of the reader's mask functions, if they are given."""

from collections.abc import Iterator

import torch
from torch import Tensor

from annotated_transformer.doctor.findings import STRUCTURE, finding, healthy
from annotated_transformer.doctor.report import Result
from annotated_transformer.doctor.visit import Visit

LENGTH = 5
LARGE = 1e3  # a number to add that hides is at least so far below zero


def masks(visit: Visit) -> Iterator[Result]:
    """The causal mask is a triangle, the padding mask lies along the keys."""
    patient = visit.patient
    if patient.causal_mask is not None:
        yield causal(patient.causal_mask(LENGTH))
    if patient.padding_mask is not None and patient.pad is not None:
        ids = visit.words(2, LENGTH)
        ids[0, 3:] = patient.pad
        yield padding(patient.padding_mask(ids), ids != patient.pad)


def shown(mask: Tensor) -> tuple[Tensor, str]:
    """What a mask tells apart, as bool, and what is wrong with its numbers, or "".

    Bool and 0 and 1 may mean "look" or "hide": the model's own examination tells. Other
    numbers are added to scores; those that hide are far below zero.
    """
    if mask.dtype == torch.bool:
        return mask, ""
    values = mask.unique()
    if bool(((values == 0) | (values == 1)).all()):
        return mask.bool(), ""
    if float(values.min()) > -LARGE:
        return mask == mask.max(), f"{float(values.min()):g} does not hide a score"
    return mask > -LARGE, ""


def wrong(name: str, says: str, *causes: str) -> Result:
    """A mask function that is wrong by itself."""
    return finding(name, says, *causes, weight=STRUCTURE + 5)


def causal(mask: Tensor) -> Result:
    """A mask for five positions must part each row at its own position."""
    name = "your causal mask"
    if mask.shape[-2:] != (LENGTH, LENGTH):
        says = (
            f"for length {LENGTH} it has the shape {tuple(mask.shape)}: its last two "
        )
        return wrong(name, says + "axes must be query and key", "mask_axis")
    seen, numbers = shown(mask.reshape(-1, LENGTH, LENGTH)[0])
    if numbers:
        return wrong(name, numbers, "mask_tiny")
    lower = torch.ones(LENGTH, LENGTH, dtype=torch.bool, device=seen.device).tril()
    if torch.equal(seen, lower) or torch.equal(~seen, lower):
        return healthy(name, "position i is told apart from i + 1 on")
    if torch.equal(seen.T, lower) or torch.equal(~seen.T, lower):
        return wrong(name, "row i is told apart before i: it is turned", "mask_axis")
    rows = seen[1].int().tolist()
    says = (
        f"row 1 of {LENGTH} is {rows}; a causal mask tells the first two from the rest"
    )
    return wrong(name, says, "causal_mask_missing", "mask_axis")


def padding(mask: Tensor, real: Tensor) -> Result:
    """A mask for two sentences, the first with two padded tokens at its end."""
    name = "your padding mask"
    rows, length = real.shape
    seen, numbers = shown(mask)
    if numbers:
        return wrong(name, numbers, "mask_tiny")
    if seen.shape[0] != rows or seen.dim() < 2:
        says = f"for ids {tuple(real.shape)} it has the shape {tuple(mask.shape)}"
        return wrong(name, f"{says}: the batch must come first", "mask_axis")
    flat = seen.reshape(rows, -1, seen.size(-1))
    along_keys = flat.size(-1) == length and bool((flat == flat[:, :1]).all())
    if along_keys and (torch.equal(flat[:, 0], real) or torch.equal(~flat[:, 0], real)):
        return healthy(name, "padded keys are told apart, in each row of queries")
    if flat.size(-1) != length or flat[0].all() or not flat[0].any():
        return wrong(name, "it does not tell padding apart", "padding_mask_missing")
    return wrong(name, "it lies along the queries, not the keys", "mask_axis")
