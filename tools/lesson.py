"""Count in Multi30k what chapter 00 counts there, for readers who don't have it.

    python -m tools.lesson    # writes annotated_transformer/pretrained/lesson.json

The corpus may not be passed on, but numbers about it may. The chapter's own cells
count, so that there is one list of patterns.
"""

import contextlib
import io
import re
import sys
from pathlib import Path

import nbformat

from annotated_transformer.corpora import multi30k_at_hand
from annotated_transformer.files import write_json
from annotated_transformer.translator import PRETRAINED

CHAPTER = Path(__file__).parents[1] / "notebooks" / "00_start_here.ipynb"
LESSON = PRETRAINED / "lesson.json"
ROW = re.compile(r"^(\S.*?) +([\d,]+)$", re.MULTILINE)


def counting_cells() -> list[nbformat.NotebookNode]:
    """The chapter's cells that count captions, in their order."""
    cells = nbformat.read(CHAPTER, as_version=4).cells
    return [c for c in cells if c.cell_type == "code" and "show(" in c.source]


def rows(text: str) -> dict[str, int]:
    """The counts in what these cells print, by name."""
    return {name: int(number.replace(",", "")) for name, number in ROW.findall(text)}


def run_cells() -> str:
    """What these cells print here and now."""
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for cell in counting_cells():
            exec(cell.source, names)
    return printed.getvalue()


def main() -> int:
    """Run from the command line."""
    if not multi30k_at_hand():
        print("Multi30k is not here: annotated-transformer download", file=sys.stderr)
        return 1
    write_json(LESSON, rows(run_cells()))
    print(f"{LESSON} is written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
