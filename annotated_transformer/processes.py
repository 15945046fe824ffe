"""Processes that split each batch: their ranks, and how they are launched."""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing import ProcessContext, start_processes
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from annotated_transformer.devices import choose_device
from annotated_transformer.errors import InputError
from annotated_transformer.terminal import Stopped, one_line_errors

Item = TypeVar("Item")
LOOPBACK = "127.0.0.1"  # not "localhost", which some machines cannot resolve


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
        chosen, launched = choose_device(device), launched_as()
        if launched is None:
            return cls(device=chosen)
        if chosen.type == "cuda":
            chosen = torch.device("cuda", launched.local_rank)
            torch.cuda.set_device(choose_device(str(chosen)))
        if not dist.is_initialized():
            try:
                dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
            except (RuntimeError, ValueError) as error:
                reason = " ".join(str(error).split())[:100]
                raise InputError(
                    f"the processes do not find each other ({reason}): start them all "
                    "with torchrun, or one with --processes 1"
                ) from None
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


@dataclass(frozen=True)
class Launched:
    """What torchrun told this process: its rank, and that on this machine."""

    rank: int
    count: int
    local_rank: int


def launched_as() -> Launched | None:
    """This process's rank if torchrun, or `launch`, started it.

    Raises InputError if the environment tells only a part of it.
    """
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if not {"RANK", "WORLD_SIZE"} & os.environ.keys():
        return None
    told = {name: os.environ.get(name, "") for name in names}
    local = os.environ.get("LOCAL_RANK", told["RANK"])
    numbers = (told["RANK"], told["WORLD_SIZE"], told["MASTER_PORT"], local)
    if told["MASTER_ADDR"] and all(n.isascii() and n.isdigit() for n in numbers):
        rank, count, _, local_rank = map(int, numbers)
        if rank < count:
            return Launched(rank, count, local_rank)
    shown = " ".join(f"{name}={value!r}" for name, value in told.items())
    raise InputError(
        f"the environment has {shown}, as no launcher sets it: start with torchrun, "
        "or unset RANK and WORLD_SIZE"
    )


def is_main() -> bool:
    """Whether this process is alone or the first of several."""
    launched = launched_as()
    return launched is None or launched.rank == 0


def launch(function: Callable[..., None], *arguments: Any, processes: int) -> None:
    """Run a function in this process, or in several that can `join`.

    Under torchrun, this process already is one of them. Otherwise several are started
    on this machine, are told what torchrun would tell them, and divide its cores as
    threads. They talk over the loopback interface alone, so no network is needed.
    """
    if processes == 1 or launched_as():
        function(*arguments)
        return
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.CRITICAL)
    os.environ.setdefault(
        "OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes))
    )
    store = loopback_store()
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    told = (processes, store.port, ignored)
    with interrupts_held():
        context = start_processes(
            in_a_child, (told, function, arguments), processes, join=False
        )
    try:
        wait_for(context)
    except Stopped:
        print(file=sys.stderr)  # the progress bar of a process ends in mid-line
        raise
    finally:
        for child in context.processes:
            child.kill()
            child.join()


def loopback_store() -> dist.TCPStore:
    """Where processes on this machine meet. Raises InputError without a loopback."""
    try:
        with socket.create_server((LOOPBACK, 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        raise InputError(
            f"processes on this machine cannot talk: its loopback {LOOPBACK} does not "
            f"answer ({error}): use --processes 1"
        ) from None
    return dist.TCPStore(
        LOOPBACK,
        0,
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=60),
    )


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back, here and in processes that start meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # else it starts below, and lets Ctrl-C through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wait_for(context: ProcessContext) -> None:
    """Wait until all processes have ended well, or one has not, which ends them all."""
    children = context.processes
    while running := [child.sentinel for child in children if child.is_alive()]:
        wait(running)
        if any(child.exitcode for child in children):
            break
    for child in children:  # whoever has lost another process ends by itself
        child.join(5)
    codes = [child.exitcode or 0 for child in children]
    if -signal.SIGINT in codes:
        raise Stopped
    if 2 in codes:
        raise SystemExit(2)  # that process has said why
    if killed := [code for code in codes if code < 0]:
        name = signal.Signals(-killed[0]).name
        raise InputError(
            f"a process was ended by {name}, perhaps for lack of memory: "
            "--resume goes on, --processes 1 takes less"
        )
    while not context.join():  # raises the error of a process, with its traceback
        pass


def in_a_child(
    rank: int,
    told: tuple[int, int, bool],
    function: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    """Run in a process of its own. Ctrl-C ends it in silence: its parent speaks."""
    count, port, ignored = told
    if not ignored:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the parent keeps the store
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    tqdm.set_lock(threading.RLock())  # its own lock would outlive a killed process
    names = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    if names:  # else gloo looks for the machine's own name
        os.environ.setdefault("GLOO_SOCKET_IFNAME", names[0])
    with one_line_errors():
        function(*arguments)
    if dist.is_initialized():
        dist.destroy_process_group()
