"""nbgrader's steps of this course, each alone."""

import nbformat
import pytest
from nbgrader.converters.base import NbGraderException

from annotated_transformer.checks import grading


def executed(folder, code, **options):
    """The output of one cell that stands in a folder."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    step = grading.SandboxedExecute(**options)
    notebook, _ = step.preprocess(notebook, {"metadata": {"path": str(folder)}})
    return "".join(
        o.get("text", o.get("evalue", "")) for o in notebook.cells[0].outputs
    )


def test_without_a_sandbox_nothing_is_graded_unless_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(grading.sandbox, "missing", lambda: "this is Darwin")
    with pytest.raises(NbGraderException, match="this is Darwin: nothing was graded"):
        executed(tmp_path, "1")
    assert executed(tmp_path, "print(6 * 7)", required=False) == "42\n"


def test_a_submission_reads_its_own_files_and_writes_a_copy(tmp_path):
    (tmp_path / "data.txt").write_text("given")
    code = 'print(open("data.txt").read()); open("data.txt", "w").write("changed")'
    if grading.sandbox.missing():
        pytest.skip(grading.sandbox.missing())
    assert "given" in executed(tmp_path, code)
    assert (tmp_path / "data.txt").read_text() == "given"


def test_a_thousand_pictures_are_not_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(grading, "OUTPUT_CHARACTERS", 5000)
    code = """from IPython.display import display, HTML
for _ in range(100):
    display(HTML("x" * 999))"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    step = grading.SandboxedExecute(required=False)
    notebook, _ = step.preprocess(notebook, {"metadata": {"path": str(tmp_path)}})
    assert len(notebook.cells[0].outputs) == 4


def test_an_error_is_kept_after_a_thousand_pictures(monkeypatch, tmp_path):
    monkeypatch.setattr(grading, "OUTPUT_CHARACTERS", 5000)
    monkeypatch.setattr(grading.sandbox, "missing", lambda: "this is Darwin")
    code = "print('x' * 9000)\nraise ValueError('wrong')"
    assert executed(tmp_path, code, required=False) == "wrong"


def test_a_kernel_that_ends_can_not_hold_up_the_teacher(tmp_path, caplog):
    if grading.sandbox.missing():
        pytest.skip(grading.sandbox.missing())
    code = """import os
os.write(1, b"my last words")
for name in os.listdir(".."):
    if name.endswith(".log"):
        os.remove(f"../{name}")
os.mkfifo("../kernel.log")
os._exit(1)"""
    with pytest.raises(RuntimeError):
        executed(tmp_path, code)
