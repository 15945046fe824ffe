"""The paper map leaves no part of the paper out, and points at cells that exist."""

import re
from pathlib import Path

import nbformat
import pytest
import yaml

from tools import lanes

ROOT = Path(__file__).parents[1]
PAPER_MAP = yaml.safe_load((ROOT / "book" / "paper_map.yml").read_text("utf-8"))

# Every section, numbered equation, table and figure of arXiv 1706.03762v7.
PAPER = """
Abstract; §1; §2; §3; Figure 1; §3.1; §3.2; Figure 2; §3.2.1; Eq. 1; Footnote 4;
§3.2.2; §3.2.3; §3.3; Eq. 2; §3.4; §3.5; §4; Table 1; §5; §5.1; §5.2; §5.3; Eq. 3;
§5.4; §6; §6.1; Table 2; §6.2; Table 3; §6.3; Table 4; §7; Figure 3; Figure 4; Figure
5
"""
NOTEBOOKS = {
    lanes.name(path): nbformat.read(path, as_version=4).cells
    for path in lanes.all_notebooks()
}
CELLS = {f"{name}#{cell.id}" for name, cells in NOTEBOOKS.items() for cell in cells}
each_entry = pytest.mark.parametrize("entry", PAPER_MAP, ids=lambda e: e["where"])


def test_no_part_of_the_paper_is_left_out():
    wanted = [" ".join(part.split()) for part in PAPER.split(";")]
    assert [entry["where"] for entry in PAPER_MAP] == wanted


@each_entry
def test_each_part_has_cells_or_a_plan_or_a_reason(entry):
    given = set(entry) - {"where", "says"}
    assert given in ({"cells"}, {"cells", "planned"}, {"planned"}, {"reason"})
    assert entry["says"].endswith(".")
    assert entry.get("cells", True)
    assert re.fullmatch(r"\d\d", entry.get("planned", "00"))


@each_entry
def test_each_cell_of_the_map_exists(entry):
    cells = entry.get("cells", [])
    assert len(set(cells)) == len(cells)
    assert [cell for cell in cells if cell not in CELLS] == []


@each_entry
def test_a_chapter_that_exists_is_no_longer_planned(entry):
    numbers = {lanes.number(path) for path in lanes.core()}
    assert entry.get("planned") not in numbers


def test_each_chapter_covers_the_parts_that_its_frame_names():
    """A chapter whose first cell names §3.2.1 has a cell in the map at §3.2.1.

    A notebook that goes deeper need not say so; its chapter's cells count for it.
    """
    covered = {
        (name, entry["where"])
        for entry in PAPER_MAP
        for cell in entry.get("cells", [])
        for name in {cell.partition("#")[0], cell.partition("#")[0].split("/")[-1]}
    }
    missing = []
    for path in lanes.core() + lanes.deeper():
        title = NOTEBOOKS[lanes.name(path)][0].source
        rows = re.findall(r"^\|.*In the paper.*$", title, re.MULTILINE)
        assert len(rows) == 1 or (not rows and path in lanes.deeper()), path.name
        parts = re.findall(r"§\d(?:\.\d)*|(?:Eq\.|Table|Figure) \d", "".join(rows))
        missing += [f"{path}: {p}" for p in parts if (path.stem, p) not in covered]
    assert missing == []


def test_each_section_of_the_paper_in_one_sitting_has_a_cell_there():
    name = "the_paper_in_one_sitting"
    text = "\n".join(c.source for c in NOTEBOOKS[name] if c.cell_type == "markdown")
    sections = re.findall(r"^#+ (\d(?:\.\d)*) ", text, re.MULTILINE)
    assert len(sections) > 20
    covered = {
        entry["where"]
        for entry in PAPER_MAP
        for cell in entry.get("cells", [])
        if cell.startswith(f"{name}#")
    }
    assert [s for s in sections if f"§{s}" not in covered] == []
