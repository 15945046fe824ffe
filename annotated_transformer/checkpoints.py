"""Checkpoints: safetensors and JSON, whole or not at all; and averages (§6.1)."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from annotated_transformer.errors import InputError
from annotated_transformer.files import read_json, whole_or_nothing, write_json

WEIGHTS, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn any problem with a weights file into a clear one-line error."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing: is {path.parent} the folder of a run?"
        ) from None
    except SafetensorError as error:
        raise InputError(
            f"{path} is not a complete safetensors file ({error}): "
            "it is damaged, or in another format; pickled checkpoints are never read"
        ) from None
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path} does not fit the model's settings: {reason}"
        ) from None


def save_weights(path: Path, model: nn.Module) -> None:
    """Write a model's weights, a tied matrix only once."""
    with whole_or_nothing(path) as temporary:
        write_tensors(temporary, lambda: save_model(model, str(temporary)))


def load_weights(path: Path, model: nn.Module) -> None:
    """Read weights into a model of the same sizes. Raises InputError if they differ."""
    with readable(path):
        load_model(model, path)


def write_tensors(path: Path, write: Any) -> None:
    """Run a safetensors writer; a full disk raises OSError, as with any other file."""
    try:
        write()
    except SafetensorError as error:
        raise OSError(f"{path.parent}: {error}") from None


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:
    """Write all that a run needs to resume: weights, optimizer state, and progress."""
    tensors = {
        f"{index}.{name}": value
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    with whole_or_nothing(folder) as temporary:
        temporary.mkdir()
        save_weights(temporary / WEIGHTS, model)
        write_tensors(temporary, lambda: save_file(tensors, temporary / OPTIMIZER))
        write_json(temporary / STATE, state)


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Load weights and optimizer state in place, and return the run's progress."""
    load_weights(folder / WEIGHTS, model)
    with readable(folder / OPTIMIZER):
        tensors = load_file(folder / OPTIMIZER)
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            index, name = key.split(".", 1)
            moments.setdefault(int(index), {})[name] = tensor
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
    return read_json(folder / STATE)


def fingerprint(model: nn.Module) -> str:
    """A SHA-256 of a model's weights, the same wherever they are the same."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def list_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


def average_weights(paths: Sequence[Path]) -> dict[str, Tensor]:
    """The element-wise mean of several weight files (§6.1)."""
    if not paths:
        raise InputError("there are no checkpoints to average")
    total: dict[str, Tensor] = {}
    for path in paths:
        with readable(path):
            weights = load_file(path)
        sizes = {name: tensor.shape for name, tensor in weights.items()}
        if total and sizes != {name: tensor.shape for name, tensor in total.items()}:
            raise InputError(
                f"{path} and {paths[0]} come from models of different sizes"
            )
        for name, tensor in weights.items():
            total[name] = total.get(name, 0) + tensor.double() / len(paths)
    return {name: tensor.float() for name, tensor in total.items()}
