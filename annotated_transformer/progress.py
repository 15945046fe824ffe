"""The progress of a run: history, best weights, checkpoints, and progress bar."""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from annotated_transformer.batches import Batch
from annotated_transformer.checkpoints import (
    WEIGHTS,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    save_weights,
)
from annotated_transformer.config import TrainingConfig
from annotated_transformer.errors import InputError
from annotated_transformer.files import whole_or_nothing
from annotated_transformer.processes import Processes

HISTORY = "history.jsonl"  # in a run's folder: one line for each validation


@dataclass
class State:
    """The state of a run at a checkpoint.

    `best` is the best score so far, with its sign chosen so that higher is better;
    `waited` counts the validations since then.
    """

    step: int = 0
    minutes: float = 0.0
    cpu_minutes: float = 0.0
    best: float | None = None
    waited: int = 0

    def has_stalled(self, patience: int | None) -> bool:
        """Early stopping: no better score in the last `patience` validations."""
        return patience is not None and self.waited >= patience


class Progress:
    """Records a run on disk, each file whole or not at all, and shows it on screen.

    `metric` names the validation score that selects the best weights: the lowest loss,
    or the highest of any other score. Only the main process writes and shows.
    """

    def __init__(
        self,
        run: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainingConfig,
        group: Processes,
        *,
        metric: str = "validation_loss",
        resume: bool = False,
        tensorboard: bool = False,
    ):
        self.run, self.model, self.optimizer = run, model, optimizer
        self.config, self.group, self.metric = config, group, metric
        self.state = State()
        checkpoints = list_checkpoints(run)
        if resume and checkpoints:
            self.state = State(**load_checkpoint(checkpoints[-1], model, optimizer))
        rows = read_history(run)
        self.history = [row for row in rows if row["step"] <= self.state.step]
        self.now = self.step  # the step in progress
        self.loss, self.tokens = 0.0, 0  # since the last validation
        self.started = time.monotonic() - 60 * self.state.minutes
        self.cpu_started = time.process_time() - 60 * self.state.cpu_minutes
        self.writer = tensorboard_writer(run) if tensorboard and group.main else None

    @property
    def step(self) -> int:
        """The last step that was saved."""
        return self.state.step

    @property
    def stalled(self) -> bool:
        """Whether early stopping ends the run here."""
        return self.state.has_stalled(self.config.patience)

    def steps(self) -> Iterator[int]:
        """The remaining steps, counted from 1, with a progress bar."""
        left = range(self.step + 1, self.config.steps + 1)
        bar = tqdm(
            left[: 0 if self.stalled else None],
            initial=self.step,
            total=self.config.steps,
            unit="step",
            disable=not self.group.main,
        )
        with bar:
            for step in bar:
                self.group.check_launcher()
                self.now = step
                yield step
                if self.step == step:  # just saved
                    row = self.history[-1]
                    shown = ("loss", "validation_loss", self.metric)
                    bar.set_postfix({name: f"{row[name]:.3g}" for name in shown})
                if self.stalled:
                    break
        if self.writer:
            self.writer.close()

    def count(self, loss: float, pieces: Sequence[Batch]) -> None:
        """Add a step's loss, in nats, summed over the tokens of these pieces."""
        self.loss += loss
        self.tokens += sum(piece.n_tokens for piece in pieces)

    def save(self, figures: dict[str, Any]) -> None:
        """Record a validation: history, checkpoint and, if it is the best, weights."""
        parts = self.group.gather((self.loss, self.tokens))
        loss, tokens = map(sum, zip(*parts, strict=True))
        before = self.history[-1]["tokens"] if self.history else 0
        row: dict[str, Any] = {
            "step": self.now,
            "tokens": before + tokens,
            "loss": loss / tokens,
        }
        row |= figures
        row["minutes"] = (time.monotonic() - self.started) / 60
        # of this process alone
        row["cpu_minutes"] = (time.process_time() - self.cpu_started) / 60
        self.history.append(row)
        self.loss, self.tokens = 0.0, 0
        score, best = row[self.metric], self.state.best
        score = -score if self.metric.endswith("loss") else score
        improved = best is None or score > best
        self.state = State(
            step=row["step"],
            minutes=row["minutes"],
            cpu_minutes=row["cpu_minutes"],
            best=score if improved else best,
            waited=0 if improved else self.state.waited + 1,
        )
        if self.group.main:
            self.write(improved)

    def write(self, improved: bool) -> None:
        """Write what `save` recorded, and delete checkpoints beyond `keep`."""
        with whole_or_nothing(self.run / HISTORY) as temporary:
            lines = [json.dumps(row) + "\n" for row in self.history]
            temporary.write_text("".join(lines), "utf-8")
        if improved:
            save_weights(self.run / WEIGHTS, self.model)
        folder = self.run / "checkpoints" / f"step-{self.step:08d}"
        save_checkpoint(folder, self.model, self.optimizer, asdict(self.state))
        for old in list_checkpoints(self.run)[: -self.config.keep]:
            shutil.rmtree(old)
        if self.writer:
            for name, number in self.history[-1].items():
                self.writer.add_scalar(name, number, self.step)


def read_history(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's history; no rows if it has not begun."""
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
