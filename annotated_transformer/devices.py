"""Devices: which one to use, and the fast path of each."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from annotated_transformer.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str = "auto") -> torch.device:
    """The device of this name; "auto" is the accelerator of this machine, or the CPU.

    Raises InputError if PyTorch cannot use it here.
    """
    if name == "auto":
        return torch.device(accelerator() or "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(
            f"PyTorch cannot use the device {name!r} here ({reason}): "
            f"choose {accelerator() or 'cpu'}, or auto"
        ) from None


def accelerator() -> str | None:
    """The kind of this machine's accelerator, "cuda" or "mps" for instance, if any."""
    if hasattr(torch, "accelerator"):  # torch 2.6 and later
        found = torch.accelerator.current_accelerator()
        return found.type if found and torch.accelerator.is_available() else None
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else None


def compile_stacks(*stacks: nn.Module, backend: str = "inductor") -> None:
    """Compile encoder and decoder in place, once for all lengths."""
    for stack in stacks:
        stack.compile(dynamic=True, backend=backend)


@contextmanager
def fast_products(device: torch.device | str) -> Iterator[None]:
    """Let float32 matrix products use the device's fastest units, then switch back.

    On a GPU these are TF32 units. On a CPU oneDNN replaces MKL, which is half as fast
    on some processors; where the processor has bfloat16 matrix units, the factors are
    rounded to bfloat16. Attention then runs as plain matrix products, since PyTorch's
    blockwise CPU kernel is slow with that setting.
    """
    on_cpu = torch.device(device).type == "cpu"
    before = torch.get_float32_matmul_precision()
    with ExitStack() as stack:
        stack.callback(torch.set_float32_matmul_precision, before)
        torch.set_float32_matmul_precision("medium" if on_cpu else "high")
        if on_cpu:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield
