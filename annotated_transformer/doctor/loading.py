"""A model out of a reader's file, whose code is run."""

import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from annotated_transformer.doctor.report import Report
from annotated_transformer.doctor.theirs import required, told
from annotated_transformer.errors import InputError
from annotated_transformer.terminal import Stopped

NAMES = ("build", "patient", "model")  # what is taken if no name is given


def split_place(place: str) -> tuple[Path, str | None]:
    """`my_model.py:build` as path and name; the name may be left out."""
    path, colon, name = place.rpartition(":")
    if colon and path.endswith(".py"):
        return Path(path), name
    return Path(place), None


def examined(place: str, vocab_size: int | None) -> Report:
    """The report on what a file's name holds; the same each time, for it has a seed."""
    from annotated_transformer.doctor import examine

    torch.manual_seed(0)
    patient = load_patient(place)
    with theirs("the examination stopped with"):
        return examine(patient, vocab_size=vocab_size)


def load_patient(place: str) -> Any:
    """What a file's name holds: a model or a patient, or what its function returns.

    Raises InputError for a missing file or name, and for errors of the reader's code.
    """
    path, name = split_place(place)
    check_python(path)
    print(f"running the code of {path}, which can do anything", file=sys.stderr)
    with theirs(f"{path.name} stopped with"):
        module = imported(path)
    name = chosen(module, path, name)
    part = getattr(module, name)
    if not (inspect.isfunction(part) or inspect.isclass(part)):
        return part
    needed = required(part)
    if not needed:
        with theirs(f"{name}() stopped with"):
            return part()
    if inspect.isclass(part):
        raise InputError(
            f"{name} of {path.name} is a class that needs {', '.join(needed)}: write a "
            f"function that makes a model, def build(): return {name}(...)"
        )
    return part  # a model that is a function of ids


def check_python(path: Path) -> None:
    """Raise InputError if this is no Python file."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is missing"
        raise InputError(f"{path} {what}: give a Python file, as my_model.py:build")
    if path.suffix != ".py":
        raise InputError(f"{path} is no Python file: give one, as my_model.py:build")


@contextmanager
def theirs(what: str) -> Iterator[None]:
    """Errors of the reader's code are told in one line: type, message and line."""
    try:
        yield
    except (Stopped, InputError):
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{what} {told(error)}") from None


def imported(path: Path) -> ModuleType:
    """The file as a module; what lies beside it can be imported, as in a script."""
    path = path.resolve()
    sys.path.insert(0, str(path.parent))
    free = path.stem not in sys.modules and path.stem not in sys.stdlib_module_names
    name = path.stem if free else f"file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be imported: give a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look there
    spec.loader.exec_module(module)
    return module


def chosen(module: ModuleType, path: Path, name: str | None) -> str:
    """The name to take, if the file has it."""
    if name is None:
        name = next((name for name in NAMES if hasattr(module, name)), None)
    if name is not None and hasattr(module, name):
        return name
    own = [
        key
        for key, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and key[0] != "_"
    ]
    has = f"it has {', '.join(own)}" if own else "it defines nothing"
    if name is None:
        raise InputError(
            f"{path} has none of {', '.join(NAMES)}; {has}: name one, as "
            f"{path}:{own[0] if own else 'build'}"
        )
    raise InputError(f"{path} has no {name}; {has}")


@contextmanager
def print_aside() -> Iterator[None]:
    """Whatever is printed, by C or other processes too, goes to stderr."""
    with suppress(AttributeError):  # no stdout at all
        sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        with suppress(AttributeError):
            sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
