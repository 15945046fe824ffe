"""How fast is it: operations by formula, seconds in rounds, and the machine's peak."""

import gc
import math
import time
from collections.abc import Callable

import torch

from annotated_transformer.batches import Batch
from annotated_transformer.config import TransformerConfig
from annotated_transformer.devices import fast_products
from annotated_transformer.special import BOS, UNK

Task = Callable[[], object]


def pair_flops(c: TransformerConfig, src: int, tgt: int) -> int:
    """Operations of one forward pass over a pair: src tokens read, tgt tokens scored.

    Only products count, 2 for each multiplication with its addition. Heads share
    d_model; softmax, norms and dropout are left out.
    """
    square, wide = c.d_model**2, c.d_model * c.d_ff
    encoder = src * (4 * square + 2 * src * c.d_model + 2 * wide)
    own = tgt * (4 * square + 2 * tgt * c.d_model + 2 * wide)
    cross = (2 * tgt + 2 * src) * square + 2 * tgt * src * c.d_model
    output = tgt * c.d_model * (c.tgt_vocab_size or c.vocab_size)
    return 2 * (c.n_layers * (encoder + own + cross) + output)


def training_flops(c: TransformerConfig, sentences: int, length: int) -> int:
    """Operations of a step on sentences of one length, on both sides.

    The backward pass takes twice as many as the forward pass.
    """
    return 3 * sentences * pair_flops(c, length, length)


def interleave(
    tasks: dict[str, Task],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """The seconds of every task, run once a round; by default, CPU-seconds.

    Whatever else runs on the machine slows all tasks of a round alike, and so does not
    change their ratios. Every second round goes backward; a warm-up round before the
    first is not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name in list(tasks) if number % 2 else reversed(tasks):
            gc.collect()
            started = clock()
            tasks[name]()
            if number:
                times[name].append(clock() - started)
    return times


def product(size: int, device: torch.device | str = "cpu") -> Task:
    """A large float32 matrix product, which shows how fast the processor can be."""
    a, b = torch.randn(2, size, size, device=device)
    return lambda: a @ b


def product_speed(size: int, rounds: int = 5) -> float:
    """Operations per CPU-second of a product of square matrices: the best of a few.

    Once as PyTorch comes, once with `fast_products`: the faster one counts.
    """
    one, repeats = product(size), max(1, 2**26 // size**3)  # too short for a clock
    best = math.inf
    for task in (one, fast_products("cpu")(one)) * rounds:
        started = time.process_time()
        for _ in range(repeats):
            task()
        best = min(best, time.process_time() - started)
    return repeats * 2 * size**3 / best


def random_batch(c: TransformerConfig, sentences: int, length: int) -> Batch:
    """Sentences of one length, made of real tokens only."""
    ids = torch.randint(UNK + 1, c.vocab_size, (2, sentences, length + 1))
    ids[1, :, 0] = BOS
    return Batch(ids[0, :, :length], ids[1])
