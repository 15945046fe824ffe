"""Set-up for all tests: shapes are checked, and sums are added in one order."""

import importlib.util
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

# Kernels started by nbval inherit it, and match what `make notebooks` stored.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from filelock import FileLock
from jaxtyping import install_import_hook

torch.set_num_threads(1)

# Run in the background, pytest may have been told to ignore Ctrl-C, and so would the
# commands that the tests stop with it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Every call of a module with tensors now checks its arguments, shapes too, against its
# signature; an int will do for a float. This must come before their first import.
WITH_SHAPES = "attention batches copy_task decoding layers loss masks".split()
install_import_hook(
    [f"annotated_transformer.{name}" for name in [*WITH_SHAPES, "transformer"]],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

# The fixtures of the book in a browser.
pytest.register_assert_rewrite("visits")
from visits import address, browser, seen  # noqa: E402, F401


def pytest_addoption(parser: pytest.Parser) -> None:
    """Longer tests, on request."""
    text = "run every chapter with the wheel alone, not two"
    parser.addoption("--all-chapters", action="store_true", help=text)
    text = "examine every patient of the doctor, not one for each cause"
    parser.addoption("--all-patients", action="store_true", help=text)
    text = "translate 620 sentences with the engine of the book's pages, not 40"
    parser.addoption("--all-sentences", action="store_true", help=text)
    text = "how many hostile inputs to try of each of five kinds"
    parser.addoption("--fuzz-cases", type=int, default=40, help=text)


@pytest.fixture(scope="session")
def multi30k_folder() -> Path:
    """The folder with the real corpus, or a skip that says how to name it."""
    folder = Path(os.environ.get("ANNOTATED_TRANSFORMER_DATA") or "no folder")
    if not any(folder.glob("**/train.de*")):
        pytest.skip(
            "Multi30k is not here: name its folder in ANNOTATED_TRANSFORMER_DATA"
        )
    return folder


@pytest.fixture(scope="session")
def book_lock(tmp_path_factory: pytest.TempPathFactory) -> FileLock:
    """Held while a book is built: one at a time, for its scripts are fetched once."""
    if not importlib.util.find_spec("jupyter_book"):
        pytest.skip("Jupyter Book is not installed: `make test` does it")
    if not shutil.which("npm"):
        pytest.skip("npm is not here; it fetches the book's scripts")
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent  # the workers' common folder
    return FileLock(shared / "book.lock")


@pytest.fixture(scope="session")
def book_site(book_lock: FileLock) -> Path:
    """The built book: once for all tests, whichever worker wants it first."""
    from tools.book.build import build

    folder = Path(book_lock.lock_file).with_name("book")
    with book_lock:
        site = folder / "site"
        return site if site.exists() else build(folder)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the seconds that each notebook took, its kernel's start included."""
    seconds: Counter[str] = Counter()
    for report in terminalreporter.getreports("") + terminalreporter.getreports(
        "passed"
    ):
        name = report.nodeid.partition("::")[0]
        if name.endswith(".ipynb"):
            seconds[name] += report.duration
    if seconds:
        terminalreporter.section("seconds per notebook")
        for name in sorted(seconds):
            terminalreporter.write_line(f"{seconds[name]:6.1f}  {name}")
