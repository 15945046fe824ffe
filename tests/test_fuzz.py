"""Hostile input never ends in a traceback, a hang, or gigabytes (`tests/fuzz.py`)."""

import subprocess
import sys

import pytest

from tests.fuzz import GROUPS
from tools.wrong_answers import ROOT


@pytest.mark.skipif(sys.platform == "win32", reason="alarms and FIFOs are Unix's")
@pytest.mark.parametrize("group", GROUPS)
def test_hostile_input_is_refused_in_one_line(group, pytestconfig):
    cases = pytestconfig.getoption("--fuzz-cases")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", group, "--cases", str(cases)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stdout == "" and done.returncode == 0, done.stderr[-3_000:]
