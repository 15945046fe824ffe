"""The notebooks show the package's code letter for letter, and nothing drifts."""

import ast
import builtins
import json
import re
import symtable
import sys
import types
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path

import pytest
import trees
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from tools import lanes, sync

ROOT = Path(__file__).parents[1]
# The model and what trains it: the course shows all of it.
SHOWN_WHOLE = [
    *("attention", "batches", "cache", "config", "decoding", "layers"),
    *(
        "loss",
        "masks",
        "objectives",
        "recording",
        "schedule",
        "training",
        "transformer",
    ),
]
BEYOND = {"objectives"}  # in part not in the paper: that part may stand deeper
NOTEBOOKS = lanes.all_notebooks()
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lanes.name)
ADDRESS = "https://github.com/someone/course"

MODULE = '''\
"""A module."""

import math

# Both of these are needed.
SCALE = 2.0
SHIFT: int = 1
LOW, HIGH = 0, 5


# Why it is there.
@staticmethod
def double(x):
    """Twice."""

    return SCALE * x  # not x + x


class Box:
    size = 3
'''


@pytest.fixture
def root(tmp_path):
    """A small course: one module, one notebook, no address."""
    (tmp_path / "annotated_transformer").mkdir()
    (tmp_path / "annotated_transformer" / "toy.py").write_text(MODULE, "utf-8")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "course"\n', "utf-8")
    readme = "# Course\n\n<!-- badges -->\n<!-- /badges -->\n\nWords.\n"
    (tmp_path / "README.md").write_text(readme, "utf-8")
    (tmp_path / "notebooks").mkdir()
    cells = [
        cell("markdown", "# 02 Größe\n\nWords."),
        cell("code", "1 + 1", outputs=[{"data": {"text/plain": "2 µ"}, "zz": 1}]),
        cell("code", "# annotated_transformer/toy.py\ndef double(): ..."),
    ]
    write(tmp_path, {"zz": 1, "cells": cells, "aa": 2})
    return tmp_path


def cell(kind, source, **more):
    lines = source.splitlines(keepends=True)
    return {"cell_type": kind, "metadata": {}, "source": lines, **more}


def notebook_path(root):
    return root / "notebooks" / "02_toy.ipynb"


def write(root, notebook):
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    notebook_path(root).write_text(text, "utf-8")


def read(root):
    return json.loads(notebook_path(root).read_text("utf-8"))


def source(root, index):
    return "".join(read(root)["cells"][index]["source"])


def rewrite_last_cell(root, text):
    notebook = read(root)
    notebook["cells"][-1]["source"] = text
    write(root, notebook)


def set_address(root, address=ADDRESS):
    with (root / "pyproject.toml").open("a") as file:
        file.write(f'[project.urls]\nRepository = "{address}"\n')


def test_nothing_has_drifted():
    assert sync.sync(ROOT, check=True) == []


def cells_of(path):
    return json.loads(path.read_text("utf-8"))["cells"]


@each_notebook
def test_solutions_are_folded_and_their_first_lines_give_nothing_away(path):
    for each in cells_of(path):
        tags = each["metadata"].get("tags", [])
        if each["cell_type"] == "code" and "solution" in tags:
            hidden = {"outputs_hidden": True, "source_hidden": True}
            assert each["metadata"]["jupyter"] == hidden, each["id"]
            assert "hide-cell" in tags, each["id"]
            first = each["source"][0]
            assert re.fullmatch(r"# Solution( of exercise \d)?\n", first), each["id"]
            assert len(each["source"]) > 1


@each_notebook
def test_no_output_right_below_a_box_tells_what_to_predict(path):
    cells = cells_of(path)
    for box, each in enumerate(cells):
        if sync.PREDICTS.search("".join(each["source"])):
            code = next(i for i in range(box, len(cells)) if "outputs" in cells[i])
            between = ["".join(text["source"]) for text in cells[box + 1 : code]]
            if cells[code]["outputs"] and not any(t.startswith("#") for t in between):
                metadata = cells[code]["metadata"]
                assert metadata["jupyter"]["outputs_hidden"], each["id"]
                assert "hide-output" in metadata["tags"], each["id"]


def test_the_first_outputs_below_a_box_are_folded_and_no_others(root):
    box = cell("markdown", "> **Predict first.** How many?")
    text, heading = cell("markdown", "Now look."), cell("markdown", "## 2. Next")
    silent, speaks = cell("code", "x = 1", outputs=[]), cell("code", "x", outputs=[1])
    later = cell("code", "y", outputs=[2])

    def folded(*cells):
        return sorted(sync.predicted(list(cells)))

    assert folded(box, speaks, later, text, later) == [1, 2]
    assert folded(box, silent, speaks, text) == [2]
    assert folded(box, text, silent, speaks) == [3]
    assert folded(box, text, silent, text, speaks) == []
    assert folded(box, heading, speaks) == []
    assert folded(text, speaks) == []
    assert folded(cell("markdown", "The box **Predict first** asks."), speaks) == []


def test_what_is_folded_follows_from_tags_and_boxes_alone(root):
    notebook = read(root)
    solution = cell("code", "def answer(): ...", outputs=[], id="ex3-solution")
    solution["metadata"] = {"tags": ["solution"], "source_hidden": True}
    told = cell("code", "1", outputs=[{"data": {}}], id="told")
    stale = cell("code", "2", outputs=[{"data": {}}], id="stale")
    stale["metadata"] = {"tags": ["hide-output"], "jupyter": {"outputs_hidden": True}}
    box = cell("markdown", "> **Predict first.** What?")
    notebook["cells"] += [box, told, cell("markdown", "So."), stale, solution]
    write(root, notebook)
    sync.sync(root, check=False)
    told, _, stale, solution = read(root)["cells"][-4:]
    assert told["metadata"] == {
        "jupyter": {"outputs_hidden": True},
        "tags": ["hide-output"],
    }
    assert stale["metadata"] == {}
    assert solution["metadata"] == {
        "jupyter": {"outputs_hidden": True, "source_hidden": True},
        "tags": ["solution", "hide-cell"],
    }
    titled = "# Solution of exercise 3\ndef answer(): ..."
    assert "".join(solution["source"]) == titled
    assert sync.sync(root, check=True) == []


def shown_definitions(*kinds, root=ROOT):
    """How often notebooks of these kinds show each definition, as "file: name"."""
    shown = Counter()
    for path in (path for kind in kinds for path in lanes.of_kind(kind, root)):
        for each in json.loads(path.read_text("utf-8"))["cells"]:
            lines = "".join(each["source"]).partition("\n")
            header = sync.HEADER.fullmatch(lines[0])
            if each["cell_type"] == "code" and header:
                for node in ast.parse(lines[2]).body:
                    names = sync.defined_names(node)
                    shown.update(f"{header[1]}: {name}" for name in names)
    return shown


def globals_used(table):
    """The names that functions and classes look up outside themselves."""
    for inner in table.get_children():
        found = (s for s in inner.get_symbols() if s.is_global() and s.is_referenced())
        yield from (symbol.get_name() for symbol in found)
        yield from globals_used(inner)


@each_notebook
def test_what_a_shown_definition_needs_is_in_the_notebook(path):
    codes = ["".join(c["source"]) for c in cells_of(path) if c["cell_type"] == "code"]
    plain = [re.sub(r"^\s*[%!].*", "pass", code, flags=re.MULTILINE) for code in codes]
    whole = symtable.symtable("\n".join(plain), path.name, "exec")
    known = {s.get_name() for s in whole.get_symbols() if s.is_assigned()}
    known |= {s.get_name() for s in whole.get_symbols() if s.is_imported()}
    for code in filter(sync.HEADER.match, codes):
        needed = set(globals_used(symtable.symtable(code, path.name, "exec")))
        assert needed - known - set(dir(builtins)) == set(), code.partition("\n")[0]


def shown_twice(root=ROOT):
    shown = shown_definitions(*lanes.ONCE, root=root)
    return [name for name, count in shown.items() if count > 1]


def test_every_definition_is_shown_at_most_once():
    assert shown_twice() == []


def test_what_goes_deeper_shows_no_definition_of_a_chapter_and_a_sitting_may(tmp_path):
    trees.small_course(tmp_path)
    assert shown_twice(tmp_path) == []
    specials, pad = f"{trees.FILE}: SPECIALS", f"{trees.FILE}: PAD"
    assert shown_definitions("core", root=tmp_path) == {specials: 1}
    assert shown_definitions("deeper", root=tmp_path) == {pad: 1}
    trees.write(tmp_path, trees.DEEPER, ["# 04 Deeper: toy", trees.SHOWN])
    assert shown_twice(tmp_path) == [specials]


def test_every_kind_of_notebook_is_kept_in_step(tmp_path):
    trees.small_course(tmp_path)
    set_address(tmp_path)
    drift = sync.sync(tmp_path, check=False)
    module = tmp_path / trees.FILE
    expected = {
        trees.DEEPER: ("# 04 Deeper: toy", trees.DEEPER_SHOWN),
        trees.SITTING: ("# The paper in one sitting", trees.SHOWN),
    }
    for name, (title, stub) in expected.items():
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        first = lanes.texts(path, "markdown")[0]
        colab, shown, *_ = lanes.texts(path, "code")
        assert first.startswith(title)
        assert f"/course/blob/main/notebooks/{name}.ipynb)\n" in first
        assert colab.endswith(f'"git+{ADDRESS}"')
        assert shown == sync.definitions(stub, module.read_text("utf-8"))
        assert f"notebooks/{name}.ipynb: the Colab badge" in drift
    assert sync.sync(tmp_path, check=True) == []
    module.write_text(module.read_text("utf-8").replace("range(4)", "range(5)"))
    (place,) = sync.sync(tmp_path, check=True)
    assert place == f"notebooks/{trees.DEEPER}.ipynb: cell 2, which shows {trees.FILE}"


@pytest.mark.parametrize("module", SHOWN_WHOLE)
def test_every_public_definition_of_the_model_is_shown(module):
    file = f"annotated_transformer/{module}.py"
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    names = [name for node in tree.body for name in sync.defined_names(node)]
    public = [f"{file}: {name}" for name in names if not name.startswith("_")]
    shown = shown_definitions(*(lanes.ONCE if module in BEYOND else ["core"]))
    assert public
    assert [name for name in public if name not in shown] == []


class Bare(ast.NodeTransformer):
    """Takes annotations and docstrings out, and keeps what runs."""

    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        node.returns = None
        return node

    visit_ClassDef = visit_FunctionDef

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_AnnAssign(self, node):
        if node.value is None:
            return None
        return ast.copy_location(ast.Assign([node.target], node.value), node)


def functions_and_classes(code):
    """Each top-level function and class of a text, as bare code."""
    kinds = ast.FunctionDef | ast.ClassDef
    for node in ast.parse(code).body:
        if isinstance(node, kinds):
            bare = ast.fix_missing_locations(Bare().visit(node))
            yield node.name, ast.unparse(bare)


def defined_in_cells():
    """What the notebooks define: name, then the chapter's number and the bare code."""
    found = {}
    for path in [path for kind in lanes.ONCE for path in lanes.of_kind(kind)]:
        for each in json.loads(path.read_text("utf-8"))["cells"]:
            lines = [line for line in each["source"] if not line.startswith("%")]
            if each["cell_type"] == "code":
                for name, code in functions_and_classes("".join(lines)):
                    found.setdefault(name, []).append((lanes.number(path), code))
    return found


def drifted_copies():
    """Helpers of the checks that are nearly, and not quite, a cell's: "module.name".

    In a chapter's own module the same name means the same thing; elsewhere it does if
    most of the code is alike.
    """
    cells = defined_in_cells()
    for path in sorted((ROOT / "annotated_transformer" / "checks").rglob("*.py")):
        for name, ours in functions_and_classes(path.read_text("utf-8")):
            copies = cells.get(name, [])
            own = [code for n, code in copies if path.stem == f"chapter_{n}"]
            near = own or [code for _, code in copies if is_near(ours, code)]
            if near and ours not in near:
                yield f"{path.stem}.{name}"


def is_near(ours, theirs):
    return SequenceMatcher(None, ours, theirs, autojunk=False).ratio() > 0.7


# Loads in its first line what the notebook has loaded before.
WITH_A_REASON = {"chapter_00.cross_attention"}


def test_a_helper_of_a_check_is_the_same_as_in_the_notebook():
    assert set(drifted_copies()) == WITH_A_REASON


def test_only_annotations_and_docstrings_may_differ_from_the_notebook():
    plain = "def f(a, b=1):\n    total = a\n    return total"
    typed = 'def f(a: int, b: int = 1) -> int:\n    """F."""\n    total: int = a\n'
    assert dict(functions_and_classes(plain)) == dict(
        functions_and_classes(typed + "    return total")
    )
    other = functions_and_classes(plain.replace("= a", "= b"))
    assert dict(other) != dict(functions_and_classes(plain))


def test_a_stub_is_filled_with_comment_decorator_and_body(root):
    assert sync.sync(root, check=False)
    start, end = MODULE.index("# Why"), MODULE.index("\n\n\nclass Box")
    assert source(root, -1) == "# annotated_transformer/toy.py\n" + MODULE[start:end]
    assert sync.sync(root, check=True) == []


def test_a_definition_may_stand_in_a_folder_of_the_package(root):
    folder = root / "annotated_transformer" / "toys"
    folder.mkdir()
    (folder / "box.py").write_text(MODULE, "utf-8")
    cell = {"source": "# annotated_transformer/toys/box.py\nclass Box: ..."}
    lines = "# annotated_transformer/toys/box.py", "class Box:", "    size = 3"
    assert sync.shown(cell, root, "here") == "\n".join(lines)


def test_neighbors_keep_their_distance_and_strangers_get_two_lines(root):
    stubs = "def double(): ...\nclass Box: ...\nSCALE = ...\nSHIFT = ...\nHIGH = ..."
    rewrite_last_cell(root, "# annotated_transformer/toy.py\n" + stubs)
    sync.sync(root, check=False)
    blocks = MODULE[MODULE.index("# Why") :].strip()
    values = MODULE[MODULE.index("# Both") : MODULE.index("\n\n\n# Why")]
    expected = f"# annotated_transformer/toy.py\n{blocks}\n\n\n{values}"
    assert source(root, -1) == expected


def test_a_changed_definition_is_found_and_only_named_by_check(root):
    sync.sync(root, check=False)
    changed = MODULE.replace("SCALE * x", "x * SCALE")
    (root / "annotated_transformer" / "toy.py").write_text(changed, "utf-8")
    before = notebook_path(root).read_bytes()
    drift = ["notebooks/02_toy.ipynb: cell 3, which shows annotated_transformer/toy.py"]
    assert sync.sync(root, check=True) == drift
    assert notebook_path(root).read_bytes() == before
    assert sync.sync(root, check=False) == drift
    assert "x * SCALE" in source(root, -1)


def test_all_else_is_kept_byte_for_byte(root):
    sync.sync(root, check=False)
    before = notebook_path(root).read_text("utf-8")
    changed = MODULE.replace("not x + x", "never x + x")
    (root / "annotated_transformer" / "toy.py").write_text(changed, "utf-8")
    sync.sync(root, check=False)
    after = notebook_path(root).read_text("utf-8")
    assert after == before.replace("not x + x", "never x + x")
    assert "2 µ" in after
    assert [path.name for path in (root / "notebooks").iterdir()] == ["02_toy.ipynb"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("def missing(): ...", "`missing` is not in the package's file"),
        ("print(1)", "line 2 is not a definition"),
        ("def double(:", "invalid syntax"),
    ],
)
def test_a_cell_that_cannot_be_filled_is_named_and_nothing_written(
    root, text, complaint
):
    rewrite_last_cell(root, "# annotated_transformer/toy.py\n" + text)
    before = notebook_path(root).read_bytes()
    with pytest.raises(sync.SyncError, match=complaint) as caught:
        sync.sync(root, check=False)
    assert "notebooks/02_toy.ipynb, cell 3" in str(caught.value)
    assert notebook_path(root).read_bytes() == before


def test_an_address_brings_badges_and_its_removal_takes_them_back(root):
    sync.sync(root, check=False)
    files = [notebook_path(root), root / "README.md", root / "pyproject.toml"]
    before = [path.read_bytes() for path in files]
    assert b"Colab]" not in b"".join(before)
    set_address(root)
    assert len(sync.sync(root, check=False)) == 3
    title = source(root, 0).splitlines()
    assert title[0] == "# 02 Größe"
    assert title[2].startswith("[![Open in Colab](")
    assert title[2].endswith("/someone/course/blob/main/notebooks/02_toy.ipynb)")
    assert title[3:] == ["", "Words."]
    assert "/notebooks/00_start_here.ipynb)\n<!-- /" in files[1].read_text("utf-8")
    assert sync.sync(root, check=True) == []
    files[2].write_bytes(before[2])
    sync.sync(root, check=False)
    assert [path.read_bytes() for path in files] == before


def test_only_github_addresses_have_badges():
    assert "/a/b/blob/" in sync.badge("https://github.com/a/b.git", "x.ipynb")
    assert "/a/b/blob/" in sync.badge("https://github.com/a/b/", "x.ipynb")
    assert sync.badge("https://example.org/a/b", "x.ipynb") == ""
    assert sync.badge(None, "x.ipynb") == ""


@pytest.fixture
def run(root, monkeypatch):
    """Runs the notebook's first code cell; returns what it asked pip for."""
    monkeypatch.setenv("IPYTHONDIR", str(root / "ipython"))
    settings = Config()
    settings.HistoryManager.enabled = False
    shell = InteractiveShell(config=settings)
    asked = []
    shell.register_magic_function(asked.append, magic_name="pip")

    def run(*, colab, installed):
        name = "google.colab"
        if colab:
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        found = "a spec" if installed else None
        monkeypatch.setattr("importlib.util.find_spec", lambda *_: found)
        asked.clear()
        assert source(root, 1).count("\n") < 6
        result = shell.run_cell(source(root, 1), silent=True)
        return asked or result.error_in_exec

    return run


def test_the_first_cell_installs_in_colab_and_does_nothing_elsewhere(root, run):
    set_address(root)
    sync.sync(root, check=False)
    assert read(root)["cells"][1]["metadata"]["tags"] == ["colab"]
    assert run(colab=False, installed=False) is None
    assert run(colab=True, installed=True) is None
    assert run(colab=True, installed=False) == [f'install -q "git+{ADDRESS}"']


def test_without_an_address_colab_says_what_to_do(root, run, capsys):
    sync.sync(root, check=False)
    assert run(colab=False, installed=False) is None
    assert run(colab=True, installed=True) is None
    assert "Upload the wheel" in str(run(colab=True, installed=False))


def test_the_commands_exit_code_tells_of_drift(root, monkeypatch, capsys):
    monkeypatch.setattr(sync, "__file__", str(root / "tools" / "sync.py"))
    monkeypatch.setattr(sys, "argv", ["sync.py", "--check"])
    assert sync.main() == 1
    assert "02_toy.ipynb: cell 3" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["sync.py"])
    assert sync.main() == 0
    monkeypatch.setattr(sys, "argv", ["sync.py", "--check"])
    assert sync.main() == 0
