"""The house: who may import whom, how long a function may be, what is declared."""

import ast
import io
import re
import sys
import tokenize
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "annotated_transformer"
MODULES = {path.stem: path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
SOURCES = sorted(
    path
    for folder in ("annotated_transformer", "benchmarks", "tools", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if path.parent.name != "newcomers"  # as others wrote them
)

CORE = {"attention", "masks", "layers", "transformer", "loss", "schedule"}
LEAVES = {"config", "errors", "settings", "special"}
CACHE = {"cache"}  # an addition to attention, which StepByStep.start puts in

LONGEST = 40  # lines, signature and docstring included: one cell of a notebook
LONGER = {  # name: why it may be longer
    "cli.train": "the options of a command are its signature",
    "cli.evaluate": "the options of a command are its signature",
    "cli.translate": "the options of a command are its signature",
}


def parsed(path):
    return ast.parse(path.read_text("utf-8"))


def ours_imported_by(path):
    """The modules of the package that a file imports, by their short names."""
    found = set()
    for node in ast.walk(parsed(path)):
        assert not (isinstance(node, ast.ImportFrom) and node.level), (
            f"{path}: relative"
        )
        if isinstance(node, ast.ImportFrom) and node.module:
            package, _, module = node.module.partition(".")
            if package == PACKAGE.name:
                found |= {module} if module else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".") for alias in node.names]
            found |= {module for package, _, module in names if package == PACKAGE.name}
    return found


def layers_of_the_house():
    """The modules by floor: each stands on floors below it alone."""
    needs = {
        name: ours_imported_by(path) & set(MODULES) for name, path in MODULES.items()
    }
    floors = []
    while needs:
        floor = sorted(
            name for name, needed in needs.items() if not needed & set(needs)
        )
        assert floor, f"a circle of imports among {sorted(needs)}"
        floors.append(floor)
        needs = {name: needed for name, needed in needs.items() if name not in floor}
    return floors


@pytest.mark.parametrize("module", sorted(CORE))
def test_the_model_stands_on_itself_and_on_leaves_alone(module):
    assert ours_imported_by(MODULES[module]) <= CORE | LEAVES | CACHE


@pytest.mark.parametrize("module", sorted(LEAVES | CACHE))
def test_what_the_model_stands_on_knows_of_nothing_else(module):
    assert ours_imported_by(MODULES[module]) <= CORE | LEAVES


def test_modules_form_layers():
    floors = layers_of_the_house()
    for number, names in enumerate(floors, 1):
        print(number, ", ".join(names))
    assert len(floors) <= 9


def code_lines(path):
    """How many lines hold code: no docstring, no comment, no blank."""
    docstrings = set()
    for node in ast.walk(parsed(path)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node) is not None:
            first = node.body[0]
            docstrings |= set(range(first.lineno, first.end_lineno + 1))
    code = set()
    silent = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT)
    silent += (tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(
        io.StringIO(path.read_text("utf-8")).readline
    ):
        if token.type not in silent:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(code - docstrings)


def test_the_model_is_four_hundred_lines():
    counts = {name: code_lines(MODULES[name]) for name in sorted(CORE)}
    print(counts, sum(counts.values()))
    assert sum(counts.values()) <= 400


def long_functions(path):
    for node in ast.walk(parsed(path)):
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if function and node.end_lineno - node.lineno + 1 > LONGEST:
            yield f"{path.stem}.{node.name}"


def test_a_function_fits_a_cell():
    shown = [path for path in SOURCES if path.parts[-2] != "tests"]
    found = {name for path in shown for name in long_functions(path)}
    assert found == set(LONGER)


def test_no_line_is_a_closing_bracket_with_a_comment():
    burst = re.compile(r"^\s*[])}][^#\"'\n]*#(?! (?:type|fmt|noqa))", re.MULTILINE)
    shown = [path for path in SOURCES if path.parts[-2] != "tests"]
    found = [path.name for path in shown if burst.search(path.read_text("utf-8"))]
    assert found == []


def test_what_is_imported_is_declared_and_the_other_way_round():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    declared, optional = (
        {canonicalize_name(Requirement(line).name) for line in lines}
        for lines in (project["dependencies"], [r for extra in extras for r in extra])
    )
    packages = packages_distributions()
    imported = {
        canonicalize_name(packages[name][0])
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in roots(node)
        if name not in sys.stdlib_module_names and name != PACKAGE.name
    }
    assert imported <= declared | optional
    classroom = {"nbgrader", "nbconvert", "nbformat", "traitlets", "jupyter-client"}
    classroom |= {"bleach", "jinja2"}
    runtimes = {"onnxruntime", "ctranslate2"}
    assert imported - declared <= {"tensorboard", "ipython"} | classroom | runtimes
    assert declared <= imported | {"seaborn"}


def roots(node):
    """The top-level packages that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    return [] if node.level else [node.module.partition(".")[0]]
