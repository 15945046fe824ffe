"""What the doctor found: one line a finding, worst first, and all that was measured."""

import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from annotated_transformer.doctor.causes import CAUSES, Cause
from annotated_transformer.files import whole_or_nothing

FINDING, NOTE, HEALTHY, SKIPPED = "finding", "note", "healthy", "skipped"
COLUMNS = 88


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
        return sorted(self.of_kind(FINDING), key=lambda result: -result.weight)

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

    @property
    def verdict(self) -> str:
        """All of it in a sentence."""
        found, fine = len(self.findings), len(self.of_kind(HEALTHY))
        done = f"{fine} examination{'s' * (fine != 1)}"
        if found > 1:
            return f"Not healthy: {found} findings. Begin with the first."
        if found:
            return "Not healthy: 1 finding."
        return f"Healthy: {done} found nothing wrong." if fine else "Nothing examined."

    def of_kind(self, kind: str) -> list[Result]:
        """The results of one kind, in the order of the examinations."""
        return [result for result in self.results if result.kind == kind]

    def text(self) -> str:
        """The report for a terminal, 88 columns wide: the verdict, then the details."""
        return "\n".join(text_lines(self)) + "\n"

    def __str__(self) -> str:
        return self.text().rstrip("\n")

    def to_json(self) -> str:
        """The report as one JSON object; what is not a finite number is null."""
        value = {
            "verdict": self.verdict,
            "healthy": self.healthy,
            "findings": [asdict(finding) for finding in self.findings],
            "causes": [asdict(cause) for cause in self.causes],
            "results": [asdict(result) for result in self.results],
            "facts": self.facts,
        }
        return json.dumps(jsonable(value), ensure_ascii=False, allow_nan=False)

    def write_html(self, path: Path | str) -> None:
        """Write the report as one page with pictures, which needs no network."""
        from annotated_transformer.doctor.page import page

        data = page(self).encode("utf-8", "backslashreplace")
        with whole_or_nothing(Path(path)) as temporary:
            temporary.write_bytes(data)


def jsonable(value: Any) -> Any:
    """The same out of JSON's own types; what JSON has no word for is null or text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if hasattr(value, "tolist"):  # tensors and arrays
        return jsonable(value.tolist())
    return str(value)


def chapter_title(chapter: str) -> str:
    """How a chapter is called: `03_masks` is "chapter 03, Masks"."""
    number, _, words = chapter.partition("_")
    return f"chapter {number}, {words.replace('_', ' ').capitalize()}"


def sentence(text: str) -> str:
    """The same with a capital, unless it begins with a name of the reader's code."""
    first = text.split(" ", 1)[0]
    return text if set("._[(") & set(first) else text[:1].upper() + text[1:]


def plain(text: Any) -> str:
    """One line without control characters, which could write on a terminal."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def wrapped(text: str, first: str = "", rest: str | None = None) -> list[str]:
    """Lines of at most 88 columns: `first` stands before the first, `rest` the rest."""
    rest = " " * len(first) if rest is None else rest
    return textwrap.wrap(
        plain(text),
        COLUMNS,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
    ) or [first.rstrip()]


def text_lines(report: Report) -> Iterator[str]:
    """The lines of `Report.text`."""
    yield report.verdict
    findings = list(enumerate(report.findings, 1))
    for number, finding in findings:
        yield from wrapped(sentence(finding.says), f"{number:>3}. ")
    for number, finding in findings:
        yield ""
        yield from finding_lines(number, finding)
    notes = report.of_kind(NOTE)
    if notes:
        yield from ("", "Worth knowing")
    for note in notes:
        yield from wrapped(in_full(note), "  - ")
    fine = [result.examination for result in report.of_kind(HEALTHY)]
    if fine:
        yield ""
        yield from wrapped(f"Healthy: {'; '.join(fine)}.", "", "  ")
    skipped = [f"{r.examination} ({r.says})" for r in report.of_kind(SKIPPED)]
    if skipped:
        yield ""
        yield from wrapped(f"Skipped: {'; '.join(skipped)}.", "", "  ")


def in_full(result: Result) -> str:
    """What a note says, with its numbers."""
    numbers = [result.measured and f"measured: {result.measured}"]
    numbers += [result.expected and f"expected: {result.expected}"]
    shown = "; ".join(filter(None, numbers))
    return f"{result.says} ({shown})" if shown else result.says


def finding_lines(number: int, finding: Result) -> Iterator[str]:
    """The details of a finding: the numbers, and each likely cause."""
    yield from wrapped(f"examined: {finding.examination}", f"{number:>3}. ")
    for name, value in ("measured", finding.measured), ("expected", finding.expected):
        if value:
            yield from wrapped(value, f"     {name}  ")
    if finding.causes:
        yield "     likely causes, the likeliest first"
    for cause in (CAUSES[name] for name in finding.causes):
        yield from wrapped(f"{cause.title}.", "     - ")
        yield from wrapped(cause.confirm, "       confirm  ")
        yield from wrapped(chapter_title(cause.chapter), "       read     ")
