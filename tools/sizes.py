"""How long each notebook is, in words, cells, lines, minutes; `make sync` writes it.

    python -m tools.sizes          # the table, kind by kind

Minutes to read count 200 words and 10 lines of code a minute. Plots (cells whose code
is folded) are left out, and so is all that stands below the last heading, Solutions.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import lanes

WORDS_A_MINUTE, LINES_A_MINUTE = 200, 10
SOLUTIONS = re.compile(r"^#+ Solutions\s*$", re.MULTILINE)
LINK = re.compile(r"!?\[([^]]*)\]\([^)]*\)")
WORK = re.compile(r"^#+ (?:Exercise|Your turn).*\((\d+) minutes\)", re.MULTILINE)
READ = re.compile(r"^\| \*\*Read\*\* \| .* \|$", re.MULTILINE)
RUN = re.compile(r"^\| \*\*Run\*\* \| .* \|$", re.MULTILINE)
SECONDS = "seconds"  # in a notebook's metadata: CPU time of its last run


@dataclass(frozen=True)
class Size:
    """What a reader has to read, and do."""

    words: int
    cells: int
    lines: int
    exercises: int  # minutes
    seconds: int | None

    @property
    def minutes(self) -> int:
        """Minutes to read text and code, plots and solutions left out."""
        return math.ceil(self.words / WORDS_A_MINUTE + self.lines / LINES_A_MINUTE)


def tags(cell: dict[str, Any]) -> set[str]:
    """The tags of a cell."""
    return set(cell["metadata"].get("tags", []))


def before_solutions(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells above the heading Solutions, if there is one."""
    for i, cell in enumerate(cells):
        if cell["cell_type"] == "markdown" and SOLUTIONS.search(text(cell)):
            return cells[:i]
    return cells


def text(cell: dict[str, Any]) -> str:
    """A cell's source as one string, however it is stored."""
    return "".join(cell["source"])


def size(notebook: dict[str, Any]) -> Size:
    """The size of a notebook, given as its JSON."""
    words = cells = lines = exercises = 0
    for cell in before_solutions(notebook["cells"]):
        source = text(cell)
        if cell["cell_type"] == "markdown":
            words += len(LINK.sub(r"\1", source).split())
            exercises += sum(map(int, WORK.findall(source)))
        elif not tags(cell) & {"colab", "solution"}:
            cells += 1
            if "hide-input" not in tags(cell):
                lines += sum(bool(line.strip()) for line in source.splitlines())
    return Size(
        words, cells, lines, exercises, notebook.get("metadata", {}).get(SECONDS)
    )


def with_minutes(frame: str, size: Size) -> str:
    """A notebook's first cell, its reading and running times as they are now."""
    work = f"; the exercises take {size.exercises} more" if size.exercises else ""
    read = f"| **Read** | about {size.minutes} minutes{work} |"
    frame = READ.sub(lambda _: read, frame)
    if size.seconds is None:
        return frame
    seconds = max(10, 10 * math.ceil(size.seconds / 10))
    return RUN.sub(
        lambda _: f"| **Run** | about {seconds} seconds on a laptop |", frame
    )


def table(paths: list[Path]) -> str:
    """One row for each notebook."""
    rows = ["| notebook | words | code cells | lines | minutes | exercises | seconds |"]
    rows += ["| :-- | --: | --: | --: | --: | --: | --: |"]
    for path in paths:
        s = size(json.loads(path.read_text("utf-8")))
        numbers = s.words, s.cells, s.lines, s.minutes, s.exercises, s.seconds or ""
        rows.append(f"| {lanes.name(path)} | {' | '.join(map(str, numbers))} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(lanes.all_notebooks()))
