"""Checkpoints: whole or not at all, never code, and averages that are averages."""

import errno
import pickle
import resource
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from annotated_transformer.checkpoints import (
    average_weights,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)
from annotated_transformer.config import TransformerConfig
from annotated_transformer.errors import InputError
from annotated_transformer.files import read_json, whole_or_nothing, write_json
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


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "settings.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    with pytest.raises(OSError), whole_or_nothing(path) as temporary:
        temporary.write_text("half of")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert read_json(path) == {"old": 1} and files(tmp_path) == ["settings.json"]


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
