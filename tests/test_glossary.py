"""Terms and symbols: in order, each where it says, and linked from every chapter."""

import re
from pathlib import Path

import nbformat
import pytest

from tools import lanes
from tools.book.course import GLOSSARY_ENTRY as ENTRY

ROOT = Path(__file__).parents[1]
NOTEBOOKS = lanes.all_notebooks()
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "book").glob("*.md"), *NOTEBOOKS]
GLOSSARY = (ROOT / "book" / "glossary.md").read_text("utf-8")
LINK = re.compile(r"\]\((?!https?:|#|mailto:|attachment:)([^)\s#]+)")


def words(path):
    """The prose of a document: all of a Markdown file, a notebook's Markdown cells."""
    if path.suffix == ".md":
        return path.read_text("utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def entries():
    lines = [line for line in GLOSSARY.splitlines() if line.startswith("-")]
    return [ENTRY.fullmatch(line) or line for line in lines]


def test_each_term_has_one_line_and_terms_are_in_order():
    assert [entry for entry in entries() if isinstance(entry, str)] == []
    terms = [entry[1].lower() for entry in entries()]
    assert terms == sorted(set(terms))
    assert len(terms) > 50


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry[1])
def test_each_term_occurs_in_the_chapter_that_it_names(entry):
    name = entry[4]
    source = (ROOT / "notebooks" / name).read_text("utf-8").lower()
    stems = [word[:5] for word in re.findall(r"\w+", entry[1].lower())]
    assert [stem for stem in stems if stem not in source] == []


def test_each_name_of_the_notation_stands_in_the_code():
    rows = re.findall(r"^\|(.*)\|$", words(ROOT / "book" / "notation.md"), re.MULTILINE)
    spans = re.findall(r"`([^`]+)`", " ".join(row.split("|")[1] for row in rows))
    names = {name for span in spans for name in re.findall(r"[A-Za-z_]\w*", span)}
    modules = (ROOT / "annotated_transformer").glob("*.py")
    code = "\n".join(path.read_text("utf-8") for path in modules)
    assert len(names) > 30
    assert names - set(re.findall(r"\w+", code)) == set()


@pytest.mark.parametrize("path", lanes.core() + lanes.deeper(), ids=lanes.name)
def test_each_chapter_links_to_the_words_and_symbols(path):
    title = nbformat.read(path, as_version=4).cells[0].source
    assert f"({lanes.root_from(path)}book/glossary.md)" in title
    assert f"({lanes.root_from(path)}book/notation.md)" in title


def test_a_term_may_be_explained_in_what_goes_deeper():
    line = "- **zebra**: An animal. [04]({})"
    assert ENTRY.fullmatch(line.format("../notebooks/deeper/04_toy.ipynb"))
    assert ENTRY.fullmatch(line.format("../notebooks/04_toy.ipynb"))
    assert not ENTRY.fullmatch(line.format("../notebooks/deeper/05_other.ipynb"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_inside_the_course_lead_somewhere(path):
    links = LINK.findall(words(path))
    assert [link for link in links if not (path.parent / link).exists()] == []
