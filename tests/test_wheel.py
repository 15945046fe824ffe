"""A notebook and the wheel are enough, as in Colab: no checkout, no corpus.

Two chapters are run in an empty folder; `--all-chapters` runs every one.
"""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import lanes

ROOT = Path(__file__).parents[1]
NOTEBOOKS = lanes.all_notebooks()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
RUN = {"00_start_here", "03_masks"}
each_chapter = pytest.mark.parametrize("path", NOTEBOOKS, ids=lanes.name)


def code_of(path):
    cells = nbformat.read(path, as_version=4).cells
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    plain = [re.sub(r"^\s*%.*", "", source, flags=re.MULTILINE) for source in sources]
    return ast.parse("\n".join(plain))


@each_chapter
def test_a_chapter_imports_only_what_the_wheel_brings(path):
    tree = code_of(path)
    declared = packages_of(PROJECT["dependencies"])
    declared |= {PROJECT["name"], "packaging"}  # Jupyter's own kernel needs the second
    plain = ast.Module([node for node in tree.body if not asks_first(node)], [])
    assert PROJECT["name"] in imported(plain)
    assert imported(plain) <= declared
    more = packages_of(PROJECT["optional-dependencies"]["export"])
    assert imported(tree) <= declared | more


def packages_of(requirements):
    return {canonicalize_name(Requirement(r).name) for r in requirements}


def asks_first(node):
    """What stands below `if find_spec(...)` runs only where the package is."""
    return isinstance(node, ast.If) and "find_spec" in ast.unparse(node.test)


def imported(tree):
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names.add(node.module.partition(".")[0])
    names -= set(sys.stdlib_module_names)
    packages = packages_distributions()
    return {canonicalize_name(p) for n in names for p in packages.get(n, [n])}


@each_chapter
def test_a_chapter_opens_no_file_beside_it(path):
    for node in ast.walk(code_of(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not re.match(r"\.\.?/|(?:notebooks|book|tools|tests)/", node.value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            literal = bool(node.args) and isinstance(node.args[0], ast.Constant)
            assert not (node.func.id in ("open", "Path") and literal), node.lineno


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that holds what the wheel installs, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [
            sys.executable,
            *"-m pip wheel --no-deps -q --wheel-dir".split(),
            folder,
            ROOT,
        ],
        capture_output=True,
        text=True,
    )
    if "No matching distribution" in built.stderr:
        pytest.skip("no network here: the wheel's builder could not be fetched")
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("annotated_transformer-*.whl")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_the_package_and_nothing_of_the_repository(site):
    tops = {path.name for path in site.iterdir()}
    assert tops == {
        PROJECT["name"].replace("-", "_"),
        f"annotated_transformer-{PROJECT['version']}.dist-info",
    }
    shipped = site / "annotated_transformer" / "pretrained"
    assert {path.name for path in shipped.iterdir()} == {
        path.name for path in (ROOT / "annotated_transformer/pretrained").iterdir()
    }


@each_chapter
def test_a_chapter_runs_from_an_empty_folder(path, site, tmp_path, request):
    if lanes.name(path) not in RUN and not request.config.getoption("--all-chapters"):
        pytest.skip("runs with --all-chapters")
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = os.environ | {"PYTHONPATH": str(site), "HOME": str(tmp_path)}
    for name in ("ANNOTATED_TRANSFORMER_DATA", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    notebook = nbformat.read(path, as_version=4)
    where = "import annotated_transformer as a; print(a.__file__)"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(where))
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=None,
        resources={"metadata": {"path": str(empty)}},
    )
    client.execute(env=environment)  # an error is raised here
    assert str(site) in notebook.cells[0].outputs[0].text
    assert list(empty.iterdir()) == []
