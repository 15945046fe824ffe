"""The training loop (§5): exact to resume, equal on one process or many."""

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from annotated_transformer.batches import (
    Batch,
    EncodedPair,
    check_lengths,
    collate,
    epochs,
    token_batches,
)
from annotated_transformer.checkpoints import (
    WEIGHTS,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    save_weights,
    whole_or_nothing,
)
from annotated_transformer.devices import fast_products
from annotated_transformer.errors import InputError
from annotated_transformer.loss import label_smoothed_loss
from annotated_transformer.schedule import cosine, inverse_square_root
from annotated_transformer.tokenizers import PAD
from annotated_transformer.transformer import Transformer

HISTORY = "history.jsonl"  # in a run's folder: one line for each validation


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train. A step is one update; its batch is shared by all processes.

    `learning_rate=None` is the schedule of Eq. 3 (§5.3); a number is the peak of
    a cosine over all steps. `accumulate` cuts a batch into as many pieces, one after
    the other, for the same update in less memory. `patience` stops after as many
    validations without a better score; None never stops early.
    """

    steps: int = 100_000
    batch_tokens: int = 25_000
    accumulate: int = 1
    learning_rate: float | None = None
    warmup: int = 4_000
    smoothing: float = 0.1
    clip: float | None = None
    validate_every: int = 1_000
    patience: int | None = None
    keep: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (
            "steps",
            "batch_tokens",
            "accumulate",
            "warmup",
            "validate_every",
            "keep",
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if not 0 <= self.smoothing < 1:
            raise InputError(f"smoothing must be in [0, 1), not {self.smoothing}")

    def rate(self, step: int, d_model: int) -> float:
        """The learning rate of a step, counted from 1."""
        if self.learning_rate is None:
            return inverse_square_root(step, d_model=d_model, warmup=self.warmup)
        return cosine(
            step, peak=self.learning_rate, warmup=self.warmup, total=self.steps
        )


class Objective(nn.Module):
    """The model and its loss as one module: token ids in, summed loss out."""

    def __init__(self, model: Transformer, smoothing: float):
        super().__init__()
        self.model, self.smoothing = model, smoothing

    def forward(self, batch: Batch) -> Tensor:
        """Summed over real labels: who knows the whole batch divides by their count."""
        features = self.model.features(batch.src, batch.tgt_in)
        return label_smoothed_loss(
            features.flatten(0, 1),
            self.model.tgt_embeddings.weight,
            batch.labels.flatten(),
            smoothing=self.smoothing,
        )


def adam(model: nn.Module) -> torch.optim.Adam:
    """Adam with the paper's betas and eps (§5.3); the schedule sets the rate."""
    return torch.optim.Adam(
        model.parameters(), lr=0.0, betas=(0.9, 0.98), eps=1e-9, fused=True
    )


def cut(pairs: Sequence[EncodedPair], pieces: int) -> list[Batch]:
    """Deal pairs into pieces like cards; a piece without a card counts for nothing."""
    hands = [pairs[i::pieces] for i in range(pieces)]
    blank = collate(pairs[:1])
    blank.tgt[:] = PAD
    return [collate(hand) if hand else blank for hand in hands]


def train_step(
    objective: Objective | DistributedDataParallel,
    optimizer: torch.optim.Optimizer,
    pieces: Sequence[Batch],
    *,
    n_tokens: int,
    clip: float | None = None,
    processes: int = 1,
) -> float:
    """One update from the pieces of a batch; returns their summed loss, in nats.

    Each piece's loss is divided by the tokens of the whole batch, never by its own, so
    the gradient is that of the whole batch however it is cut. Processes average their
    gradients, hence the factor. Clipping comes after the last piece.
    """
    optimizer.zero_grad()
    total = 0.0
    for i, piece in enumerate(pieces):
        wait = isinstance(objective, DistributedDataParallel) and i < len(pieces) - 1
        with objective.no_sync() if wait else nullcontext():  # type: ignore
            with torch.autocast(
                piece.src.device.type, torch.bfloat16, piece.src.is_cuda
            ):
                loss = objective(piece)
            (loss * processes / n_tokens).backward()
        total += loss.item()
    if clip is not None:
        nn.utils.clip_grad_norm_(objective.parameters(), clip)
    optimizer.step()
    return total


@torch.no_grad()
def validate(
    objective: Objective, pairs: Sequence[EncodedPair], max_tokens: int
) -> float:
    """Mean loss per token in nats, without smoothing: its exp is perplexity."""
    objective.eval()
    device = objective.model.tgt_embeddings.weight.device
    plain = Objective(objective.model, smoothing=0.0).eval()
    total, n_tokens = 0.0, 0
    for chosen in token_batches(pairs, max_tokens):
        batch = collate(chosen).to(device)
        total, n_tokens = total + plain(batch).item(), n_tokens + batch.n_tokens
    return total / n_tokens


@dataclass
class Processes:
    """Which of how many processes this is, and on which device, as torchrun set it."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @classmethod
    def join(cls) -> "Processes":
        """Join the group that torchrun made, if it made one."""
        local = os.environ.get("LOCAL_RANK", "0")
        device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
        if "WORLD_SIZE" not in os.environ:
            return cls(device=device)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device != "cpu" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size(), device)

    def gather(self, value: Any) -> list:
        """Every process's value, in rank order, to every process."""
        if self.count == 1:
            return [value]
        values = [None] * self.count
        dist.all_gather_object(values, value)
        return values


def train(
    model: Transformer,
    train_pairs: Sequence[EncodedPair],
    validation_pairs: Sequence[EncodedPair],
    config: TrainingConfig,
    run: Path,
    *,
    score: Callable[[Processes], dict[str, float]] | None = None,
    metric: str = "validation_loss",
    resume: bool = False,
    tensorboard: bool = False,
) -> list[dict[str, Any]]:
    """Train, and leave in the folder `run` best weights, history and checkpoints.

    `score` adds its figures to each validation; `metric` names the one that chooses the
    best weights (a loss by its least, anything else by its most). The random state of a
    step follows from seed, step and rank, and the order of the data from seed and
    epoch, so a run that was killed and resumed ends exactly like one that was not.
    Returns the history: one row for each validation.
    """
    check_lengths(train_pairs, config.batch_tokens)  # before anything is written
    check_lengths(validation_pairs, config.batch_tokens)
    group = Processes.join()
    main = group.rank == 0
    device = torch.device(group.device)
    model.to(device)
    objective = Objective(model, config.smoothing)
    optimizer = adam(model)
    state: dict[str, Any] = {
        "step": 0,
        "minutes": 0.0,
        "cpu_minutes": 0.0,
        "best": None,
        "waited": 0,
    }
    checkpoints = list_checkpoints(run)
    if resume and checkpoints:
        state = load_checkpoint(checkpoints[-1], model, optimizer)
    history = [row for row in read_history(run) if row["step"] <= state["step"]]
    if device.type == "cuda":
        model.encoder.compile(dynamic=True)
        model.decoder.compile(dynamic=True)
    wrapped: Objective | DistributedDataParallel = objective
    if group.count > 1:
        wrapped = DistributedDataParallel(objective)
    writer = tensorboard_writer(run) if tensorboard and main else None

    sums = torch.zeros(2)  # loss and tokens since the last validation
    started = time.monotonic() - 60 * state["minutes"]
    cpu_started = time.process_time() - 60 * state["cpu_minutes"]
    parent = os.getppid()
    last = state["step"] if has_stalled(state, config) else config.steps
    steps = range(state["step"] + 1, last + 1)
    stream = epochs(
        train_pairs, config.batch_tokens, seed=config.seed, first_step=state["step"]
    )
    with (
        fast_products(device),
        tqdm(
            steps,
            initial=state["step"],
            total=config.steps,
            unit="step",
            disable=not main,
        ) as bar,
    ):
        for step, (epoch, chosen) in zip(bar, stream, strict=False):
            if group.count > 1 and os.getppid() != parent:
                raise InputError("the launcher is gone: stopping this process too")
            torch.manual_seed((config.seed * 1_000_003 + step) * 1_009 + group.rank)
            model.train()
            pieces = cut(chosen, group.count * config.accumulate)[
                group.rank :: group.count
            ]
            n_tokens = sum(len(tgt) for _, tgt in chosen)
            rate = config.rate(step, model.config.d_model)
            for parameters in optimizer.param_groups:
                parameters["lr"] = rate
            loss = train_step(
                wrapped,
                optimizer,
                [piece.to(device) for piece in pieces],
                n_tokens=n_tokens,
                clip=config.clip,
                processes=group.count,
            )
            sums += torch.tensor([loss, sum(piece.n_tokens for piece in pieces)])
            if step % config.validate_every and step != config.steps:
                continue

            total_loss, total_tokens = torch.stack(group.gather(sums)).sum(0).tolist()
            sums.zero_()
            tokens = total_tokens + (history[-1]["tokens"] if history else 0)
            row = {
                "step": step,
                "epoch": epoch,
                "tokens": int(tokens),
                "learning_rate": rate,
                "loss": total_loss / total_tokens,
                "validation_loss": validate(
                    objective, validation_pairs, config.batch_tokens
                ),
            }
            row |= score(group) if score else {}
            row["minutes"] = (time.monotonic() - started) / 60
            row["cpu_minutes"] = (
                time.process_time() - cpu_started
            ) / 60  # of this process
            history.append(row)
            value = -row[metric] if metric.endswith("loss") else row[metric]
            improved = state["best"] is None or value > state["best"]
            state = {
                "step": step,
                "minutes": row["minutes"],
                "cpu_minutes": row["cpu_minutes"],
                "best": value if improved else state["best"],
                "waited": 0 if improved else state["waited"] + 1,
            }
            if main:
                save_progress(
                    run, model, optimizer, state, history, config.keep, improved
                )
                shown = {
                    k: f"{row[k]:.3g}" for k in ("loss", "validation_loss", metric)
                }
                bar.set_postfix(shown)
                if writer:
                    for name, number in row.items():
                        writer.add_scalar(name, number, step)
            if has_stalled(state, config):
                break
    if writer:
        writer.close()
    return history


def has_stalled(state: dict[str, Any], config: TrainingConfig) -> bool:
    """Early stopping: no better score in the last `patience` validations."""
    return config.patience is not None and state["waited"] >= config.patience


def save_progress(
    run: Path,
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    history: list[dict[str, Any]],
    keep: int,
    improved: bool,
) -> None:
    """Write history, checkpoint and best weights; forget checkpoints beyond `keep`."""
    with whole_or_nothing(run / HISTORY) as temporary:
        temporary.write_text(
            "".join(json.dumps(row) + "\n" for row in history), "utf-8"
        )
    if improved:
        save_weights(run / WEIGHTS, model)
    save_checkpoint(
        run / "checkpoints" / f"step-{state['step']:08d}", model, optimizer, state
    )
    for old in list_checkpoints(run)[:-keep]:
        shutil.rmtree(old)


def read_history(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's history; none if it has not begun."""
    path = run / HISTORY
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def tensorboard_writer(run: Path) -> Any:
    """A TensorBoard log inside the run's folder."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "--tensorboard needs its package: pip install tensorboard"
        ) from None
    return SummaryWriter(str(run / "tensorboard"))
