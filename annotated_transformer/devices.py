"""Devices: which one to use, and the fast path of each."""

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from annotated_transformer.errors import InputError


def choose_device(name: str = "auto") -> torch.device:
    """The device of this name; "auto" is the accelerator of this machine, or the CPU.

    Raises InputError if PyTorch cannot use it here.
    """
    if name == "auto":
        return torch.device(accelerator() or "cpu")
    try:
        number = torch.ones((), device=name)
        number.item()  # "meta" has shapes without numbers
        return number.device
    except (RuntimeError, AssertionError, ImportError) as error:
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
def fast_path(model: nn.Module) -> Iterator[None]:
    """Run the model by the fastest arithmetic of its device, then switch back.

    `fast_products`; and on a CPU `attention_by_products` in every head, since PyTorch's
    blockwise kernel is slow beside it.
    """
    device = next(model.parameters()).device
    with fast_products(device), ExitStack() as stack:
        if device.type == "cpu":
            by_products = other_attention(model, lambda _: attention_by_products)
            stack.enter_context(by_products)
        yield


@contextmanager
def fast_products(device: torch.device | str) -> Iterator[None]:
    """Let float32 matrix products use the device's fastest units, then switch back.

    On a GPU these are TF32 units. On a CPU oneDNN takes the place of MKL, which is half
    as fast on some processors; where the processor has bfloat16 matrix units, the
    factors are rounded to it.
    """
    on_cpu = torch.device(device).type == "cpu"
    with product_precision("medium" if on_cpu else "high"):
        yield


@contextmanager
def product_precision(precision: str) -> Iterator[None]:
    """How far float32 products may round, which also says which library makes them."""
    with warnings.catch_warnings():  # PyTorch 2.9's, of this switch for TF32
        warnings.filterwarnings("ignore", "Please use the new API settings")
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def other_attention(
    model: nn.Module, attend: Callable[[str], Callable]
) -> Iterator[None]:
    """Let every attention of the model run `attend(its name)`, then switch back."""
    layers = {name: m for name, m in model.named_modules() if hasattr(m, "attend")}
    before = {name: vars(layer).get("attend") for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.attend = attend(name)
        yield
    finally:
        for name, layer in layers.items():
            del layer.attend  # what is left is the class's own
            if before[name] is not None:  # a block around this one goes on
                layer.attend = before[name]


def attention_by_products(
    query: Float[Tensor, "*batch query d_k"],
    key: Float[Tensor, "*batch key d_k"],
    value: Float[Tensor, "*batch key d_v"],
    mask: Bool[Tensor, "..."] | None = None,
    *,
    dropout: float = 0.0,
) -> Float[Tensor, "*batch query d_v"]:
    """Eq. 1 by two products: scales the query, not the keys, and copies neither.

    The mask is added as a number, which is faster than filling by it. A few queries
    before many keys, as in a step of decoding, make small products.
    """
    small = query.size(-2) < 8 and torch.get_float32_matmul_precision() == "medium"
    with product_precision(small_precision()) if small else nullcontext():
        scores = (query / math.sqrt(query.size(-1))) @ key.mT
        if mask is None:
            return F.dropout(scores.softmax(-1), dropout, dropout > 0) @ value
        lowest = torch.finfo(scores.dtype).min  # its exp is 0
        bias = torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, lowest)
        weights = F.dropout((scores + bias).softmax(-1), dropout, dropout > 0)
        return weights @ value * mask.any(-1, keepdim=True)  # nowhere to look: zeros


@cache
def small_precision() -> str:
    """MKL ("highest") or oneDNN ("medium"): which is faster here with small products.

    Measured once, in a few milliseconds, on a step of decoding. oneDNN copies matrices
    that do not lie close together; how fast MKL is depends on the processor's maker.
    The exact one stays unless the other is clearly faster: noise must not decide.
    """
    query, keys = torch.ones(512, 1, 32), torch.ones(512, 48, 32)[:, :30]
    times = {"highest": math.inf, "medium": math.inf}
    for precision in [*times] * 6:
        with torch.inference_mode(), product_precision(precision):
            started = time.perf_counter()
            query @ keys.mT @ keys
            times[precision] = min(times[precision], time.perf_counter() - started)
    return "medium" if times["medium"] * 1.2 < times["highest"] else "highest"


def memory() -> int | None:
    """This machine's memory in bytes, where the system says so."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
