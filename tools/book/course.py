"""What the book is made from: the notebooks, the paper map, the package, the tests."""

import ast
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

from tools import lanes, sync

ROOT = Path(__file__).parents[2]
LESSONS = "lessons"  # a folder of small files that share one page
EQUATION = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
CAPTION = re.compile(r"\*\*Fig\. ((?:D?\d+\.)?\d+)\*\*")
DEPARTS = re.compile(r"^> \*\*Departs from ([^*]*?)[.:]?\*\*", re.MULTILINE)
DEPARTS_IN_CODE = re.compile(r"Departs from (§\d(?:\.\d)*)")
GLOSSARY_ENTRY = re.compile(
    r"- \*\*(.+)\*\*: (.+\.) \[(\d\d)\]\(\.\./notebooks/((?:deeper/)?\3_.+)\)"
)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
TEST_NAME = re.compile(r"(tests/test_\w+\.py)?::(test_\w+)")


def label(text: str) -> str:
    """A name for an anchor: letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


@dataclass
class Chapter:
    """One notebook, and what the book needs to know about it."""

    path: Path
    notebook: NotebookNode

    @property
    def number(self) -> str:
        """Its two digits, or none."""
        return lanes.number(self.path)

    @property
    def name(self) -> str:
        """What other files call it: "02_attention", "deeper/02_attention"."""
        return lanes.name(self.path)

    @property
    def key(self) -> str:
        """What tells it apart from all others, as a part of an anchor."""
        if lanes.kind_of(self.path) == "core":
            return self.number
        return label(self.name.replace(self.path.stem, self.number or self.path.stem))

    @property
    def heading(self) -> str:
        """Its number, if it has one, and its title."""
        return f"{self.number} {self.title}".strip()

    @property
    def title(self) -> str:
        """Its title without the number."""
        line = self.notebook.cells[0].source.splitlines()[0]
        return line.removeprefix("# ").removeprefix(self.number).strip()

    @property
    def question(self) -> str:
        """The question of its frame."""
        rows = re.findall(
            r"^\| (?:\*\*)?Question(?:\*\*)? \| (.+?) \|$",
            self.notebook.cells[0].source,
            re.MULTILINE,
        )
        return rows[0] if rows else ""

    @property
    def doc(self) -> str:
        """Its page's name."""
        return f"notebooks/{self.name}"

    @cached_property
    def figures(self) -> list[str]:
        """The numbers of its figures: "2.3", or "D2.3" in what goes deeper."""
        texts = [c.source for c in self.notebook.cells if c.cell_type == "markdown"]
        return CAPTION.findall("\n".join(texts))

    @cached_property
    def equations(self) -> list[tuple[str, str]]:
        """Its displayed equations in order: cell, formula."""
        cells = [c for c in self.notebook.cells if c.cell_type == "markdown"]
        return [(c.id, found) for c in cells for found in EQUATION.findall(c.source)]

    @cached_property
    def definitions(self) -> list[tuple[str, list[str], str]]:
        """The package's code that it shows: file, names, cell."""
        found = []
        for cell in self.notebook.cells:
            header = sync.HEADER.fullmatch(cell.source.partition("\n")[0])
            if cell.cell_type == "code" and header:
                body = ast.parse(cell.source).body
                names = [name for node in body for name in sync.defined_names(node)]
                found.append((header[1], names, cell.id))
        return found

    def anchor(self, cell: str) -> str:
        """The name of a cell's anchor in the book."""
        return f"cell-{self.key}-{cell}"

    def box_anchor(self, cell: str) -> str:
        """The name of the anchor of a box "Departs from" in a cell."""
        return f"departs-{self.key}-{cell}"

    def what_is(self, cell_id: str) -> tuple[str, str]:
        """The heading above a cell, and what the cell is, in a word or two."""
        heading = self.title
        for i, cell in enumerate(self.notebook.cells):
            headings = HEADING.findall(cell.source)
            if cell.cell_type == "markdown" and headings and i:
                heading = headings[0] if cell.id == cell_id else headings[-1]
            if cell.id == cell_id:
                break
        else:
            raise KeyError(f"{self.path.name} has no cell {cell_id!r}")
        if cell.cell_type == "markdown":
            figure = CAPTION.search(cell.source)
            return heading, f"Fig. {figure[1]}" if figure else "text"
        shown = [names for _, names, each in self.definitions if each == cell_id]
        if shown:
            return heading, ", ".join(f"`{name}`" for name in shown[0])
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            following = self.notebook.cells[i + 1 : i + 2]
            figure = CAPTION.search(following[0].source) if following else None
            if figure:
                return heading, f"Fig. {figure[1]}"
        return heading, "code"


@dataclass
class Course:
    """The course below one folder."""

    root: Path = ROOT
    notebooks: list[Chapter] = field(init=False)

    def __post_init__(self) -> None:
        paths = lanes.all_notebooks(self.root)
        self.notebooks = [Chapter(p, nbformat.read(p, as_version=4)) for p in paths]

    def of_kind(self, *kinds: str) -> list[Chapter]:
        """The notebooks of these kinds."""
        return [c for c in self.notebooks if lanes.kind_of(c.path) in kinds]

    @property
    def chapters(self) -> list[Chapter]:
        """The chapters of the core, without what goes deeper."""
        return self.of_kind("core")

    def deeper(self, chapter: Chapter) -> list[Chapter]:
        """What goes on from a chapter; nothing goes on from other notebooks."""
        core = lanes.kind_of(chapter.path) == "core"
        found = self.of_kind("deeper") if core else []
        return [c for c in found if c.number == chapter.number]

    def data(self, name: str) -> Any:
        """A YAML file of the book."""
        return yaml.safe_load((self.root / "book" / name).read_text("utf-8"))

    @cached_property
    def paper_map(self) -> list[dict[str, Any]]:
        """The paper, part by part."""
        return self.data("paper_map.yml")

    @cached_property
    def departures(self) -> list[dict[str, Any]]:
        """Where we depart from it, one row each."""
        return self.data("departures.yml")

    @cached_property
    def address(self) -> str | None:
        """The course's public address, if it has one."""
        return sync.repository(self.root)

    @cached_property
    def glossary(self) -> list[tuple[str, str, str]]:
        """Terms, definitions, and the notebook that explains each."""
        text = (self.root / "book" / "glossary.md").read_text("utf-8")
        entries = [GLOSSARY_ENTRY.fullmatch(line) for line in text.splitlines()]
        return [(e[1], e[2], e[4]) for e in entries if e]

    @cached_property
    def modules(self) -> dict[str, str]:
        """The package's modules with the first line of their docstrings.

        The lessons are a folder of small files, and have one page.
        """
        folder, found = self.root / "annotated_transformer", {}
        files = {p.stem: p for p in folder.glob("*.py") if not p.name.startswith("_")}
        files |= {p.parent.name: p for p in folder.glob(f"{LESSONS}/__init__.py")}
        for name, path in sorted(files.items()):
            text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
            found[name] = text.split("\n\n")[0].replace("\n", " ")
        return found

    def origin(self, module: str) -> str:
        """Where a module's code stands, from the root of the repository."""
        file = f"{module}/__init__" if module == LESSONS else module
        return f"annotated_transformer/{file}.py"

    @cached_property
    def sources_of_tests(self) -> dict[str, str]:
        """The source of every test: {"tests/test_x.py::test_y": "def test_y..."}."""
        found = {}
        for path in sorted((self.root / "tests").glob("test_*.py")):
            text = path.read_text("utf-8")
            lines = text.splitlines()
            for node in ast.parse(text).body:
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                    first, last = sync.span(node, lines)
                    name = f"tests/{path.name}::{node.name}"
                    found[name] = "\n".join(lines[first:last])
        return found

    def chapter(self, number: str) -> Chapter | None:
        """The chapter with these two digits, if it has been written."""
        return next((c for c in self.chapters if c.number == number), None)

    def chapter_of(self, cell: str) -> tuple[Chapter, str]:
        """The notebook and the id of "02_attention#eq-1"."""
        name, _, cell_id = cell.partition("#")
        return next(c for c in self.notebooks if c.name == name), cell_id

    @cached_property
    def equations(self) -> dict[str, str]:
        """Where a chapter displays one of the paper's equations: {"Eq. 1": "2.1"}."""
        found = {}
        for part in self.paper_map:
            if not part["where"].startswith("Eq. "):
                continue
            for cell in reversed(part.get("cells", [])):  # the first one wins
                chapter, cell_id = self.chapter_of(cell)
                cells = [each for each, _ in chapter.equations]
                if cell_id in cells and chapter.number:
                    number = cells.index(cell_id) + 1
                    found[part["where"]] = lanes.figure(chapter.path, number)
        return found

    def departure_boxes(self) -> dict[str, list[str]]:
        """Cells that hold a box "Departs from", with the tests that they name."""
        found = {}
        for chapter in self.notebooks:
            for cell in chapter.notebook.cells:
                if cell.cell_type == "markdown" and DEPARTS.search(cell.source):
                    found[f"{chapter.name}#{cell.id}"] = named_tests(cell.source)
        return found

    def departures_in_code(self) -> set[str]:
        """The package's own notes of departures: "schedule.py §5.3"."""
        folder = self.root / "annotated_transformer"
        return {
            f"{path.name} {section}"
            for path in folder.glob("*.py")
            for section in DEPARTS_IN_CODE.findall(path.read_text("utf-8"))
        }

    def proofs(self) -> list[str]:
        """The tests that the book shows because a page points at them."""
        named = {test for row in self.departures for test in row["tests"]}
        for chapter in self.notebooks:
            for cell in chapter.notebook.cells:
                if cell.cell_type == "markdown":
                    named |= set(named_tests(cell.source))
        return sorted(named & set(self.sources_of_tests))

    def covered(self) -> tuple[int, int, int]:
        """How many parts of the paper have cells, have none yet, and never will."""
        cells = sum("cells" in part for part in self.paper_map)
        never = sum("reason" in part for part in self.paper_map)
        return cells, len(self.paper_map) - cells - never, never


def named_tests(text: str) -> list[str]:
    """The tests that a text names; "::test_y" alone is in the file named before it."""
    names, file = [], ""
    for match in TEST_NAME.finditer(text):
        file = match[1] or file
        names.append(f"{file}::{match[2]}")
    return names


def as_json(data: Any) -> str:
    """JSON that is safe inside a script element."""
    return json.dumps(data, ensure_ascii=False).replace("</", "<\\/")
