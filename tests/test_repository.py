"""What is said in two places agrees, and nothing of one machine is left in a file."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rattler import MatchSpec

from tools import lanes

ROOT = Path(__file__).parents[1]
NOTEBOOKS = lanes.all_notebooks()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

MACHINE_PATHS = re.compile(r"(?<![\w.:/-])/(?:home|root|Users|work|opt|mnt)/\w")
TEMPORARY_PATHS = re.compile(r"/(?:tmp|ipykernel_\d+|site-packages)/")
REGISTRIES = re.compile(r"(?:pypi|pythonhosted|npmjs|anaconda|download\.pytorch)\.org")
LOCAL_BUILDS = re.compile(r"\d[+]cpu\b")
CAPTION = re.compile(r"\*\*Fig\. [D\d.]+\*\*")
FIGURES = {"image/png", "image/svg+xml", "application/vnd.vegalite.v5+json"}


def read(name):
    return (ROOT / name).read_text("utf-8")


def pins():
    lines = [line for line in read("constraints.txt").splitlines() if line[0] != "#"]
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r.specifier for r in requirements}


def tracked_files():
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a Git checkout")
    return [ROOT / name for name in listing.stdout.splitlines()]


def test_the_types_of_all_code_but_the_tests_are_checked():
    settings = tomllib.loads(read("pyproject.toml"))["tool"]["mypy"]
    folders = {path.relative_to(ROOT).parts[0] for path in tracked_files()}
    code = {name for name in folders if list((ROOT / name).glob("*.py"))}
    # What assignments/ has is a configuration, with a name that nbgrader defines.
    assert set(settings["files"]) == code - {"tests", "assignments"}


def test_the_cost_of_the_model_that_ships_is_said_alike():
    card = read("annotated_transformer/pretrained/README.md")
    (cost,) = re.findall(r"^\| cost \| (.*?); ", card, re.MULTILINE)
    for name in ("README.md", "notebooks/the_paper_in_one_sitting.ipynb"):
        assert cost in " ".join(read(name).split()), name


def test_constraints_pin_each_package_once_in_order():
    lines = [line for line in read("constraints.txt").splitlines() if line[0] != "#"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    names = [canonicalize_name(line.partition("==")[0]) for line in lines]
    assert names == sorted(set(names))


@pytest.mark.parametrize("extra", ["", *PROJECT["optional-dependencies"]])
def test_each_direct_dependency_is_pinned_within_its_range(extra):
    groups = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    pinned = pins()
    for requirement in map(Requirement, groups[extra]):
        (pin,) = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin.version), requirement


def test_conda_and_pip_users_get_the_same():
    environment = yaml.safe_load(read("environment.yml"))
    python, pip, section = environment["dependencies"]
    python = MatchSpec(python)
    assert python.name.normalized == "python"
    version = str(python.version).removesuffix(".*")
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)
    assert MatchSpec(pip).name.normalized == "pip"
    assert section["pip"] == ["-c constraints.txt", "-e .[lab,test]"]
    assert environment["name"] == PROJECT["name"]


def test_citation_names_this_version():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_each_make_command_in_the_documents_exists(name):
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    code = "".join(re.findall(r"```.*?```|`[^`]+`", read(name), re.DOTALL))
    named = set(re.findall(r"\bmake ([a-z-]+)", code))
    assert "test" in named
    assert named <= targets


def test_the_automatic_check_runs_the_documented_command():
    commands = [line for line in read(".ci/run").splitlines() if line[:1].isalpha()]
    assert commands[-1] == "make test"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_files_hold_no_path_of_a_machine_no_registry_and_no_local_build():
    found = []
    for path in tracked_files():
        try:
            text = path.read_text("utf-8")
        except (UnicodeDecodeError, FileNotFoundError):  # weights; a deleted file
            continue
        for pattern in (MACHINE_PATHS, REGISTRIES, LOCAL_BUILDS):
            found += [
                f"{path.relative_to(ROOT)}: {m[0]}" for m in pattern.finditer(text)
            ]
    assert found == []


@pytest.fixture
def checkout(tmp_path):
    """The files that set-up reads, and a stand-in for Python that installs nothing."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(
        """#!/bin/sh
        case "$*" in
          "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
          "-m pip"*torch==*) echo "pip $*" >> log ;;
          "-m pip"*) echo "pip $*" >> log; test ! -e offline ;;
          "-m pytest"*) echo pytest >> log ;;
          --version) echo Python 3.9.2 ;;
          -c*version*) test ! -e old ;;
        esac
        """
    )
    python.chmod(0o755)
    return tmp_path


def make_test(folder, python="./python"):
    # When `make test` runs this, its own settings must not reach the inner make.
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))
    }
    return subprocess.run(
        ["make", "test", f"PYTHON={python}"],
        cwd=folder,
        env=clean,
        capture_output=True,
        text=True,
    )


def test_set_up_happens_once_and_again_only_after_failure_or_change(checkout):
    log = checkout / "log"
    (checkout / "offline").touch()
    assert make_test(checkout).returncode != 0
    assert not (checkout / ".venv" / ".stamp").exists()
    assert "pytest" not in log.read_text()

    (checkout / "offline").unlink()
    log.unlink()
    assert make_test(checkout).returncode == 0
    first, second, third, fourth, fifth, last = log.read_text().splitlines()
    (torch,) = re.findall(r"^torch==.*", read("constraints.txt"), re.MULTILINE)
    assert first.endswith(f"-c constraints.txt {torch}")
    assert second.endswith("-c constraints.txt -e .[lab,test]")
    assert third.endswith("-c constraints.txt -e .[book]")
    assert fourth.endswith("-c constraints.txt -e .[classroom]")
    assert fifth.endswith("-c constraints.txt -e .[export]")
    assert last == "pytest"

    log.unlink()
    assert make_test(checkout).returncode == 0
    assert log.read_text() == "pytest\n"

    for name in ("pyproject.toml", "constraints.txt"):
        os.utime(checkout / "pyproject.toml", (0, 0))
        os.utime(checkout / "constraints.txt", (0, 0))
        os.utime(checkout / ".venv" / ".stamp", (60, 60))
        os.utime(checkout / name)  # changed now
        log.unlink()
        assert make_test(checkout).returncode == 0
        steps = first, second, third, fourth, fifth, "pytest"
        assert log.read_text().splitlines() == list(steps)


def test_an_old_or_missing_python_is_named(checkout):
    missing = make_test(checkout, python="no-such-python")
    assert "No 'no-such-python' here" in missing.stdout
    (checkout / "old").touch()
    old = make_test(checkout)
    assert "needs Python 3.11 or newer; './python' is Python 3.9.2" in old.stdout
    assert missing.returncode
    assert old.returncode
    assert not (checkout / ".venv").exists()


@pytest.fixture(params=NOTEBOOKS, ids=lanes.name)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lanes.name)
def test_a_notebook_is_stored_as_jupyter_stores_it(path):
    content = nbformat.read(path, as_version=4)
    nbformat.validate(content)
    assert path.read_text("utf-8") == nbformat.writes(content) + "\n"


def test_a_notebook_ran_from_top_to_bottom(notebook):
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in codes if cell.source.strip()]
    assert counts == list(range(1, len(counts) + 1))


def test_a_notebook_shows_no_warning_no_error_and_no_path_of_a_machine(notebook):
    for i, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", f"cell {i}"
            if output.output_type == "error":
                assert "raises-exception" in cell.metadata.get("tags", []), f"cell {i}"
            text = str(output)
            assert not MACHINE_PATHS.search(text), f"cell {i}"
            assert not TEMPORARY_PATHS.search(text), f"cell {i}"


def captions_wanted(cells):
    """The cells that show a figure, each with the text in which its caption stands."""
    for i, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            if re.search(r"(?<!\[)!\[", cell.source):
                yield i, cell.source
        elif any(FIGURES & set(output.get("data", {})) for output in cell.outputs):
            following = cells[i + 1 : i + 2]
            yield i, following[0].source if following else ""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lanes.name)
def test_each_figure_has_a_caption_and_captions_count_up(path):
    content = nbformat.read(path, as_version=4)
    for i, text in captions_wanted(content.cells):
        assert CAPTION.search(text), f"cell {i}"
        assert "![](" not in text, f"cell {i}: no words for those who cannot see it"
    texts = [cell.source for cell in content.cells if cell.cell_type == "markdown"]
    numbers = re.findall(r"\*\*Fig\. ([^*]+)\*\*", "\n".join(texts))
    assert numbers == [lanes.figure(path, i + 1) for i in range(len(numbers))]


def test_an_article_in_the_bibliography_names_its_journal():
    entries = read("book/references.bib").split("\n@")
    articles = [entry for entry in entries if entry.startswith("article{")]
    assert articles  # what has no journal is @misc, or the book would not build
    assert [entry for entry in articles if "journal = " not in entry] == []


def test_every_entry_of_the_bibliography_closes_its_braces():
    entries = re.findall(r"@.*?(?=^@|\Z)", read("book/references.bib"), re.M | re.S)
    assert len(entries) > 50
    assert [e for e in entries if e.count("{") != e.count("}")] == []
