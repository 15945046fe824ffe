"""Experiments too long for a chapter: what is run, and what came out of it.

A study is a list of runs, each with its settings and its seed, and a function that
does one of them. `python -m annotated_transformer.studies NAME` does them all, and
stores each as soon as it ends. Chapters read the results that come with the package:

    study = results("table3")
    study.values("loss", row="base")  # one number for each seed
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import torch
from torch import Tensor

from annotated_transformer.errors import InputError
from annotated_transformer.files import read_json

STORED = Path(__file__).parent / "results"  # what comes with the package

Settings = Mapping[str, Any]  # of one run: a number or a text for each name
Measures = Mapping[str, Any]  # what a run measured: numbers, or lists of them


@dataclass(frozen=True)
class Study:
    """Runs that are compared: `measure` trains and judges one of them.

    A run is decided by its settings alone, one of which is "seed".
    """

    about: str  # one line: which model on which data, and what is stored
    runs: Sequence[Settings]
    measure: Callable[[Settings], Measures]


@dataclass(frozen=True)
class Results:
    """What a study stored. A row holds a run's settings, measures and CPU-seconds."""

    name: str
    about: str
    processor: str
    torch: str
    rows: list[dict[str, Any]] = field(repr=False)

    @property
    def command(self) -> str:
        """What computes these results."""
        return f"python -m annotated_transformer.studies {self.name}"

    @property
    def cpu_minutes(self) -> float:
        """The time of all runs, added up; each had one thread."""
        return sum(row["cpu_seconds"] for row in self.rows) / 60

    def budget(self) -> str:
        """The number of runs, what they took, and where: a line to print."""
        runs, minutes = len(self.rows), self.cpu_minutes
        return f"{runs} runs, {minutes:.0f} CPU-minutes, {self.processor}"

    def where(self, **settings: Any) -> list[dict[str, Any]]:
        """The rows with these settings. Raises InputError if there is none."""
        rows = [row for row in self.rows if settings.items() <= row.items()]
        if not rows:
            raise InputError(f"no run of {self.name} has {settings}: see its `rows`")
        return rows

    def values(self, what: str, **settings: Any) -> Tensor:
        """One measure of all runs with these settings, in the order of the runs."""
        rows = self.where(**settings)
        if missing := [row for row in rows if what not in row]:
            known = ", ".join(missing[0])
            raise InputError(f"{self.name} has no {what!r}: a run has {known}")
        return torch.tensor([row[what] for row in rows])


def names() -> list[str]:
    """All studies of the course."""
    here = iter_modules([str(STORED.parent)])
    modules = (f".{m.name}" for m in here if not m.name.startswith("_"))
    return sorted(n[1:] for n in modules if hasattr(_module(n), "STUDY"))


_module = partial(import_module, package=__name__)


def study(name: str) -> Study:
    """One of them by its name. Raises InputError if there is none."""
    if name not in names():
        raise InputError(f"no study is called {name!r}: there are {', '.join(names())}")
    return _module(f".{name}").STUDY


def results(name: str, folder: Path = STORED) -> Results:
    """What a study stored: by default, what comes with the package."""
    data = read_json(folder / f"{name}.json")
    return Results(name, data["about"], data["processor"], data["torch"], data["runs"])


def rounded(values: Tensor) -> Any:
    """Numbers to store, as lists, with four digits."""
    return values.double().mul(1e4).round().div(1e4).tolist()


def processor() -> str:
    """The name that this machine's processor gives itself."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    named = (line.split(":", 1)[1] for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine()).strip()
