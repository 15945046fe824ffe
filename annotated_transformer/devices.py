"""The fast road of each device, switched on around training and translation."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def fast_products(device: torch.device | str) -> Iterator[None]:
    """Let float32 matrix products take the device's fastest units, then switch back.

    On a GPU these are TF32 units. On a CPU oneDNN takes the place of MKL, which is half
    as fast on some processors; where the processor has bfloat16 matrix units, the
    factors are rounded to it. Attention then goes by whole products, since PyTorch's
    blockwise CPU kernel is slow with that switch.
    """
    on_cpu = torch.device(device).type == "cpu"
    before = torch.get_float32_matmul_precision()
    with ExitStack() as stack:
        stack.callback(torch.set_float32_matmul_precision, before)
        torch.set_float32_matmul_precision("medium" if on_cpu else "high")
        if on_cpu:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield
