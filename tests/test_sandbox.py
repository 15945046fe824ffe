"""The sandbox against attacks that get through without it."""

import json
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import attacks
import pytest

from annotated_transformer.checks import sandbox

HERE = sandbox.missing() is None
needs_sandbox = pytest.mark.skipif(not HERE, reason=f"no sandbox: {sandbox.missing()}")


def a_course(folder):
    """A gradebook, the work of three students, and what may not be cut."""
    for student in ("weak", "gone", "moved"):
        (folder / "submitted" / student).mkdir(parents=True)
        (folder / "submitted" / student / "ps.ipynb").write_text("my work")
    (folder / "source").mkdir()
    (folder / "source" / "ps.ipynb").write_text("the solutions")
    (folder / "cut.txt").write_text("long")
    with sqlite3.connect(folder / "gradebook.db") as book:
        book.execute("create table grade (auto_score)")
        book.execute("insert into grade values (7)")
    return folder


def contents(folder):
    """Every file of a folder, and what is in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def attacked(folder, *launcher):
    """What each attack met, and the course before and after."""
    course = a_course(folder / "course")
    before = contents(course)
    own = folder / "own"
    (own / "work").mkdir(parents=True)
    sandbox.furnish(own)
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, attacks.__file__, str(course)]
        if launcher:
            command[1] = shutil.copy(attacks.__file__, own)
            command = [*launcher, str(own), "--closed", str(course), "--", *command]
        done = subprocess.run(
            [*command, str(server.getsockname()[1])],
            cwd=own / "work",
            env=sandbox.environment(own),
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    return json.loads((own / "work" / "found.json").read_text()), before, course


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    launcher = [sys.executable, "-I", sandbox.__file__]
    return attacked(tmp_path_factory.mktemp("closed"), *launcher)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return attacked(tmp_path_factory.mktemp("opened"))


@needs_sandbox
@pytest.mark.parametrize("attack", attacks.ALL)
def test_an_attack_is_refused(closed, attack):
    found, _, _ = closed
    assert found[attack] != "done"
    assert "Error" in found[attack]


@needs_sandbox
def test_after_all_attacks_the_course_is_what_it_was(closed):
    _, before, course = closed
    assert contents(course) == before


@needs_sandbox
def test_without_the_sandbox_the_attacks_succeed(opened):
    found, before, course = opened
    beaten = {name for name, met in found.items() if met != "done"}
    # What depends on the machine: who the user is, and how the network is set up.
    assert beaten <= {"another user", "fast open", "a larger limit"}
    after = contents(course)
    changed = {p for p in before if after.get(p) != before[p]}
    assert {"gradebook.db", "cut.txt", "submitted/gone/ps.ipynb"} <= changed
    assert {f"submitted/weak/{x}.ipynb" for x in "abd"} <= set(after) - set(before)


@needs_sandbox
def test_a_sandbox_that_does_not_hold_starts_nothing(tmp_path):
    sandbox.furnish(tmp_path)
    done = subprocess.run(
        [sys.executable, "-I", sandbox.__file__, str(tmp_path)]
        + ["--closed", "/usr", "--", sys.executable, "-c", "open('ran', 'w')"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "no sandbox: /usr lies in a folder that the sandbox needs to read\n"
    )
    assert not (tmp_path / "ran").exists()


def test_a_machine_without_a_sandbox_says_what_it_lacks(monkeypatch):
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    monkeypatch.setattr(sandbox.platform, "system", lambda: "Darwin")
    assert sandbox.missing() == "this is Darwin, and the sandbox needs Linux"


@pytest.mark.parametrize(
    ("column", "headers"), [(0, "*/asm/unistd_64.h"), (1, "asm-generic/unistd.h")]
)
def test_the_numbers_of_calls_are_those_of_the_kernel(column, headers):
    found = list(Path("/usr/include").glob(headers))
    if not found:
        pytest.skip(f"no kernel headers here: /usr/include/{headers}")
    defined = re.compile(r"#define __NR(?:3264)?_(\w+)\s+(\d+)")
    known = dict(reversed(defined.findall(found[0].read_text())))
    newer = {"fchmodat2", "setxattrat", "removexattrat", "file_setattr"}
    ours = {**sandbox.REFUSED, **sandbox.WITHOUT_EFFECT, **sandbox.BY_ARGUMENT}
    for name, numbers in ours.items():
        if name in known or name not in newer:
            assert numbers[column] == int(known.get(name, -1)), name


def test_the_command_gets_no_password_of_the_teacher(monkeypatch, tmp_path):
    monkeypatch.setenv("MY_TOKEN", "secret")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    variables = sandbox.environment(tmp_path)
    assert "MY_TOKEN" not in variables
    assert variables["LC_ALL"] == "C.UTF-8"
    assert variables["HOME"] == variables["TMPDIR"] == str(tmp_path / "home")
