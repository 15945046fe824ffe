"""Mend a submission before it is graded: cells that were copied, split or unlabeled.

nbgrader knows a cell by the name in its metadata. Whoever copies or splits an answer
has that name twice; some editors drop all metadata. `repaired` gives each name one cell
again where it is clear which, and says in a note what it did.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.preprocessors import NbGraderPreprocessor

HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS\n?", re.DOTALL)
DEFINED = re.compile(r"^(?:def|class)\s+(\w+)|^(\w+)\s*=[^=]", re.MULTILINE)
LABELS = (
    "Your notebook came without the labels of these cells: {}. They were put back. Use "
    "an editor that keeps the metadata of cells, such as JupyterLab."
)
JOINED = (
    "Your answer `{}` stood in {} cells. They were joined: keep it in its one cell."
)
COPIED = "Copies of the cell `{}` were dropped: keep each cell once."
ABSENT = (
    "No answer was found for `{}`, whose cell is gone. Take a new copy of the problem "
    "set, put your answer into that cell, and hand it in again."
)


def named(cell: NotebookNode) -> dict[str, Any]:
    """What nbgrader has stored in a cell; nothing if that is no name."""
    stored = cell.metadata.get("nbgrader")
    whole = isinstance(stored, dict) and isinstance(stored.get("grade_id"), str)
    return dict(stored) if whole else {}


def plain(text: str) -> str:
    """A text without what an editor may change: hidden tests and white space."""
    return " ".join(HIDDEN.sub("", text).split())


def parses(code: str) -> bool:
    """Whether IPython could run the code."""
    try:
        ast.parse(TransformerManager().transform_cell(code))
    except (SyntaxError, ValueError):
        return False
    return True


def definitions(code: str) -> set[str]:
    """The names that the lines at the left margin define."""
    return {a or b for a, b in DEFINED.findall(code)}


class Submission:
    """A submission beside the problem set that it answers."""

    def __init__(self, cells: Iterable[NotebookNode], model: Sequence[NotebookNode]):
        self.model = {named(c)["grade_id"]: c for c in model if named(c)}
        self.order = list(self.model)
        self.given = {plain(cell.source) for cell in model}
        self.notes: list[str] = []
        self.cells = list(cells)
        self.names: list[str | None] = []
        for cell in self.cells:
            name = named(cell).get("grade_id")
            self.names.append(name if name in self.model else None)
            cell.metadata.pop("nbgrader", None)

    def missing(self, solution: bool) -> list[str]:
        """The answers, or the other cells, that no cell is named after."""
        return [
            name
            for name in self.order
            if name not in self.names
            and bool(named(self.model[name])["solution"]) == solution
        ]

    def unnamed(self, kind: str, window: range | None = None) -> list[int]:
        """The cells without a name that hold something of the student's own."""
        return [
            i
            for i in window or range(len(self.cells))
            if self.names[i] is None
            and self.cells[i].cell_type == kind
            and plain(self.cells[i].source) not in self.given | {""}
        ]

    def label(self) -> None:
        """Give cells their names back: by their text, by what they define, by order."""
        before = list(self.names)
        for name in self.missing(solution=False):
            self.label_given(name)
        for name in self.missing(solution=True):
            self.label_by_definitions(name)
        for name in self.missing(solution=True):
            self.label_by_order(name)
        back = [n for n, old in zip(self.names, before, strict=True) if n and not old]
        if back:
            names = dict.fromkeys(f"`{name}`" for name in back)
            self.notes.append(LABELS.format(", ".join(names)))

    def label_given(self, name: str) -> None:
        """A cell of ours has its text, or at least the line that grades."""
        text = self.model[name].source
        grades = re.findall(r"^grade\(.*", HIDDEN.sub("", text), re.MULTILINE)[:1]
        for i, cell in enumerate(self.cells):
            same = plain(cell.source) == plain(text)
            if self.names[i] is None and (
                same or (grades and grades[0] in cell.source)
            ):
                self.names[i] = name
                return

    def label_by_definitions(self, name: str) -> None:
        """An answer defines what no other answer does."""
        own = definitions(self.model[name].source)
        for other in self.order:
            if other != name:
                own -= definitions(self.model[other].source)
        for i in self.unnamed("code"):
            if own & definitions(self.cells[i].source):
                self.names[i] = name

    def label_by_order(self, name: str) -> None:
        """It stands between the right neighbors, where no other answer is missing."""
        window, between = self.window(name)
        kind = self.model[name].cell_type
        rivals = set(between) & set(self.missing(solution=True)) - {name}
        if not any(self.model[rival].cell_type == kind for rival in rivals):
            for i in self.unnamed(kind, window):
                self.names[i] = name

    def window(self, name: str) -> tuple[range, list[str]]:
        """Where a cell belongs: the cells, and the names, between its neighbors."""
        at = self.order.index(name)
        first, last, i, j = 0, len(self.cells), at, at
        while i > 0:
            i -= 1
            if self.order[i] in self.names:
                first = len(self.names) - self.names[::-1].index(self.order[i])
                break
        while j < len(self.order) - 1:
            j += 1
            if self.order[j] in self.names:
                last = self.names.index(self.order[j])
                break
        return range(first, max(first, last)), self.order[i : j + 1]

    def join(self) -> None:
        """Make one cell of all that have the same name."""
        where = defaultdict(list)
        for i, name in enumerate(self.names):
            if name:
                where[name].append(i)
        gone: set[int] = set()
        for name, pieces in where.items():
            pieces = self.completed(pieces)
            if len(pieces) > 1:
                keep = self.place(pieces)
                self.cells[keep].source = self.united(name, pieces)
                gone |= set(pieces) - {keep}
        self.cells = [c for i, c in enumerate(self.cells) if i not in gone]
        self.names = [n for i, n in enumerate(self.names) if i not in gone]

    def completed(self, pieces: list[int]) -> list[int]:
        """With the unnamed cells that follow, where an answer ends in the middle."""
        code = "\n".join(self.cells[i].source for i in pieces)
        if self.cells[pieces[-1]].cell_type != "code" or parses(code):
            return pieces
        more = list(pieces)
        for i in range(pieces[-1] + 1, len(self.cells)):
            if i not in self.unnamed("code"):
                break
            more.append(i)
            code += "\n" + self.cells[i].source
            if parses(code):
                return more
        return pieces

    def place(self, pieces: list[int]) -> int:
        """Which of the cells stays: the last, but before the tests of the first."""
        between = set(self.names[pieces[0] : pieces[-1]]) - {
            None,
            self.names[pieces[0]],
        }
        return pieces[0] if between else pieces[-1]

    def united(self, name: str, pieces: list[int]) -> str:
        """The text of all pieces, each once, without empty ones and broken copies."""
        empty = {"", plain(self.model[name].source)}
        texts = [self.cells[i].source for i in pieces]
        kept = list({plain(t): t for t in texts if plain(t) not in empty}.values())
        if not named(self.model[name])["solution"] or len(kept) < 2:
            self.notes.append(COPIED.format(name))
            return kept[0] if kept else texts[0]
        self.notes.append(JOINED.format(name, len(kept)))
        if self.model[name].cell_type != "code":
            return "\n\n".join(kept)
        whole = "\n".join(kept)
        return whole if parses(whole) else "\n".join(filter(parses, kept)) or whole

    def fill(self) -> None:
        """Put the cells that are gone back, unanswered."""
        for name in [n for n in self.order if n not in self.names]:
            window, _ = self.window(name)
            cell = nbformat.from_dict(dict(self.model[name]))
            self.cells.insert(window.start, cell)
            self.names.insert(window.start, name)
            if named(cell)["solution"]:
                self.notes.append(ABSENT.format(name))


def repaired(
    cells: Iterable[NotebookNode], model: Sequence[NotebookNode]
) -> tuple[list[NotebookNode], list[str]]:
    """The cells with each name of the model once, and what was done, in sentences."""
    submission = Submission(cells, model)
    submission.label()
    submission.join()
    submission.fill()
    for cell, name in zip(submission.cells, submission.names, strict=True):
        if name:
            cell.metadata["nbgrader"] = dict(submission.model[name].metadata.nbgrader)
    return submission.cells, submission.notes


class Repair(NbGraderPreprocessor):
    """Mends a submission by the problem set that was released."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Mend the cells; put what was done in front of them, and into the log."""
        nb.cells, notes = repaired(nb.cells, self.model(resources["nbgrader"]))
        for note in notes:
            self.log.warning("Repaired: %s", note)
        if notes:
            text = "\n".join(
                ["**Repaired before grading**", "", *(f"- {n}" for n in notes)]
            )
            nb.cells.insert(0, nbformat.v4.new_markdown_cell(text))
            nb.cells[0].pop("id", None)
        return nb, resources

    def model(self, task: dict[str, str]) -> list[NotebookNode]:
        """The problem set: its cells in order, with the texts that were released."""
        course = self.parent.parent.coursedir
        folder = course.format_path(course.source_directory, ".", task["assignment"])
        path = Path(folder, f"{task['notebook']}.ipynb")
        cells: list[NotebookNode] = nbformat.read(path, as_version=4).cells
        with Gradebook(task["db_url"]) as book:
            released = book.find_notebook(task["notebook"], task["assignment"])
            texts = {cell.name: cell.source for cell in released.source_cells}
        for cell in cells:
            cell.source = texts.get(named(cell).get("grade_id"), cell.source)
        return cells
