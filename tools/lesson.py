"""Count in Multi30k what chapter 00 counts there, for readers who don't have it.

    python -m tools.lesson    # writes annotated_transformer/pretrained/lesson.json

The corpus may not be passed on, but numbers about it may. The cells of the chapter and
of its deeper notebook count, so that there is one list of patterns.
"""

import contextlib
import io
import re
import sys
from pathlib import Path

import nbformat

from annotated_transformer.corpora import multi30k_at_hand
from annotated_transformer.files import write_json
from annotated_transformer.lessons import TrainingCaptions
from annotated_transformer.translator import PRETRAINED

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
COUNTING = [NOTEBOOKS / folder / "00_start_here.ipynb" for folder in ("", "deeper")]
LESSON = PRETRAINED / "lesson.json"
ROW = re.compile(r"^(\S.*?) +([\d,]+)$", re.MULTILINE)


def counting_cells() -> list[nbformat.NotebookNode]:
    """The cells that count captions, in their order."""
    cells = [c for path in COUNTING for c in nbformat.read(path, as_version=4).cells]
    return [c for c in cells if c.cell_type == "code" and "seen.show(" in c.source]


def rows(text: str) -> dict[str, int]:
    """The counts in what these cells print, by name."""
    return {name: int(number.replace(",", "")) for name, number in ROW.findall(text)}


def run_cells() -> str:
    """What these cells print here and now."""
    names: dict[str, object] = {"seen": TrainingCaptions(), "re": re}
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
