"""Other libraries as fast as they can be, and the peak memory of a process."""

import gc
import resource
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from annotated_transformer.config import TransformerConfig
from annotated_transformer.devices import fast_products
from annotated_transformer.speed import Task, random_batch
from benchmarks.peers import PEERS, training_step


def medium(task: Task) -> Task:
    """The same task with products by oneDNN, and attention by whole products."""
    return fast_products("cpu")(sdpa_kernel(SDPBackend.MATH)(task))


def training_memory(name: str, c: TransformerConfig, size: tuple[int, int]) -> float:
    """MiB that training adds to a process, measured in a fresh one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(peak_memory, name, c, size).result()


def peak_memory(name: str, c: TransformerConfig, size: tuple[int, int]) -> float:
    """Train for three steps: this process's peak size, minus its size before.

    A tiny model trains first, so that code loaded on the way does not count. The model,
    its gradients and Adam's two averages do.
    """
    import psutil

    torch.set_num_threads(1)
    tiny = replace(c, d_model=16, n_heads=2, d_ff=16, vocab_size=16)
    training_step(PEERS[name](tiny), random_batch(tiny, 2, 3))()
    gc.collect()
    before = psutil.Process().memory_info().rss
    step = training_step(PEERS[name](c), random_batch(c, *size))
    for _ in range(3):
        step()
    return (largest_size() - before) / 2**20


def largest_size() -> int:
    """The most bytes of memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would include the size of the parent process
        line = next(x for x in status.read_text().splitlines() if "VmHWM" in x)
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes
