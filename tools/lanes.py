"""The notebooks of the course: which there are, and what each kind must say.

A chapter is `notebooks/NN_name.ipynb`. It may go on in `notebooks/deeper/`, under the
same file name: a second reading, which no chapter needs. One page has no number: the
whole paper in one sitting.
"""

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = "notebooks"
KINDS = {  # what the names of each kind look like; another kind is another line
    "core": "[0-9][0-9]_*.ipynb",
    "deeper": "deeper/[0-9][0-9]_*.ipynb",
    "sitting": "the_paper_in_one_sitting.ipynb",
}
ONCE = ("core", "deeper")  # together, they show a definition at most once
GOES_ON = re.compile(
    r"^(?:\| )?\*\*Goes on from\*\*(?: \|)? "
    r"\[(?P<number>\d\d) [^\]]+, section (?P<section>\d+(?:\.\d+)?)\]"
    r"\(\.\./(?P<file>[^)#/]+\.ipynb)\)",
    re.MULTILINE,
)
KNOW_FIRST = re.compile(r"^.*\*\*Know first\*\*.*$", re.MULTILINE)


def of_kind(kind: str, root: Path = ROOT) -> list[Path]:
    """The notebooks of one kind, in order."""
    return sorted((root / FOLDER).glob(KINDS[kind]))


def core(root: Path = ROOT) -> list[Path]:
    """The chapters."""
    return of_kind("core", root)


def deeper(root: Path = ROOT) -> list[Path]:
    """What goes on from a chapter."""
    return of_kind("deeper", root)


def all_notebooks(root: Path = ROOT) -> list[Path]:
    """Every notebook of the course, kind by kind."""
    return [path for kind in KINDS for path in of_kind(kind, root)]


def below(path: Path) -> str:
    """A notebook's path below `notebooks/`: "deeper/02_attention.ipynb"."""
    folder = next(parent for parent in path.parents if parent.name == FOLDER)
    return path.relative_to(folder).as_posix()


def name(path: Path) -> str:
    """What other files call a notebook: "02_attention", "deeper/02_attention"."""
    return below(path).removesuffix(".ipynb")


def kind_of(path: Path) -> str | None:
    """The kind of a notebook; None if it is no notebook of the course."""
    kinds = (k for k, pattern in KINDS.items() if fnmatchcase(below(path), pattern))
    return next(kinds, None)


def number(path: Path) -> str:
    """The two digits of a notebook, or none."""
    return path.name[:2] if path.name[:2].isdigit() else ""


def mark(path: Path) -> str:
    """What stands before the dot in its figures' numbers: "4" in 4.1, "D4" in D4.1.

    Nothing, not even the dot, in a notebook without a number: its figures are 1, 2, 3.
    """
    letter = "D" if kind_of(path) == "deeper" else ""
    return f"{letter}{int(number(path))}" if number(path) else ""


def figure(path: Path, i: int) -> str:
    """The number of its figure or equation `i`: "4.1", "D4.1", "1"."""
    return f"{mark(path)}.{i}".removeprefix(".")


def root_from(path: Path) -> str:
    """The way from a notebook's folder to the course's: "../" or "../../"."""
    return "../" * (below(path).count("/") + 1)


def texts(path: Path, kind: str) -> list[str]:
    """The sources of a notebook's cells of one type."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == kind]


def problems(root: Path = ROOT) -> list[str]:
    """What is wrong with the lanes below `root`, in words; nothing, if all is well."""
    found = []
    for path in sorted((root / FOLDER).rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        kind = kind_of(path)
        if kind is None:
            found.append(f"{below(path)}: no kind of tools/lanes.py has such a name")
        wrong = {"core": problems_of_core, "deeper": problems_of_deeper}.get(kind or "")
        found += [f"{below(path)}: {words}" for words in (wrong(path) if wrong else ())]
    return found


def problems_of_core(path: Path) -> Iterator[str]:
    """A chapter may link to what goes deeper, and must not need it."""
    if any("deeper/" in code for code in texts(path, "code")):
        yield "its code uses a deeper notebook"
    rows = KNOW_FIRST.findall("\n".join(texts(path, "markdown")[:1]))
    if any("deeper/" in row for row in rows):
        yield "asks to know a deeper notebook first"


def problems_of_deeper(path: Path) -> Iterator[str]:
    """It has the name of a chapter, and says which section it goes on from."""
    chapter = path.parents[1] / path.name
    if not chapter.exists():
        yield "no chapter has this file name"
        return
    first = texts(path, "markdown")[:1] or [""]
    title = f"# {number(path)} Deeper: "
    if not first[0].startswith(title):
        yield f"its title does not begin with {title!r}"
    link = GOES_ON.search(first[0])
    if not link:
        yield (
            f"its first cell lacks a line like **Goes on from** [{number(path)} "
            f"Title, section 5](../{path.name})"
        )
        return
    if (link["number"], link["file"]) != (number(path), path.name):
        yield f"goes on from {link['file']}, and not from its own chapter"
    heading = re.compile(rf"^#+ {re.escape(link['section'])}\.? ", re.MULTILINE)
    if not heading.search("\n".join(texts(chapter, "markdown"))):
        yield f"goes on from section {link['section']}, which its chapter does not have"
