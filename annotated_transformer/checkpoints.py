"""Checkpoints: safetensors and JSON, whole or not at all; and averages (§6.1)."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file, save_model
from torch import Tensor, nn

from annotated_transformer.config import TransformerConfig
from annotated_transformer.errors import InputError
from annotated_transformer.files import (
    check_file,
    read_bytes,
    read_json,
    whole_or_nothing,
    write_json,
)
from annotated_transformer.terminal import Stopped

WEIGHTS, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
LARGEST_HEADER = 10**8  # bytes, as in safetensors itself
LARGEST_TABLE = 10**8  # numbers in the table of sinusoids, which no file holds


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn any problem with a weights file into a clear one-line error."""
    check_file(path)
    try:
        yield
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


def check_sizes(path: Path, config: TransformerConfig) -> None:
    """Compare a model's settings with a file's header, before memory is taken for it.

    Raises InputError if the file holds a model of other sizes.
    """
    c, first = config, "encoder.layers.0."
    heads = c.n_heads * (2 * c.key_size + c.value_size)
    expected = {
        "src_embeddings.weight": (c.vocab_size, c.d_model),
        f"{first}self_attention.query_key_value.weight": (heads, c.d_model),
        f"{first}feed_forward.widen.weight": (c.d_ff, c.d_model),
    }
    if c.tgt_vocab_size:
        expected["tgt_embeddings.weight"] = (c.tgt_vocab_size, c.d_model)
    if c.positions == "learned":
        expected["positions.table"] = (c.max_length, c.d_model)
    with readable(path):
        shapes = header(path)
        for name, here in expected.items():
            if (there := shapes.get(name, "missing")) != here:
                raise ValueError(f"{name} is {there} there, {here} here")
        found = len({name.split(".")[2] for name in shapes if ".layers." in name})
        if found != c.n_layers:
            raise ValueError(f"n_layers is {found} there, {c.n_layers} here")
        if c.max_length * c.d_model > LARGEST_TABLE:
            raise ValueError(f"max_length ({c.max_length:,}) is too large")


def load_weights(path: Path, model: nn.Module) -> None:
    """Read weights into a model of the same sizes, which keeps its own precision.

    Raises InputError if the sizes differ, or if a number is NaN or infinite.
    """
    with readable(path):
        saved, state = load(read_bytes(path)), model.state_dict()
        check_shapes({name: tuple(saved[name].shape) for name in saved}, model)
        for name, tensor in saved.items():
            if not tensor.is_floating_point():
                raise ValueError(f"{name} holds numbers of type {tensor.dtype}")
            # Not by safetensors: two of its versions refuse to cast.
            saved[name] = tensor.to(state[name].dtype)
    check_finite(path, saved)
    for name, tensor in saved.items():
        state[name].copy_(tensor)


def header(path: Path) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a file's tensors, without their numbers."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        text = file.read(min(size, LARGEST_HEADER))
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        return {name: tuple(entry["shape"]) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SafetensorError(f"its header cannot be read, {error}") from None


def check_shapes(shapes: dict[str, tuple[int, ...]], model: nn.Module) -> None:
    """Raise ValueError unless these are the shapes of a model, a tied matrix once."""
    tied: dict[int, list[str]] = {}
    for name, parameter in model.state_dict(keep_vars=True).items():
        tied.setdefault(id(parameter), []).append(name)
        here = tuple(parameter.shape)
        if shapes.get(name, here) != here:
            raise ValueError(f"{name} is {shapes[name]} there, {here} here")
    for names in tied.values():
        if len(shapes.keys() & set(names)) != 1:
            raise ValueError(f"{' or '.join(names)} must be there, once")
    unknown = shapes.keys() - {name for names in tied.values() for name in names}
    if unknown:
        raise ValueError(f"{min(unknown)} is there, not here")


def check_finite(path: Path, tensors: dict[str, Tensor]) -> None:
    """Raise InputError if a number is NaN or infinite: training on would keep it."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise InputError(
                f"{path}: {name} holds NaN or infinity, so the training that made it "
                "failed: train again with a lower learning rate or a longer warmup"
            )


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
        tensors = load(read_bytes(folder / OPTIMIZER))
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            index, name = key.split(".", 1)
            moments.setdefault(int(index), {})[name] = tensor
        check_moments(moments, list(model.parameters()))
    check_finite(folder / OPTIMIZER, tensors)
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


def check_moments(
    moments: dict[int, dict[str, Tensor]], parameters: Sequence[Tensor]
) -> None:
    """Raise ValueError unless Adam's state has each parameter's two moments (§5.3)."""
    for index, parameter in enumerate(parameters):
        found = {name: m.shape for name, m in moments.get(index, {}).items()}
        shapes = dict.fromkeys(("exp_avg", "exp_avg_sq"), parameter.shape)
        if found != shapes | {"step": torch.Size([])}:
            raise ValueError(f"the moments of parameter {index} are of another shape")


def list_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


@contextmanager
def resumable(run: Path) -> Iterator[None]:
    """Train inside this; if Ctrl-C stops it, the last saved step is named."""
    try:
        yield
    except Stopped as stopped:
        saved = [path.name.removeprefix("step-") for path in list_checkpoints(run)]
        step = int(saved[-1]) if saved else 0
        stopped.message = f"stopped after step {step}; --resume goes on"
        raise


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
