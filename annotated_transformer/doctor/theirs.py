"""The reader's own code: what it gives back, and where it went wrong."""

import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from annotated_transformer.doctor.patient import Ids
from annotated_transformer.doctor.report import plain
from annotated_transformer.doctor.visit import Visit
from annotated_transformer.errors import InputError

OURS = Path(__file__).parents[1]


@contextmanager
def same_modes(visit: Visit) -> Iterator[None]:
    """Each module is in the mode it was in, train() or eval(), afterwards."""
    modules = list(visit.module.modules()) if visit.module is not None else []
    before = [module.training for module in modules]
    try:
        yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.training = training


@contextmanager
def steady(visit: Visit) -> Iterator[None]:
    """No dropout, no gradients; each module's mode is as before afterwards."""
    with same_modes(visit), torch.no_grad():
        if visit.module is not None:
            visit.module.eval()
        yield


def place_of(error: BaseException) -> str:
    """Where in the reader's code an error arose: "line 12 of model.py"."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"line {error.lineno} of {Path(error.filename).name}"
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        path = Path(frame.filename)
        library = {"site-packages", "dist-packages"} & set(path.parts)
        frozen = frame.filename.startswith("<")
        stdlib = path.is_relative_to(Path(traceback.__file__).parent)
        if not (library or frozen or stdlib or path.is_relative_to(OURS)):
            return f"line {frame.lineno} of {path.name}"
    return ""


def told(error: BaseException) -> str:
    """An error in one line: its type, its message, and the reader's line."""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    line = f"{type(error).__name__}: {message or 'no message'}"
    place = place_of(error)
    return plain(line)[:300] + (f" ({place})" if place else "")


def required(part: Callable[..., Any]) -> list[str]:
    """The arguments without a default, by name; none, if they can't be read."""
    try:
        parameters = inspect.signature(part).parameters.values()
    except (TypeError, ValueError):
        return []
    variable = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    return [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty and parameter.kind not in variable
    ]


def rows_of(output: Any, rows: int) -> list[list[int]]:
    """Ids that a search returned, as lists: tensors, lists or an object of sequences.

    Raises InputError if they are no rows of ids, or not as many as sources.
    """
    output = getattr(output, "sequences", output)
    if isinstance(output, tuple) and output and not isinstance(output[0], int):
        output = output[0]  # ids and scores
    if isinstance(output, Tensor):
        output = output.tolist()
    if isinstance(output, list | tuple):
        found = [row.tolist() if isinstance(row, Tensor) else row for row in output]
        if rows == 1 and found and all(isinstance(i, int) for i in found):
            found = [found]
        flat = [
            [int(i) for i in row]
            for row in found
            if isinstance(row, list | tuple) and all(map(is_id, row))
        ]
        if len(flat) == len(found) == rows:
            return flat
    raise InputError(f"it returned no {rows} rows of ids, one for each source")


def is_id(value: Any) -> bool:
    """Whether this is one token's id."""
    return isinstance(value, int) or (isinstance(value, Tensor) and not value.dim())


def searched(search: Callable[[Ids], Any], src: Ids) -> list[list[int]]:
    """A row of ids for each source; one source at a time, if only that works."""
    try:
        return rows_of(search(src), len(src))
    except Exception as first:
        try:
            alone = [rows_of(search(row[None]), 1)[0] for row in src]
        except Exception:
            raise first from None
        return alone
