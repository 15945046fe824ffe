"""Data parallel training (§5.2) by hand, by DDP and by FSDP2; all equal one process.

`launch(compare, folder, processes=2)` starts it from Python. Under torchrun this file
is a program, and each process one of several:

    torchrun --nproc-per-node 2 -m annotated_transformer.parallel FOLDER
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn

from annotated_transformer.batches import Batch, EncodedPair
from annotated_transformer.config import TransformerConfig
from annotated_transformer.devices import fast_path
from annotated_transformer.errors import InputError
from annotated_transformer.files import whole_or_nothing, write_json
from annotated_transformer.objectives import Objective
from annotated_transformer.processes import Processes
from annotated_transformer.special import EOS, UNK
from annotated_transformer.speed import pair_flops
from annotated_transformer.terminal import one_line_errors
from annotated_transformer.training import cut, train_step
from annotated_transformer.transformer import Transformer

WAYS = ("by hand", "DDP", "FSDP2")
SMALL = TransformerConfig(
    vocab_size=61, d_model=32, d_ff=64, n_heads=4, n_layers=2, dropout=0.0
)
LARGER = TransformerConfig(
    vocab_size=4_000, d_model=128, d_ff=512, n_heads=4, n_layers=2, dropout=0.0
)


def random_pairs(c: TransformerConfig, number: int, seed: int) -> list[EncodedPair]:
    """Pairs of random tokens, 4 to 20 on each side, so that parts differ in tokens."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 20, (number, 2), generator=g).tolist()

    def side(length: int) -> list[int]:
        ids = torch.randint(UNK + 1, c.vocab_size, (length,), generator=g)
        return [*ids.tolist(), EOS]

    return [(side(src), side(tgt)) for src, tgt in lengths]


def new_objective(c: TransformerConfig) -> Objective:
    """A model with its loss; every process makes the same one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Objective(Transformer(c), smoothing=0.1)


def step_by_hand(
    objective: nn.Module, optimizer: torch.optim.Optimizer, part: Batch, n_tokens: int
) -> None:
    """One update of each process from its part of a batch of `n_tokens` labels."""
    optimizer.zero_grad()
    (objective(part) / n_tokens).backward()  # by the whole batch's labels, not its own
    for parameter in objective.parameters():
        dist.all_reduce(parameter.grad)  # now the sum over all processes
    optimizer.step()


def sharded(objective: Objective) -> Objective:
    """FSDP2: each process holds a slice of every weight, gradient and optimizer state.

    A layer's weights are gathered when it runs, then let go.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard  # torch 2.6 and later

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = objective.model
    for layer in [*model.encoder.layers, *model.decoder.layers]:
        fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh)
    return objective


def learn(
    way: str, group: Processes, steps: int = 3
) -> tuple[dict[str, Tensor], list[int]]:
    """The weights after some steps, and what this process held at the end.

    Held are so many numbers of weights, of gradients, and of the optimizer's state.
    """
    objective = new_objective(SMALL)
    module: nn.Module = objective
    if way == "DDP":
        module = group.share(objective)
    if way == "FSDP2":
        module = sharded(objective)
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    for step in range(steps):
        pairs = random_pairs(SMALL, 12, seed=step)
        n_tokens = sum(len(tgt) for _, tgt in pairs)
        (part,) = group.part(cut(pairs, group.count))
        if way == "by hand" and group.count > 1:
            step_by_hand(module, optimizer, part, n_tokens)
        else:  # DDP and FSDP2 average over the processes: times their number, the sum
            options = {"n_tokens": n_tokens, "processes": group.count}
            train_step(module, optimizer, [part], **options)
    weights = dict(objective.model.named_parameters())
    gradients = [p.grad for p in weights.values() if p.grad is not None]
    state = [s["momentum_buffer"] for s in optimizer.state.values()]
    kinds = (weights.values(), gradients, state)
    held = [sum(local(tensor).numel() for tensor in kind) for kind in kinds]
    return {name: whole(p).detach() for name, p in weights.items()}, held


def local(parameter: Tensor) -> Tensor:
    """What this process holds of a weight."""
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


def whole(parameter: Tensor) -> Tensor:
    """All of a weight; if it is in slices, every process must ask."""
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter


def race(group: Processes, rounds: int = 5) -> dict[str, Any]:
    """Seconds of a step on one batch, by one process and by all of them.

    Each has a turn in every round, while the others wait; the first round is a warm-up.
    Beside the seconds: the step's target tokens, and the operations of its products.
    """
    alone, shared = new_objective(LARGER), group.share(new_objective(LARGER))
    pairs = random_pairs(LARGER, 64, seed=0)
    runs = {
        "one process": (alone, cut(pairs, 1)),
        f"{group.count} processes": (shared, group.part(cut(pairs, group.count))),
    }
    optimizers = {m: torch.optim.SGD(m.parameters(), 0.01) for m in (alone, shared)}
    n_tokens = sum(len(tgt) for _, tgt in pairs)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, (module, pieces) in runs.items():
            dist.barrier()
            started = time.perf_counter()
            if group.main or module is shared:
                with fast_path(module):
                    train_step(module, optimizers[module], pieces, n_tokens=n_tokens)
            dist.barrier()
            if number:
                times[name].append(time.perf_counter() - started)
    operations = 3 * sum(pair_flops(LARGER, len(src), len(tgt)) for src, tgt in pairs)
    return {"seconds": times, "tokens": n_tokens, "operations": operations}


def compare(folder: Path) -> None:
    """What each process runs; the first writes weights and seconds to the folder."""
    group = Processes.join("cpu")
    if group.count == 1:
        raise InputError("this needs several processes: start it with torchrun")
    held = {}
    for way in WAYS:
        weights, mine = learn(way, group)
        held[way] = group.gather(mine)
        if group.main:
            with whole_or_nothing(folder / f"{way}.safetensors") as temporary:
                save_file(weights, temporary)
    measured = race(group)
    if group.main:
        write_json(folder / "processes.json", {"held": held, **measured})


if __name__ == "__main__":
    with one_line_errors():
        compare(Path(sys.argv[1]))
        dist.destroy_process_group()
