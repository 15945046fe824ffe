"""Processes that share each batch: who is who, and how they are started."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from annotated_transformer.devices import choose_device
from annotated_transformer.errors import InputError

Item = TypeVar("Item")


@dataclass
class Processes:
    """Which of how many processes this is, and on which device, as torchrun set it."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    parent: int = field(default_factory=os.getppid)

    @classmethod
    def join(cls, device: str = "auto") -> "Processes":
        """Join the group that torchrun made, if it made one; each has its own GPU."""
        chosen = choose_device(device)
        if chosen.type == "cuda" and "LOCAL_RANK" in os.environ:
            chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if "WORLD_SIZE" not in os.environ:
            return cls(device=chosen)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size(), chosen)

    @property
    def main(self) -> bool:
        """Whether this is the one process that writes files and shows progress."""
        return self.rank == 0

    def part(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's part of what is dealt to all of them."""
        return items[self.rank :: self.count]

    def gather(self, value: Any) -> list:
        """Every process's value, in rank order, to every process."""
        if self.count == 1:
            return [value]
        values = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def share(self, module: nn.Module) -> nn.Module:
        """The module, so that its gradients are averaged over the processes."""
        return module if self.count == 1 else DistributedDataParallel(module)

    def seed(self, seed: int, step: int) -> None:
        """Set the random state of a step, which differs from process to process."""
        torch.manual_seed((seed * 1_000_003 + step) * 1_009 + self.rank)

    def check_launcher(self) -> None:
        """Raise InputError once the process that started this one is gone."""
        if self.count > 1 and os.getppid() != self.parent:
            raise InputError("the launcher is gone: stopping this process too")


def default_processes(device: str = "auto") -> int:
    """One per core on a CPU, at most four; one per GPU where there are any."""
    kind = choose_device(device).type
    if kind != "cpu":
        return torch.cuda.device_count() if kind == "cuda" else 1
    affinity = getattr(os, "sched_getaffinity", None)  # Linux: the cores this may use
    return min(4, len(affinity(0)) if affinity else os.cpu_count() or 1)


def launch(function: Callable[..., None], *arguments: Any, processes: int) -> None:
    """Run a function in this process, or in several that can `join`.

    Under torchrun this process is one of those already. Several on one machine are
    started by torchrun's own launcher, one thread each on a CPU.
    """
    if processes == 1 or "WORLD_SIZE" in os.environ:
        function(*arguments)
        return
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    threads = max(1, (os.cpu_count() or 1) // processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, in_a_child)(function, *arguments)
    except ChildFailedError:
        raise SystemExit(2) from None  # the process that failed has said why


def in_a_child(function: Callable[..., None], *arguments: Any) -> None:
    """Bad input ends a child process with one line, like the parent."""
    try:
        function(*arguments)
    except (InputError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
