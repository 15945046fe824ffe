"""Grade wrong answers by the assignments' own cells, and print what each one gets.

    python -m tools.wrong_answers > assignments/wrong_answers.md

`tests/wrong_answers` holds mistakes that students make, each with the points that it
deserves and words that its feedback must contain. Every one runs through the graded
cells, hidden tests included, as nbgrader would run them. Exits with 1 if one of them
gets different points or different feedback.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from annotated_transformer.checks import common

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "assignments" / "source").glob("*/*.ipynb"))


@dataclass(frozen=True)
class Problem:
    """One answer cell of an assignment, what comes before it, and what grades it."""

    assignment: str
    name: str
    title: str
    setup: list[str]
    solution: str
    tests: list[tuple[str, int, str]]  # name, points, code

    @property
    def points(self) -> int:
        """What a correct answer gets from the tests."""
        return sum(points for _, points, _ in self.tests)


@dataclass(frozen=True)
class Wrong:
    """A mistake: the whole answer, or edits of the solution; what it should get."""

    what: str
    change: str | list[tuple[str, str]]
    points: int
    says: str

    def code(self, solution: str) -> str:
        """The answer with the mistake in it."""
        if isinstance(self.change, str):
            return self.change
        for old, new in self.change:
            if old not in solution:
                raise ValueError(f"{self.what}: {old!r} is not in the solution")
            solution = solution.replace(old, new)
        return solution


@dataclass(frozen=True)
class Marks:
    """The points and the feedback that the graded cells gave."""

    points: int
    feedback: str


def settings(cell: NotebookNode) -> dict:
    """What nbgrader stores in a cell."""
    return cell.metadata.get("nbgrader", {})


def problems(path: Path) -> Iterator[Problem]:
    """The problems of a source notebook, in order."""
    cells = nbformat.read(path, as_version=4).cells
    setup: list[str] = []
    title, found = "", None
    for cell in cells:
        noted = settings(cell)
        if cell.cell_type == "markdown":
            if cell.source.startswith("## Problem"):
                title = cell.source.splitlines()[0].removeprefix("## ")
        elif noted.get("solution"):
            if found:
                yield found
            name = noted["grade_id"]
            found = Problem(path.stem, name, title, list(setup), cell.source, [])
        elif noted.get("grade") and found:
            found.tests.append((noted["grade_id"], noted["points"], cell.source))
        else:
            setup.append(cell.source)
    if found:
        yield found


def marks(problem: Problem, answer: str, seconds: float = 10) -> Marks:
    """Run an answer and the cells that grade it, hidden tests included."""
    names: dict = {"__name__": "__main__"}
    points, said = 0, []
    before, common.SECONDS = common.SECONDS, seconds
    try:
        with redirect_stdout(StringIO()):
            for code in problem.setup:
                exec(compile(code, "setup", "exec"), names)
            try:
                exec(compile(answer, "answer", "exec"), names)
            except Exception as error:
                said.append(f"{type(error).__name__}: {error}")
            for name, worth, code in problem.tests:
                try:
                    exec(compile(code, name, "exec"), names)
                    points += worth
                except common.NotCorrect as error:
                    said.append(str(error))
                except Exception as error:
                    said.append(f"{type(error).__name__}: {error}")
    finally:
        common.SECONDS = before
    return Marks(points, " / ".join(dict.fromkeys(said)))


def graded(problem: Problem) -> list[tuple[Wrong, Marks]]:
    """Every wrong answer of a problem, and what it gets."""
    module = import_module(f"tests.wrong_answers.{problem.assignment}")
    rows = []
    for wrong in module.WRONG[problem.name]:
        code = wrong.code(problem.solution)
        loops = "while True" in code
        rows.append((wrong, marks(problem, code, seconds=1 if loops else 10)))
    return rows


def in_a_cell(text: str) -> str:
    """Text that fits a cell of a Markdown table: on one line, with its bars escaped."""
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    """Print the table; say on stderr which answers did not get what they deserve."""
    missed = total = 0
    print("# Wrong answers, and what they get\n")
    print(
        "`python -m tools.wrong_answers > assignments/wrong_answers.md` computes this"
    )
    print("table: each answer runs through the graded cells, hidden tests included.\n")
    for path in SOURCES:
        for problem in problems(path):
            rows = graded(problem)
            print(f"## {problem.title}\n")
            print("| the mistake | points | what the student reads |")
            print("| :-- | --: | :-- |")
            for wrong, got in rows:
                total += 1
                ok = got.points == wrong.points and wrong.says in got.feedback
                if not ok:
                    missed += 1
                    print(
                        f"{problem.name}: {wrong.what}: {got.points} points, not "
                        f"{wrong.points}; wanted {wrong.says!r} in {got.feedback!r}",
                        file=sys.stderr,
                    )
                what = in_a_cell(wrong.what)
                # Nor may an underscore start emphasis.
                said = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", in_a_cell(got.feedback))
                print(f"| {what} | {got.points} of {problem.points} | {said} |")
            print()
    print(f"{total} wrong answers; {total - missed} get the points that they deserve, ")
    print("with feedback that names the mistake.")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
