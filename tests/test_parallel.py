"""Two processes end with the weights of one, by hand, by DDP and by FSDP2."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from annotated_transformer import parallel
from annotated_transformer.files import read_json
from annotated_transformer.processes import Processes, launch

fsdp = pytest.importorskip("torch.distributed.fsdp")
pytestmark = pytest.mark.skipif(
    not hasattr(fsdp, "fully_shard"), reason="FSDP2 needs torch 2.6"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("together")
    launch(parallel.compare, path, processes=2)
    return path


@pytest.mark.parametrize("way", parallel.WAYS)
def test_two_processes_end_with_the_weights_of_one(folder, way):
    alone, _ = parallel.learn("one process", Processes())
    assert_close(load_file(folder / f"{way}.safetensors"), alone)


def test_training_changes_the_weights():
    before, _ = parallel.learn("one process", Processes(), steps=0)
    after, _ = parallel.learn("one process", Processes())
    assert not torch.equal(
        before["src_embeddings.weight"], after["src_embeddings.weight"]
    )


def test_only_fsdp_divides_weights_gradients_and_the_optimizers_state(folder):
    held = read_json(folder / "processes.json")["held"]
    every = sum(p.numel() for p in parallel.new_objective(parallel.SMALL).parameters())
    assert held["by hand"] == held["DDP"] == [[every] * 3] * 2
    for kind in zip(*held["FSDP2"], strict=True):
        assert sum(kind) == every
        assert max(kind) < 0.6 * every


def test_every_way_to_divide_the_work_has_its_seconds(folder):
    measured = read_json(folder / "processes.json")
    seconds = measured["seconds"]
    assert list(seconds) == ["one process", "2 processes"]
    assert all(len(s) == 5 and min(s) > 0 for s in seconds.values())
    assert 64 * 4 <= measured["tokens"] <= 64 * 20
    assert measured["operations"] > 6 * parallel.LARGER.d_model**2 * measured["tokens"]


def test_alone_it_says_how_to_start_it(tmp_path):
    line = [sys.executable, "-m", "annotated_transformer.parallel", str(tmp_path)]
    run = subprocess.run(line, capture_output=True, text=True, env={**os.environ})
    assert run.returncode == 2 and "torchrun" in run.stderr


def test_torchrun_starts_the_same_program(folder, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    program = ["--nproc-per-node", "2", "-m", "annotated_transformer.parallel"]
    run = subprocess.run([*launcher, *program, tmp_path], capture_output=True)
    assert run.returncode == 0, run.stderr.decode()
    for way in parallel.WAYS:
        ours, theirs = (load_file(f / f"{way}.safetensors") for f in (folder, tmp_path))
        assert_close(theirs, ours)
