"""CPU time in rounds, and the peak memory of a process."""

import gc
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from annotated_transformer.batches import Batch
from annotated_transformer.config import TransformerConfig
from annotated_transformer.devices import fast_products
from annotated_transformer.special import BOS, UNK
from benchmarks.peers import PEERS, training_step

Task = Callable[[], object]


def interleave(tasks: dict[str, Task], rounds: int) -> dict[str, list[float]]:
    """The CPU-seconds of every task, run once a round.

    Whatever else runs on the machine slows all tasks of a round alike, and so does not
    change their ratios. Every second round goes backward; a warm-up round before the
    first is not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name in list(tasks) if number % 2 else reversed(tasks):
            gc.collect()
            started = time.process_time()
            tasks[name]()
            if number:
                times[name].append(time.process_time() - started)
    return times


def medium(task: Task) -> Task:
    """The same task with products by oneDNN, and attention by whole products."""
    return fast_products("cpu")(sdpa_kernel(SDPBackend.MATH)(task))


def product(size: int) -> Task:
    """A large float32 matrix product, which shows how fast the processor can be."""
    a, b = torch.randn(2, size, size)
    return lambda: a @ b


def random_batch(c: TransformerConfig, sentences: int, length: int) -> Batch:
    """Sentences of one length, made of real tokens only."""
    ids = torch.randint(UNK + 1, c.vocab_size, (2, sentences, length + 1))
    ids[1, :, 0] = BOS
    return Batch(ids[0, :, :length], ids[1])


def training_flops(c: TransformerConfig, sentences: int, length: int) -> float:
    """Operations of one step, by formula: 2 for each multiplication with its addition.

    The backward pass takes twice as many as the forward pass.
    """
    attention = 4 * c.d_model**2 + 2 * length * c.d_model  # projections, scores, mixing
    layers = c.n_layers * (3 * attention + 2 * 2 * c.d_model * c.d_ff)
    return 3 * 2 * sentences * length * (layers + c.d_model * c.vocab_size)


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
