"""What the documents tell a reader to type exists, and every shell understands it."""

import ast
import itertools
import json
import re
import shlex
import tomllib
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

from annotated_transformer.cli import app
from tools import lanes

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "book/teach.md"]
FENCE = re.compile(r"```(?:sh|bash|console)\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
FIRST = {
    *("make", "python", "python3", "pip", "uv", "conda", "jupyter", "source", "cd"),
    *("annotated-transformer", "nbgrader", "git"),
}
EXTRAS = re.compile(r"(.?)\.\[([a-z,]+)\](.?)")


def commands(text):
    """Each command of a document: lines of its shell blocks, and code in its text."""
    blocks = (block.replace("\\\n", "") for block in FENCE.findall(text))
    lines = [line for block in blocks for line in block.splitlines()]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines += [code for code in INLINE.findall(prose) if " " in code]
    split = [shlex.split(line, comments=True) for line in lines]
    return [words for words in split if words and words[0] in FIRST]


def of(document, *names):
    found = commands((ROOT / document).read_text("utf-8"))
    return [words for words in found if words[0] in names]


each_document = pytest.mark.parametrize("document", DOCUMENTS)


@each_document
def test_targets_of_make_exist(document):
    for _, target, *variables in of(document, "make"):
        assert target in TARGETS
        assert all("=" in word for word in variables), variables


@each_document
def test_commands_and_options_of_the_console_script_exist(document):
    group = typer.main.get_command(app)
    for _, name, *arguments in of(document, "annotated-transformer"):
        command = group.commands[name]
        options = {option for p in command.params for option in p.opts}
        named = {word.partition("=")[0] for word in arguments if word[:2] == "--"}
        assert named <= options | {"--help"}, (name, named - options)
    assert "annotated-transformer" in PROJECT["scripts"]


@each_document
def test_files_and_modules_that_python_is_to_run_exist(document):
    for _, first, *rest in of(document, "python", "python3"):
        if first == "-m":
            # The first does not disturb setuptools, which guards the name of pip.
            assert PathFinder.find_spec(rest[0]) or find_spec(rest[0]), rest[0]
        else:
            assert (ROOT / first).is_file(), first
    for words in of(document, "pip", "python", "uv", "conda"):
        for flag, value in itertools.pairwise(words):
            if flag in ("-c", "-f", "-r"):
                assert (ROOT / value).is_file(), value


def test_the_way_without_make_is_four_lines_and_ends_at_chapter_00():
    text = (ROOT / "README.md").read_text("utf-8")
    (block,) = [block for block in FENCE.findall(text) if "-m venv" in block]
    venv, activate, install, start = map(shlex.split, block.splitlines())
    assert venv[1:] == ["-m", "venv", ".venv"]
    assert activate == ["source", ".venv/bin/activate"]
    assert install == [*"python -m pip install -c constraints.txt -e".split(), ".[lab]"]
    page = start[-1].partition("=/lab/tree/")[2]
    assert start[:2] == ["jupyter", "lab"]
    assert (ROOT / page).name == "00_start_here.ipynb" and (ROOT / page).is_file()
    assert start[-1] in (ROOT / "Makefile").read_text()  # both open the same page


def texts():
    """All that may tell somebody to install: documents, code and notebooks."""
    for folder, pattern in (("", "*.md"), ("book", "*.md"), ("", "Makefile")):
        for path in (ROOT / folder).glob(pattern):
            yield path, path.read_text("utf-8")
    for folder in ("annotated_transformer", "benchmarks", "tools", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            if path != Path(__file__):
                yield path, path.read_text("utf-8")
    for path in lanes.all_notebooks():
        cells = json.loads(path.read_text("utf-8"))["cells"]
        yield path, "\n".join("".join(cell["source"]) for cell in cells)


def test_extras_exist_and_stand_in_double_quotes_which_every_shell_takes_off():
    seen = 0
    for path, text in texts():
        for match in EXTRAS.finditer(text):
            line = text[: match.start()].rpartition("\n")[2] + match[0]
            if "-e" in line:
                seen += 1
                assert set(match[2].split(",")) <= set(PROJECT["optional-dependencies"])
                python = path.name.startswith("test_")  # an argument, after the shell
                assert python or match[1] == match[3] == '"', f"{path}: {line}"
    assert seen > 5


def test_chapter_00_checks_before_anything_else_and_knows_colab():
    notebook = json.loads((ROOT / "notebooks/00_start_here.ipynb").read_text("utf-8"))
    codes = ["".join(c["source"]) for c in notebook["cells"] if "outputs" in c]
    assert "google.colab" in codes[0] and "google.colab" in codes[1]
    strings = {
        node.value
        for node in ast.walk(ast.parse(codes[1]))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert any("%pip install annotated_transformer-*.whl" in text for text in strings)
    assert any("make wheel" in text for text in strings)
