"""What all checks share: how they ask, compare, and say what is wrong."""

import math
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from annotated_transformer.errors import InputError

Function = Callable[..., Any]
SECONDS: float = 10  # for one part of a check; a right answer takes far less than one


class Mistake(Exception):
    """What a check found. Its message is what the learner reads."""


class TimeUp(BaseException):
    """Raised inside an answer that does not end; no `except Exception` stops it."""


class NotCorrect(AssertionError):
    """A graded cell keeps its points. IPython shows the words, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"Not yet: {self}"]


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeUp in the block after so many seconds, where the system can (Unix)."""
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: Any) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def verdict(
    answer: Any, part: str, seed: int, **parts: Callable[[Any, int], None]
) -> str:
    """ "correct", or the first mistake of one part, or of all in their order.

    An error that the answer raises comes through: its traceback says more than we can.
    """
    if part and part not in parts:
        raise InputError(f"there is no part {part!r}: choose from {', '.join(parts)}")
    if answer is None:
        return "not done yet"
    for check in [parts[part]] if part else parts.values():
        try:
            # A warning on stderr is no mistake, but nbgrader would take it for one.
            with (
                time_limit(SECONDS),
                redirect_stderr(sys.stdout),
                warnings.catch_warnings(),
                torch.enable_grad(),
            ):
                warnings.simplefilter("ignore")
                check(answer, seed)
        except Mistake as mistake:
            return str(mistake)
        except NotImplementedError as error:
            if str(error):  # PyTorch's own, say of `&` with floats: that is no stub
                raise
            return "not done yet"
        except TimeUp:
            return f"no answer after {SECONDS} seconds: does your loop end?"
    return "correct"


def grade(found: str, *, fresh: bool = False) -> None:
    """Print "correct", or raise what was found: so a graded cell gives its points.

    `fresh` says that the numbers were other ones than those of the visible check.
    """
    if found != "correct":
        before = "right for the visible check, not for fresh numbers. " if fresh else ""
        stop = "" if found.endswith(("?", ".")) else "."
        after = f"{stop} Is something hard-coded?" if fresh else ""
        raise NotCorrect(before + found + after)
    if not fresh:
        print("correct")


def ask(function: Function, *arguments: Any) -> Any:
    """What the function answers to copies of the arguments. None is no answer."""
    answer = function(*deepcopy(arguments))
    if answer is None or answer is ...:
        raise Mistake("not done yet")
    return answer


def need(ok: Any, message: str) -> None:
    """Raise a Mistake with this message unless ok."""
    if not ok:
        raise Mistake(message)


def need_tensor(
    answer: Any, shape: tuple[int, ...], dtype: torch.dtype | None = None
) -> Tensor:
    """The answer, once it is a tensor of this shape."""
    need(
        not isinstance(answer, tuple),
        "return one tensor: the output only, not the weights",
    )
    need(isinstance(answer, Tensor), f"return a tensor, not a {type(answer).__name__}")
    need(
        answer.shape == shape,
        f"the shape should be {shape}, not {tuple(answer.shape)}",
    )
    need(
        dtype is None or answer.dtype == dtype,
        f"the type should be {dtype}, not {answer.dtype}",
    )
    return answer


def need_number(answer: Any) -> float:
    """The answer as a float, once it is one number."""
    single = isinstance(answer, Tensor) and answer.numel() == 1
    need(
        single or isinstance(answer, int | float),
        f"return one number, not a {type(answer).__name__}",
    )
    return float(answer)


def same(a: Any, b: Any, tolerance: float = 1e-4) -> bool:
    """Equal up to rounding, and of one shape; numbers, tensors, lists, dicts."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape != b.shape:
            return False
        return torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance)
    if isinstance(a, float) or isinstance(b, float):
        return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
    return bool(a == b)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    """Equal up to rounding, and of one shape."""
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), atol=tolerance)


def compare(
    answer: Any,
    right: Any,
    mistakes: Iterable[tuple[Any, str]],
    otherwise: str,
    tolerance: float = 1e-4,
) -> None:
    """Name the mistake whose wrong result the answer is, if it is not right."""
    if same(answer, right, tolerance):
        return
    for wrong, message in mistakes:
        if same(answer, wrong, tolerance):
            raise Mistake(message)
    if isinstance(answer, Tensor) and not answer.isfinite().all():
        raise Mistake("some numbers are NaN or infinite: what was divided, or logged?")
    raise Mistake(otherwise)


def seeded(seed: int) -> torch.Generator:
    """A generator of random numbers of its own."""
    return torch.Generator().manual_seed(seed)


def sizes(seed: int, *first: int) -> list[int]:
    """As many different sizes: these for seed 0, primes in random order for others."""
    if seed == 0:
        return list(first)
    primes = (2, 3, 5, 7, 11, 13)
    order = torch.randperm(len(primes), generator=seeded(seed))
    return [primes[i] for i in order.tolist()][: len(first)]
