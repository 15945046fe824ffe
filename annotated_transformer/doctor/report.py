"""What the doctor found: one line a finding, worst first, and all that was measured."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from annotated_transformer.doctor.causes import CAUSES, Cause

FINDING, NOTE, HEALTHY, SKIPPED = "finding", "note", "healthy", "skipped"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One examination: what was done, the number, and what it should be.

    `kind` is finding, note (worth knowing, not a fault), healthy or skipped. `causes`
    are names of `causes.CAUSES`, the likeliest first. `weight` orders findings: what
    explains others comes before them.
    """

    examination: str
    kind: str
    says: str
    measured: str = ""
    expected: str = ""
    causes: Sequence[str] = ()
    weight: float = 0.0


@dataclass
class Report:
    """All results of one examination, and what the pictures are drawn from."""

    results: list[Result]
    facts: dict[str, Any]
    pictures: dict[str, Any] = field(default_factory=dict)

    @property
    def findings(self) -> list[Result]:
        """What is wrong, worst first."""
        found = [result for result in self.results if result.kind == FINDING]
        return sorted(found, key=lambda result: -result.weight)

    @property
    def healthy(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def causes(self) -> list[Cause]:
        """Every likely cause once: each finding's first, worst first, then the rest."""
        rows = [list(finding.causes) for finding in self.findings]
        depth = max(map(len, rows), default=0)
        names = [row[i] for i in range(depth) for row in rows if i < len(row)]
        return [CAUSES[name] for name in dict.fromkeys(names)]
