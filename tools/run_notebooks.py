"""Run notebooks in fresh kernels and store their outputs, whole or not at all.

    python -m tools.run_notebooks                    # all of the course
    python -m tools.run_notebooks notebooks/02*.ipynb

A notebook with a failing cell is left as it was. What differs between runs but means
nothing (time stamps, the local Python's version, widget state) is not stored.
"""

import argparse
import math
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs as a file, too
from tools import lanes
from tools.sizes import SECONDS

# One thread, as in the tests, so that sums are added in the same order.
os.environ.setdefault("OMP_NUM_THREADS", "1")

KERNEL = {
    "display_name": "Python 3 (ipykernel)",
    "language": "python",
    "name": "python3",
}
LANGUAGE = {
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "pygments_lexer": "ipython3",
}
VOLATILE = ("ExecuteTime", "collapsed", "execution", "scrolled", "trusted", "vscode")


def run(path: Path) -> NotebookNode:
    """Run all cells in a fresh kernel, in the notebook's own folder.

    The CPU time that it took is kept in the notebook's metadata, in seconds.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(new_code_cell("import os\nprint(sum(os.times()[:4]))"))
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=None,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    timer = notebook.cells.pop()
    notebook.metadata[SECONDS] = math.ceil(float(timer.outputs[0].text))
    return clean(notebook)


def clean(notebook: NotebookNode) -> NotebookNode:
    """Drop what changes from machine to machine; keep all that a reader sees."""
    notebook.metadata.kernelspec = KERNEL
    notebook.metadata.language_info = LANGUAGE
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for key in VOLATILE:
            cell.metadata.pop(key, None)
    return notebook


def stderr_cells(notebook: NotebookNode) -> list[int]:
    """The cells that wrote to stderr: a warning, a progress bar."""
    return [
        i
        for i, cell in enumerate(notebook.cells)
        if any(output.get("name") == "stderr" for output in cell.get("outputs", []))
    ]


def main() -> int:
    """Run from the command line; exit with 1 if any notebook failed."""
    parser = argparse.ArgumentParser(description="Run notebooks, store outputs.")
    parser.add_argument("notebooks", nargs="*", type=Path)
    failed = False
    for path in parser.parse_args().notebooks or lanes.all_notebooks():
        start = time.monotonic()
        try:
            notebook = run(path)
        except (OSError, ValueError, CellExecutionError, DeadKernelError) as error:
            print(f"{path}: failed, and was left as it was\n{error}", file=sys.stderr)
            failed = True
            continue
        partial = path.with_name(path.name + ".partial")
        nbformat.write(notebook, partial)
        partial.replace(path)
        print(f"{path}: {time.monotonic() - start:.0f} s")
        for i in stderr_cells(notebook):
            print(f"  warning: cell {i} wrote to stderr", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
