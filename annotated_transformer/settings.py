"""Settings that check themselves: one gate for options, files, and code alike."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from annotated_transformer.errors import InputError

Kind = TypeVar("Kind", bound=type)
Value = TypeVar("Value")

RULES = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

Count = Annotated[int, Field(ge=1, le=10**9)]  # of steps, tokens, files
Width = Annotated[int, Field(ge=1, le=1_000_000)]
Layers = Annotated[int, Field(ge=1, le=1_000)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0, le=1_000)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


@dataclass_transform(kw_only_default=True, frozen_default=True)
def checked(kind: Kind) -> Kind:
    """A frozen dataclass whose values are checked against their types and ranges.

    Values that do not fit raise InputError, which names the first of them.
    """
    made: Any = dataclass(kind, frozen=True, kw_only=True, config=RULES)
    make = made.__init__

    @wraps(make)
    def init(self: Any, *values: Any, **named: Any) -> None:
        told(lambda: make(self, *values, **named))

    made.__init__ = init
    return made


def parsed(kind: Any, text: bytes, path: Path) -> Any:
    """A value of this kind from a file's JSON. Raises InputError if it does not fit."""
    try:
        return told(lambda: TypeAdapter(kind).validate_json(text))
    except InputError as error:
        raise InputError(f"{path}: {error}: restore it or train again") from None


def told(check: Callable[[], Value]) -> Value:
    """What the check returns; what it finds wrong becomes one line."""
    try:
        return check()
    except ValidationError as error:
        raise InputError(one_line(error)) from None


def one_line(error: ValidationError) -> str:
    """The first thing that is wrong, in our words: name, rule, value."""
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):  # of a check over several values
        return str(cause)
    name = ".".join(map(str, first["loc"])) or "it"
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"there is no setting {name!r}"
    if first["type"] in ("missing", "missing_argument"):
        return f"{name} is missing"
    rule = first["msg"].removeprefix("Input ")
    if first["type"] == "json_invalid":
        return f"not JSON ({rule.removeprefix('Invalid JSON: ')})"
    value = repr(first["input"])
    return f"{name} {rule}, not {value if len(value) < 50 else value[:47] + '...'}"
