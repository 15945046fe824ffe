"""Whatever stops a run, a power cut or `kill -9`, --resume gives the same bytes.

ANNOTATED_TRANSFORMER_STOPS says how many kills and cuts are tried, 25 for instance.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from annotated_transformer import cli
from annotated_transformer.grammar import grammar_corpus
from annotated_transformer.progress import read_history
from tests.power import Disk, disk_after_cuts

KILLS = int(os.environ.get("ANNOTATED_TRANSFORMER_STOPS", "2"))
CUTS = max(KILLS, 20)
OPTIONS = (
    "train --vocab-size 100 --d-model 8 --d-ff 12 "
    "--n-heads 2 --n-layers 1 --batch-tokens 300 --steps 6 --validate-every 2 "
    "--warmup 3 --keep 1 --processes 1 --dropout 0.2"
).split()


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The arguments of a run on a few sentences, so that a validation is quick."""
    corpus = tmp_path_factory.mktemp("corpus") / "pairs.tsv"
    pairs = grammar_corpus(60)["train"]
    corpus.write_text("".join(f"{de}\t{en}\n" for de, en in pairs), "utf-8")
    return [*OPTIONS, "--corpus", str(corpus), "--run"]


def train(*arguments):
    """Train in this process, through the command line."""
    cli.app([*map(str, arguments)], standalone_mode=False)


def result(run):
    """All that a run has left, but for the time that it took."""
    found = {}
    for path in sorted(Path(run).rglob("*")):
        name = str(path.relative_to(run))
        if path.name == "state.json":
            state = json.loads(path.read_text("utf-8"))
            found[name] = {k: v for k, v in state.items() if "minutes" not in k}
        elif path.is_file() and path.name not in ("history.jsonl", "curve.png"):
            found[name] = path.read_bytes()
    rows = read_history(Path(run))
    found["rows"] = [{k: v for k, v in r.items() if "minutes" not in k} for r in rows]
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory, command):
    """The result of a run that never stopped, and how many calls it made."""
    folder = tmp_path_factory.mktemp("whole")
    disk = Disk(folder)
    disk.watch(lambda number: None, lambda: train(*command, folder / "run"))
    disk.close()
    return result(folder / "run"), disk.calls


@pytest.mark.filterwarnings("ignore")
def test_after_a_power_cut_a_run_resumes_to_the_same_bytes(tmp_path, whole, command):
    expected, calls = whole
    moments = random.Random(0).sample(range(1, calls + 1), min(CUTS, calls))
    disk = tmp_path / "disk"
    disk.mkdir()
    cuts = disk_after_cuts(
        disk, lambda: train(*command, disk / "run"), tmp_path / "cuts", moments
    )
    assert len(cuts) == len(moments) and result(disk / "run") == expected
    for cut in cuts:
        train(*command, cut / "run", "--resume")
        assert result(cut / "run") == expected, cut.name


def test_killed_at_any_moment_a_run_resumes_to_the_same_bytes(tmp_path, whole, command):
    expected, _ = whole
    python = [sys.executable, "-m", "annotated_transformer"]
    chance = random.Random(0)
    for number in range(KILLS):
        run = tmp_path / str(number)
        victim = subprocess.Popen([*python, *command, run], stdout=-3, stderr=-3)
        while not run.exists():
            assert victim.poll() is None
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 1.5))
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        train(*command, run, "--resume")
        assert result(run) == expected, number
