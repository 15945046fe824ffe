"""Checkpoints: whole or not at all, never code, and averages that are averages."""

import os
import pickle
import resource
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from annotated_transformer.checkpoints import (
    OPTIMIZER,
    WEIGHTS,
    average_weights,
    check_sizes,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)
from annotated_transformer.config import TransformerConfig
from annotated_transformer.errors import InputError
from annotated_transformer.files import read_json
from annotated_transformer.training import adam
from annotated_transformer.transformer import Transformer


def new_model(seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {"vocab_size": 11, "d_model": 8, "d_ff": 12, "n_heads": 2, "n_layers": 1}
    return Transformer(TransformerConfig(**{**sizes, **changes}))


def files(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_what_is_saved_is_loaded_with_the_shared_matrix_once(tmp_path):
    saved, loaded = new_model(0), new_model(1)
    save_weights(tmp_path / "model.safetensors", saved)
    load_weights(tmp_path / "model.safetensors", loaded)
    for a, b in zip(saved.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(a, b)
    assert loaded.src_embeddings.weight is loaded.tgt_embeddings.weight
    assert len(load_file(tmp_path / "model.safetensors")) == len(
        list(saved.parameters())
    )


def test_optimizer_and_state_survive(tmp_path):
    model = new_model()
    optimizer = adam(model)
    optimizer.param_groups[0]["lr"] = 0.1
    model(torch.tensor([[5, 2]]), torch.tensor([[1, 6]])).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "step-1", model, optimizer, {"step": 1})
    again = new_model(1)
    fresh = adam(again)
    assert load_checkpoint(tmp_path / "step-1", again, fresh) == {"step": 1}
    old, new = optimizer.state_dict()["state"], fresh.state_dict()["state"]
    assert old.keys() == new.keys() and len(old) > 10
    assert all(torch.equal(old[i][name], new[i][name]) for i in old for name in old[i])


def test_a_disk_that_fills_while_writing_leaves_nothing_half_written(tmp_path):
    program = f"""
import resource, signal
from pathlib import Path
import tests.test_checkpoints as here
from annotated_transformer.checkpoints import save_checkpoint
model = here.new_model(vocab_size=3000)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    save_checkpoint(Path({str(tmp_path)!r}) / "step-1", model, here.adam(model), {{}})
except OSError as error:
    print("OSError", error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert done.stdout.startswith("OSError"), done.stderr
    assert files(tmp_path) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 50_000


class Bomb:
    def __reduce__(self):
        return (open, ("pickle-was-run", "w"))


def test_a_pickle_posing_as_weights_is_refused_and_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in [("plain", pickle.dumps(Bomb())), ("torch", None)]:
        path = tmp_path / f"{name}.safetensors"
        if content is None:
            torch.save({"weights": Bomb()}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(InputError, match="not a complete safetensors file"):
            load_weights(path, new_model())
        with pytest.raises(InputError, match="not a complete safetensors file"):
            average_weights([path])
    assert not (tmp_path / "pickle-was-run").exists()


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_truncated_weights_are_refused(tmp_path, keep):
    path = tmp_path / "model.safetensors"
    save_weights(path, new_model())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="not a complete safetensors file"):
        load_weights(path, new_model())


def test_weights_of_another_size_are_refused_in_one_line(tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(path, new_model())
    for other in (
        new_model(d_ff=20),
        new_model(n_layers=2),
        new_model(tgt_vocab_size=7),
    ):
        with pytest.raises(
            InputError, match="does not fit the model's settings"
        ) as caught:
            load_weights(path, other)
        assert "\n" not in str(caught.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match="model.safetensors is missing"):
        load_weights(tmp_path / "model.safetensors", new_model())
    with pytest.raises(InputError, match="settings.json is missing"):
        read_json(tmp_path / "settings.json")


def test_the_average_is_the_mean_of_every_number(tmp_path):
    values = [1.0, 2.0, 6.0]
    for i, value in enumerate(values):
        tensors = {"a": torch.full((2, 3), value), "b": torch.tensor([value, -value])}
        save_file(tensors, tmp_path / f"{i}.safetensors")
    mean = average_weights([tmp_path / f"{i}.safetensors" for i in range(3)])
    torch.testing.assert_close(mean["a"], torch.full((2, 3), 3.0))
    torch.testing.assert_close(mean["b"], torch.tensor([3.0, -3.0]))


def test_averages_of_different_models_or_of_none_are_refused(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "2.safetensors")
    save_file({"a": torch.zeros(3)}, tmp_path / "3.safetensors")
    with pytest.raises(InputError, match="different sizes"):
        average_weights([tmp_path / "2.safetensors", tmp_path / "3.safetensors"])
    with pytest.raises(InputError, match="no checkpoints"):
        average_weights([])


def test_a_plain_module_without_sharing_works_too(tmp_path):
    layer = nn.Linear(2, 3)
    save_weights(tmp_path / "layer.safetensors", layer)
    other = nn.Linear(2, 3)
    load_weights(tmp_path / "layer.safetensors", other)
    assert torch.equal(layer.weight, other.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_keeps_its_precision_whatever_the_file_has(tmp_path, dtype):
    saved, loaded = new_model(0).to(dtype), new_model(1)
    save_weights(tmp_path / WEIGHTS, saved)
    load_weights(tmp_path / WEIGHTS, loaded)
    for there, here in zip(saved.parameters(), loaded.parameters(), strict=True):
        assert here.dtype == torch.float32
        assert torch.equal(here, there.float())


def test_numbers_are_cast_here_not_by_the_library(tmp_path, monkeypatch):
    def refuses(*arguments, **options):
        raise AssertionError("safetensors 0.6.1 and 0.6.2 refuse another precision")

    save_weights(tmp_path / WEIGHTS, new_model().half())
    monkeypatch.setattr("safetensors.torch.load_model", refuses)
    monkeypatch.setattr(nn.Module, "load_state_dict", refuses)
    load_weights(tmp_path / WEIGHTS, new_model())


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path, number):
    model, kept = new_model(), new_model(1)
    before = [parameter.clone() for parameter in kept.parameters()]
    with torch.no_grad():
        model.decoder.layers[0].feed_forward.widen.bias[3] = number
    save_weights(tmp_path / WEIGHTS, model)
    name = "decoder.layers.0.feed_forward.widen.bias holds NaN or infinity"
    with pytest.raises(InputError, match=name):
        load_weights(tmp_path / WEIGHTS, kept)
    for old, new in zip(before, kept.parameters(), strict=True):
        assert torch.equal(old, new)  # nothing of such a file is taken


def test_a_number_too_large_for_the_model_is_refused(tmp_path):
    model = new_model().double()
    with torch.no_grad():
        model.src_embeddings.weight[2, 3] = 1e300
    save_weights(tmp_path / WEIGHTS, model)
    with pytest.raises(InputError, match="src_embeddings.weight holds NaN or inf"):
        load_weights(tmp_path / WEIGHTS, new_model())


def damaged(path, **tensors):
    """Replace some tensors of a file; None takes one away."""
    changed = {**load_file(path), **tensors}
    save_file({k: v for k, v in changed.items() if v is not None}, path)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"extra": torch.zeros(2)}, "extra is there"),
        ({"encoder.layers.0.feed_forward.widen.bias": None}, "widen.bias must be"),
        ({"tgt_embeddings.weight": torch.zeros(11, 8)}, "must be there, once"),
        ({"src_embeddings.weight": torch.zeros(11, 8).int()}, "type torch.int32"),
        ({"src_embeddings.weight": torch.zeros(13, 8)}, "(13, 8) there, (11, 8) here"),
    ],
)
def test_tensors_that_are_not_the_models_are_named(tmp_path, tensors, words):
    save_weights(tmp_path / WEIGHTS, new_model())
    damaged(tmp_path / WEIGHTS, **tensors)
    with pytest.raises(InputError, match="does not fit the model's settings") as caught:
        load_weights(tmp_path / WEIGHTS, new_model())
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "sizes",
    [
        {"vocab_size": 1_000_000},
        {"n_layers": 1_000},
        {"d_ff": 1_000_000},
        {"n_heads": 1_000_000, "d_k": 1_000, "d_v": 1_000},
        {"max_length": 1_000_000, "d_model": 1_000_000},
        {"max_length": 1_000_000, "positions": "learned"},
    ],
)
def test_sizes_that_are_not_the_files_are_found_in_its_header(tmp_path, sizes):
    model = new_model()
    save_weights(tmp_path / WEIGHTS, model)
    check_sizes(tmp_path / WEIGHTS, model.config)
    with pytest.raises(InputError, match="does not fit the model's settings"):
        check_sizes(
            tmp_path / WEIGHTS, TransformerConfig(**{**vars(model.config), **sizes})
        )


def test_every_size_is_compared_before_memory_is_taken(tmp_path):
    model = new_model(tgt_vocab_size=13, positions="learned")
    save_weights(tmp_path / WEIGHTS, model)
    check_sizes(tmp_path / WEIGHTS, model.config)
    for name in "vocab_size tgt_vocab_size d_ff n_layers max_length".split():
        other = replace(model.config, **{name: 1 + getattr(model.config, name)})
        with pytest.raises(InputError, match="there"):
            check_sizes(tmp_path / WEIGHTS, other)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_or_a_folder_posing_as_weights_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / WEIGHTS)  # to open it would wait for a writer
    (tmp_path / "folder.safetensors").mkdir()
    for path in (tmp_path / WEIGHTS, tmp_path / "folder.safetensors"):
        with pytest.raises(InputError, match="not a file"):
            load_weights(path, new_model())
        with pytest.raises(InputError, match="not a file"):
            check_sizes(path, new_model().config)
        with pytest.raises(InputError, match="not a file"):
            average_weights([path])


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"0.step": torch.tensor(torch.nan)}, "0.step holds NaN"),
        ({"0.exp_avg": torch.zeros(11, 7)}, "parameter 0 are of another shape"),
        ({"3.exp_avg_sq": None}, "parameter 3 are of another shape"),
        ({"step": torch.zeros(2)}, "does not fit"),
    ],
)
def test_an_optimizer_that_is_not_the_models_is_refused(tmp_path, tensors, words):
    model = new_model()
    optimizer = adam(model)
    model(torch.tensor([[5, 2]]), torch.tensor([[1, 6]])).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "step-1", model, optimizer, {"step": 1})
    damaged(tmp_path / "step-1" / OPTIMIZER, **tensors)
    with pytest.raises(InputError, match=words):
        load_checkpoint(tmp_path / "step-1", model, optimizer)
