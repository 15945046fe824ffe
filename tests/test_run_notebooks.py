"""Outputs are stored whole or not at all, and without what changes by itself."""

import sys

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import run_notebooks


def test_outputs_are_stored_whole_or_not_at_all(tmp_path, monkeypatch, capsys):
    code = ["x = 6", "import sys\nprint(7 * x)\nprint('!', file=sys.stderr)", "1 / 0"]
    cells = [new_markdown_cell("# Title"), *map(new_code_cell, code)]
    cells[2].metadata.update(tags=["kept"], execution={"iopub.status.busy": "now"})
    cells[2].execution_count = 99
    failing, good = tmp_path / "failing.ipynb", tmp_path / "good.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata={"widgets": {"a": 1}}), failing)
    nbformat.write(new_notebook(cells=cells[:-1], metadata={"widgets": {}}), good)
    before = failing.read_bytes()

    monkeypatch.setattr(sys, "argv", ["run_notebooks.py", str(failing), str(good)])
    assert run_notebooks.main() == 1
    errors = capsys.readouterr().err
    assert "ZeroDivisionError" in errors
    assert "cell 2 wrote to stderr" in errors
    assert failing.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [failing, good]

    stored = nbformat.read(good, as_version=4)
    assert [cell.get("execution_count") for cell in stored.cells] == [None, 1, 2]
    assert stored.cells[2].outputs[0].text == "42\n"
    assert stored.cells[2].metadata == {"tags": ["kept"]}
    assert set(stored.metadata) == {"kernelspec", "language_info", "seconds"}
    assert 0 < stored.metadata.seconds < 60
    assert "version" not in stored.metadata.language_info
