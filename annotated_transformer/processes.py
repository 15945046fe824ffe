"""Processes that split each batch: their ranks, and how they are launched."""

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
    """This process's rank, how many processes there are, and this one's device."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    parent: int = field(default_factory=os.getppid)

    @classmethod
    def join(cls, device: str = "auto") -> "Processes":
        """Join torchrun's group, if there is one; each process has its own GPU."""
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
        """This process's part of the items, which are dealt out to all processes."""
        return items[self.rank :: self.count]

    def gather(self, value: Any) -> list:
        """Give every process the values of all processes, in rank order."""
        if self.count == 1:
            return [value]
        values = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def share(self, module: nn.Module) -> nn.Module:
        """Wrap the module so that its gradients are averaged over the processes."""
        return module if self.count == 1 else DistributedDataParallel(module)

    def seed(self, seed: int, step: int) -> None:
        """Set the random state of a step, a different one in each process."""
        torch.manual_seed((seed * 1_000_003 + step) * 1_009 + self.rank)

    def check_launcher(self) -> None:
        """Raise InputError once the process that started this one is gone."""
        if self.count > 1 and os.getppid() != self.parent:
            raise InputError("the launcher is gone: stopping this process too")


def default_processes(device: str = "auto") -> int:
    """One per core on a CPU, at most four; one per GPU if there are any."""
    kind = choose_device(device).type
    if kind != "cpu":
        return torch.cuda.device_count() if kind == "cuda" else 1
    affinity = getattr(os, "sched_getaffinity", None)  # Linux: the cores this may use
    return min(4, len(affinity(0)) if affinity else os.cpu_count() or 1)


def launch(function: Callable[..., None], *arguments: Any, processes: int) -> None:
    """Run a function in this process, or in several that can `join`.

    Under torchrun, this process already is one of them. Otherwise torchrun's own
    launcher starts several on this machine, which divide its cores as threads.
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
    """Run in a child process, which bad input ends with one line, like the parent."""
    try:
        function(*arguments)
    except (InputError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
