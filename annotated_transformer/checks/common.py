"""The one idiom of all checks: ask, need, compare, verdict.

A check asks the answer (`Answer`), says what it needs, compares with what is right and
with what is known to be wrong, and returns a verdict: one line. What every check does
by itself happens here, once: arguments are copied, time is limited, and an answer that
changes what it was given, cuts the gradient or leaves a switch turned is named. An
answer of a kind that a check did not think of is no error of the check's, but named.
"""

import inspect
import math
import numbers
import signal
import sys
import sysconfig
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from copy import deepcopy
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from annotated_transformer.errors import InputError

Function = Callable[..., Any]
SECONDS: float = 10  # for one part of a check; a right answer takes far less than one
NOT_DONE = "not done yet"
OURS = (
    str(Path(__file__).parents[1]),
    *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")),
)


class Mistake(Exception):
    """What a check found. Its message is what the learner reads."""


class Habit(Mistake):
    """Right numbers, found in a bad way: it costs the first part in which it shows."""


class TimeUp(BaseException):
    """Raised inside an answer that does not end; no `except Exception` stops it."""


class NotCorrect(AssertionError):
    """A graded cell keeps its points. IPython shows the words, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"Not yet: {self}"]


# Ask


class Answer:
    """What a learner wrote. To call it is to ask it, politely and with open eyes.

    It gets copies of the arguments. Whoever changes them, returns nothing, or leaves
    PyTorch in another state is told so by a Mistake. The first error that it raises
    comes through, since its traceback says more than we can.
    """

    def __init__(self, function: Function, strict: bool = True):
        self.function, self.asked = function, False
        self.strict = strict  # whether a bad habit counts
        self.failed: tuple[Exception, str] | None = None  # not on the first question
        self.raised: Exception | None = None
        self.kind = type(function).__name__  # of what came last

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """What the answer is for copies of the arguments."""
        given = [copy_of(argument) for argument in arguments]
        before = [state_of(argument) for argument in given]
        answer = self.let(*given, **{k: copy_of(v) for k, v in options.items()})
        if answer is None or answer is ...:
            later = f"it returns None for {described(arguments)}"
            raise Mistake(later if self.asked else NOT_DONE)
        self.asked = True
        for i, (argument, old) in enumerate(zip(given, before, strict=True)):
            self.need_unchanged(i, arguments[i], argument, old)
        return answer

    def let(self, *arguments: Any, **options: Any) -> Any:
        """Call it on the things themselves, which it is meant to change."""
        itself = f"give the check your function itself, not a {self.kind}"
        need(callable(self.function), itself)
        random = any(
            isinstance(x, torch.Generator) for x in [*arguments, *options.values()]
        )
        try:
            with switches_stay(random, self.strict):
                answer = self.function(*arguments, **options)
            self.kind = type(answer).__name__
            return answer
        except NotImplementedError as error:
            if str(error):  # PyTorch's own, say of `&` with floats: that is no stub
                raise
            raise Mistake(NOT_DONE) from None
        except Mistake:
            raise
        except Exception as error:
            self.raised = error
            if self.asked:
                self.failed = (error, described(arguments))
            raise

    def name(self, i: int) -> str:
        """The name of its argument i, where it has one."""
        try:
            return list(inspect.signature(self.function).parameters)[i]
        except (IndexError, TypeError, ValueError):
            return f"argument {i + 1}"

    def need_unchanged(self, i: int, original: Any, argument: Any, old: Any) -> None:
        """Raise a Mistake if the call changed this argument."""
        name, new = self.name(i), state_of(argument)
        if not self.strict:
            return
        if not alike(argument, original):
            raise Habit(
                f"your function changes {name}, which is the caller's: compute a new "
                "one, don't write into it"
            )
        for key, value in new.items():
            if not alike(value, old.get(key)):
                raise Habit(f"your function changes {key} of {name}: {RESTORE[key]}")


RESTORE = {
    "train() or eval()": "put it back as it was",
    "requires_grad": "leave it as it was",
    ".grad": "use torch.autograd.grad, which fills nothing",
    "hooks": "a hook is left behind: remove it, even if the pass fails",
}


@dataclass(frozen=True)
class Fresh:
    """An argument that a call uses up, such as an iterator: made anew for each."""

    make: Callable[[], Any]


def copy_of(value: Any) -> Any:
    """A copy that shares nothing; the thing itself where there is none to be had."""
    if isinstance(value, Fresh):
        return value.make()
    if isinstance(value, Tensor) and not value.is_leaf:
        return value.detach().clone().requires_grad_()
    try:
        return deepcopy(value)
    except (TypeError, RuntimeError, AttributeError):  # a generator or a file
        return value


def state_of(value: Any) -> dict[str, Any]:
    """What should be as before after a call, beside the numbers."""
    if isinstance(value, Tensor):
        return {"requires_grad": value.requires_grad}
    if not isinstance(value, nn.Module):
        return {}
    parameters, modules = list(value.parameters()), list(value.modules())
    return {
        "train() or eval()": [m.training for m in modules],
        "requires_grad": [p.requires_grad for p in parameters],
        ".grad": [None if p.grad is None else p.grad.clone() for p in parameters],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules],
    }


def alike(a: Any, b: Any) -> bool:
    """Whether nothing has changed; things that cannot be compared count as alike."""
    if a is None or b is None:
        return a is b
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if is_float(a) and is_float(b):
            a, b = a.nan_to_num(), b.nan_to_num()
        return a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, nn.Module) and isinstance(b, nn.Module):
        return alike(dict(a.state_dict()), dict(b.state_dict()))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return list(a) == list(b) and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, float) and a != a:  # NaN
        return isinstance(b, float) and b != b
    simple = str | bytes | bool | int | float | set
    return a == b if isinstance(a, simple) else True


def described(arguments: Sequence[Any]) -> str:
    """The arguments in a few words, for a message."""
    words = []
    for value in arguments:
        if isinstance(value, Tensor):
            words.append(
                f"shape {tuple(value.shape)}" if value.dim() else f"{value:.3g}"
            )
        elif isinstance(value, str | int | float | list | tuple | dict):
            text = repr(value)
            words.append(text if len(text) < 60 else text[:57] + "...")
    return ", ".join(words) or "another case"


@contextmanager
def switches_stay(generator: bool, strict: bool = True) -> Iterator[None]:
    """Put back PyTorch's global switches; raise a Mistake if the block turned one."""
    gradients, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    random = torch.get_rng_state()
    try:
        yield
    finally:
        turned, other = torch.is_grad_enabled() != gradients, torch.get_default_dtype()
        torch.set_grad_enabled(gradients)
        torch.set_default_dtype(dtype)
    if not strict:
        return
    if turned:
        raise Habit(
            "gradients are switched off for good: use a with block, torch.no_grad()"
        )
    if other != dtype:
        raise Habit(f"the default type is {other} for good: leave it {dtype}")
    if generator and not torch.equal(torch.get_rng_state(), random):
        torch.set_rng_state(random)
        raise Habit("it draws from the global random state: pass your generator on")


# Need


def need(ok: Any, message: str) -> None:
    """Raise a Mistake with this message unless ok."""
    if not ok:
        raise Mistake(message)


@contextmanager
def errors_mean(message: str, *errors: type[Exception]) -> Iterator[None]:
    """Say what an error of the answer means; `{error}` is what Python says."""
    errors = errors or (RuntimeError, IndexError)
    try:
        yield
    except errors as error:
        raise Mistake(message.format(error=error)) from None


def need_tensor(
    answer: Any, shape: tuple[int, ...], dtype: torch.dtype | None = None
) -> Tensor:
    """The answer, once it is a tensor of this shape."""
    if isinstance(answer, tuple) and answer and isinstance(answer[0], Tensor):
        raise Mistake("return the output only, not the weights")
    need(isinstance(answer, Tensor), f"return a tensor, not a {type(answer).__name__}")
    found = tuple(answer.shape)
    need(found == tuple(shape), f"the shape should be {tuple(shape)}, not {found}")
    need(
        dtype is None or answer.dtype == dtype,
        f"the type should be {dtype}, not {answer.dtype}",
    )
    return answer


def single(value: Any) -> Any:
    """What stands in a tensor or an array of one number; all else as it is."""
    array = isinstance(value, Tensor | np.ndarray | np.generic)
    return value.item() if array and math.prod(value.shape) == 1 else value


def need_number(answer: Any) -> float:
    """The answer as a float, once it is one number of any kind."""
    answer = single(answer)
    need(
        isinstance(answer, numbers.Real),
        f"return one number, not a {type(answer).__name__}",
    )
    return float(answer)


def need_truth(answer: Any) -> bool:
    """The answer as True or False, once it is one of them, of any kind."""
    answer = single(answer)
    need(isinstance(answer, bool), f"return True or False, not {type(answer).__name__}")
    return answer


def need_gradient(
    answer: Answer, reference: Function, *arguments: Any, first: int = 99
) -> None:
    """Send a gradient through the answer, as training would; it must be the right one.

    `reference` is a right function of the same arguments; of them the `first` count.
    """
    if not answer.strict:
        return
    tensors = [i for i, x in enumerate(arguments) if is_float(x) and i < first]
    try:
        found = slopes(answer.let, arguments, tensors)
    except (RuntimeError, TypeError) as error:
        if "numpy" not in str(error).lower():
            raise
        raise Habit(NUMPY) from None
    if found is None:
        raise Habit(f"the numbers are right, but no gradient {CUT}")
    right = slopes(reference, arguments, tensors) or ()
    for i, ours, theirs in zip(tensors, found, right, strict=True):
        name = answer.name(i)
        if theirs is None or not theirs.any():
            continue
        if ours is None:
            raise Habit(f"the numbers are right, but no gradient for {name} {CUT}")
        if not same(ours, theirs, 1e-3):
            raise Habit(
                f"the numbers are right, but the gradient of {name} is not: "
                "is a part of the way cut off by detach, .data or no_grad?"
            )


def slopes(
    function: Function, arguments: Sequence[Any], which: Sequence[int]
) -> Sequence[Tensor | None] | None:
    """The gradients of these arguments, or None if the output has no gradient at all.

    What comes in from above is random, the same each time.
    """
    inputs = [copy_of(x) for x in arguments]
    for i in which:
        inputs[i] = inputs[i].detach().requires_grad_()
    with torch.enable_grad():
        output = function(*inputs)
    if not isinstance(output, Tensor) or not output.requires_grad:
        return None
    upstream = torch.randn(output.shape, generator=seeded(1)).to(output)
    wanted = [inputs[i] for i in which]
    return torch.autograd.grad(output, wanted, upstream, allow_unused=True)


NUMPY = (
    "the numbers are right, but no gradient comes through NumPy: use torch's functions"
)
CUT = "comes through: is there a detach, .data, .item(), numpy or no_grad?"


# Compare


def same(a: Any, b: Any, tolerance: float = 1e-4) -> bool:
    """Equal up to rounding, and of one shape; numbers, tensors, lists, dicts."""
    a, b = plain(a), plain(b)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape != b.shape:
            return False
        return torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance)
    if isinstance(a, float) or isinstance(b, float):
        try:
            return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
        except (TypeError, ValueError):
            return False
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(
            same(x, y, tolerance) for x, y in zip(a, b, strict=True)
        )
    return type(a) is not Tensor and type(b) is not Tensor and bool(a == b)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    """Equal up to rounding by a finer measure, and of one shape."""
    return same(a, b, tolerance)


def plain(value: Any) -> Any:
    """A single number as Python's own, an array as a tensor, all else as it is."""
    if isinstance(value, np.ndarray) and value.ndim:
        return torch.as_tensor(value)
    if isinstance(value, np.generic | np.ndarray) or (
        isinstance(value, Tensor) and value.dim() == 0
    ):
        return value.item()
    return value


def is_float(value: Any) -> bool:
    """A tensor of numbers that could have a gradient."""
    return isinstance(value, Tensor) and value.is_floating_point()


Mistakes = Iterable[tuple[Any, str]]


def compare(
    answer: Any,
    right: Any,
    mistakes: Mistakes = (),
    hint: str = "",
    tolerance: float = 1e-4,
    cases: Sequence[str] = (),
) -> None:
    """Name the mistake whose wrong result the answer is, if it is not right.

    Else show the first number that differs, with its place or its case, and the hint.
    """
    if same(answer, right, tolerance):
        return
    for wrong, message in mistakes:
        if same(answer, wrong, tolerance):
            raise Mistake(message)
    answer, right = plain(answer), plain(right)
    both = is_float(answer) and is_float(right)
    if both and not answer.isfinite().all() and right.isfinite().all():
        guess = hint or "what was divided, or logged?"
        raise Mistake(f"some numbers are NaN or infinite: {guess}")
    found = difference(answer, right, tolerance, cases)
    found += in_proportion(answer, right)
    raise Mistake(found + (f": {hint}" if hint else ""))


def difference(
    answer: Any, right: Any, tolerance: float = 1e-4, cases: Sequence[str] = ()
) -> str:
    """Where the two differ first, and both values, told apart."""
    if isinstance(right, Tensor) and isinstance(answer, Tensor):
        if answer.shape != right.shape:
            return (
                f"the shape should be {tuple(right.shape)}, not {tuple(answer.shape)}"
            )
        off = (answer.double() - right.double()).abs() > tolerance * (
            1 + right.double().abs()
        )
        off |= answer.isnan() != right.isnan()
        index = tuple((off if off.any() else answer != right).nonzero()[0].tolist())
        place = (
            "row {}, column {}".format(*index) if len(index) == 2 else f"{list(index)}"
        )
        return f"{place} {should_be(right[index].item(), answer[index].item())}"
    if isinstance(right, list | tuple) and isinstance(answer, list | tuple):
        if len(answer) != len(right):
            return f"{len(right)} are wanted, not {len(answer)}"
        i = next(
            i for i in range(len(right)) if not same(answer[i], right[i], tolerance)
        )
        which = f"for {cases[i]} it" if cases else f"number {i}, counted from 0,"
        return f"{which} {should_be(right[i], answer[i])}"
    return f"it {should_be(right, answer)}"


def in_proportion(answer: Any, right: Any) -> str:
    """', as all numbers are 2 times ...' if one factor is all that differs."""
    floats = is_float(answer) and is_float(right)
    if not floats or answer.shape != right.shape or right.numel() < 2:
        return ""
    ours, theirs = answer.double().flatten(), right.double().flatten()
    factor = (ours @ theirs / (theirs @ theirs)).item()
    if not ours.any() or abs(factor - 1) < 0.01 or not same(ours / factor, theirs):
        return ""
    return f", as all numbers are {factor:.4g} times what they should be"


def should_be(right: Any, answer: Any) -> str:
    """'should be 0.123, not 0.124', with as many digits as it takes."""
    if isinstance(right, float) and isinstance(answer, numbers.Real):
        for digits in range(4, 17):
            a, b = f"{right:.{digits}g}", f"{float(answer):.{digits}g}"
            if a != b:
                return f"should be {a}, not {b}"
    return f"should be {shown(right)}, not {shown(answer)}"


def shown(value: Any) -> str:
    """A value in a few words: of a tensor its shape, of a long text its beginning."""
    if isinstance(value, Tensor) and value.numel() > 1:
        return f"a tensor of shape {tuple(value.shape)}"
    text = one_line(repr(value))
    return text if len(text) < 80 else text[:77] + "..."


def one_line(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())


# Verdict

Check = Callable[[Answer, int], None]


def verdict(answer: Any, part: str = "", seed: int = 0, **parts: Check) -> str:
    """ "correct", or the first mistake of one part, or of all in their order.

    A bad habit costs the first part in which it shows; the later ones judge without it.
    """
    if part and part not in parts:
        raise InputError(f"there is no part {part!r}: choose from {', '.join(parts)}")
    if answer is None or answer is ...:
        return NOT_DONE
    names = list(parts)
    earlier = [parts[name] for name in names[: names.index(part or names[0])]]
    try:
        for name in [part] if part else names:
            try:
                judge(parts[name], answer, seed)
            except Habit:
                if not any(has_habit(check, answer, seed) for check in earlier):
                    raise
                judge(parts[name], answer, seed, strict=False)
    except Mistake as mistake:
        return str(mistake)
    return "correct"


def judge(check: Check, answer: Function, seed: int, strict: bool = True) -> None:
    """Raise the Mistake that one part of a check finds, within its time."""
    asked = Answer(answer, strict)
    try:
        # A warning on stderr is no mistake, but nbgrader would take it for one.
        with (
            time_limit(SECONDS),
            redirect_stderr(sys.stdout),
            warnings.catch_warnings(),
            torch.enable_grad(),
            torch.random.fork_rng(devices=[]),  # the learner's draws go on undisturbed
        ):
            warnings.simplefilter("ignore")
            check(asked, seed)
    except TimeUp:
        late = f"no answer after {SECONDS} seconds: does your loop end?"
        raise Mistake(late) from None
    except Mistake:
        raise
    except Exception as error:
        if not in_foreign_code(error):
            called, read = "called by the check, it raises", "this answer can't be read"
            what = called if asked.raised is error else f"{read}, a {asked.kind}:"
            why = one_line(f"{type(error).__name__}: {error}")
            raise Mistake(f"{what} {why[:150]}") from error
        if asked.failed is None or asked.failed[0] is not error:
            raise
        what = f"{type(error).__name__}: {str(error)[:80]}"
        where = f"right so far, but for {asked.failed[1]} it raises {what}"
        raise Mistake(where) from None


def in_foreign_code(error: Exception) -> bool:
    """Whether an error went through the learner's code, not ours and PyTorch's alone.

    Then its traceback helps the learner. The check's own lines would not.
    """
    frames = traceback.walk_tb(error.__traceback__)
    files = [frame.f_code.co_filename for frame, _ in frames]
    return any(not file.startswith(OURS) for file in files)


def has_habit(check: Check, answer: Function, seed: int) -> bool:
    """Whether a bad habit is what this part has said, or would say."""
    try:
        judge(check, answer, seed)
    except Exception as error:
        return isinstance(error, Habit)
    return False


def exercise(check: Callable[..., str | None]) -> Callable[..., str]:
    """Make a check that raises Mistakes, or returns them, into one with a verdict.

    Functions among its arguments become Answers; one that is None is not done yet.
    """

    @wraps(check)
    def checked(function: Any, *others: Any) -> str:
        if any(other is None for other in others):
            return NOT_DONE
        more = [Answer(other) if callable(other) else other for other in others]

        def whole(answer: Answer, _: int) -> None:
            found = check(answer, *more) or "correct"
            need(found == "correct", found)

        return verdict(function, whole=whole)

    return checked


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


# Cases


def seeded(seed: int) -> torch.Generator:
    """A generator of random numbers of its own."""
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, the same ones each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sizes(seed: int, *first: int) -> list[int]:
    """As many different sizes: these for seed 0, primes in random order for others."""
    if seed == 0:
        return list(first)
    primes = (2, 3, 5, 7, 11, 13)
    order = torch.randperm(len(primes), generator=seeded(seed))
    return [primes[i] for i in order.tolist()][: len(first)]


def ask(function: Function, *arguments: Any) -> Any:
    """What the function answers to copies of the arguments."""
    return (function if isinstance(function, Answer) else Answer(function))(*arguments)
