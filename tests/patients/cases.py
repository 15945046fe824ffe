"""Patients for the doctor: small Transformers, healthy ones and each with one fault."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from annotated_transformer.doctor.causes import CAUSES
from annotated_transformer.doctor.patient import Patient


@dataclass(frozen=True)
class Case:
    """One patient: what is wrong with it, and how to build it.

    `name` is "style: what was done"; `says` is what is wrong in one plain line, and
    `cause` the key of `CAUSES` that the doctor should name: "" and None if healthy.
    `build` takes its weights from torch's global generator, which the caller seeds.
    `needs` are packages to import; a `slow` one is too large for every test run.
    """

    name: str
    says: str
    cause: str | None
    build: Callable[[], Patient]
    needs: tuple[str, ...] = ()
    slow: bool = False


def styles() -> list[str]:
    """The modules beside this one: each is one way to write a Transformer."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return [file.stem for file in files if file.stem != Path(__file__).stem]


def collect(group: str) -> list[Case]:
    """The HEALTHY, the SICK or the NOTED of all styles, in the order of `CAUSES`.

    What is wrong with the NOTED is worth a note of the doctor's, not a finding.
    """
    modules = [import_module(f"tests.patients.{style}") for style in styles()]
    cases = [case for module in modules for case in getattr(module, group, [])]
    order = [None, *CAUSES]
    return sorted(cases, key=lambda case: order.index(case.cause))
