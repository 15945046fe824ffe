"""The progress of a run: history, best weights, checkpoints, and progress bar."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn
from tqdm import tqdm

from annotated_transformer.batches import Batch
from annotated_transformer.checkpoints import (
    STATE,
    WEIGHTS,
    fingerprint,
    list_checkpoints,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)
from annotated_transformer.config import TrainingConfig
from annotated_transformer.errors import InputError, warn
from annotated_transformer.files import (
    read_bytes,
    remove_folder,
    remove_unfinished,
    whole_or_nothing,
)
from annotated_transformer.processes import Processes
from annotated_transformer.settings import checked, parsed

HISTORY = "history.jsonl"  # in a run's folder: one line for each validation
Finite = Annotated[float, Field(allow_inf_nan=False)]


@checked
class State:
    """The state of a run at a checkpoint.

    `best` is the best score so far, with its sign chosen so that higher is better; of
    equal scores, the one with the lower validation loss is better. `waited` counts the
    validations since `best_step`.
    """

    step: int = 0
    minutes: float = 0.0
    cpu_minutes: float = 0.0
    best: float = -math.inf
    best_loss: float = math.inf
    best_step: int = 0
    waited: int = 0

    def has_stalled(self, patience: int | None) -> bool:
        """Early stopping: no better score in the last `patience` validations."""
        return patience is not None and self.waited >= patience


@checked
class Record(State):
    """What a checkpoint says of itself, so that files of another run are noticed.

    `run` stands for the run's settings, corpus and tokenizer, `weights` and
    `best_weights` for the weights of this checkpoint and of the best one; `rows` counts
    the validations in the history.
    """

    run: str
    rows: int
    weights: str
    best_weights: str


class Progress:
    """Records a run on disk, each file whole or not at all, and shows it on screen.

    `metric` names the validation score that selects the best weights: the lowest loss,
    or the highest of any other score. `identity` tells this run from any other. Only
    the main process writes and shows.
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
        identity: str = "",
        resume: bool = False,
        tensorboard: bool = False,
    ):
        self.run, self.model, self.optimizer = run, model, optimizer
        self.config, self.group, self.metric = config, group, metric
        self.identity = identity
        self.state, self.best_weights = State(), ""
        self.history: list[dict[str, Any]] = []
        checkpoints = list_checkpoints(run)
        if resume and checkpoints:
            self.restore(checkpoints[-1])
        if group.main:
            self.tidy()
        self.now = self.step  # the step in progress
        self.loss, self.tokens = 0.0, 0  # since the last validation
        self.started = time.monotonic() - 60 * self.state.minutes
        self.cpu_started = time.process_time() - 60 * self.state.cpu_minutes
        self.writer = tensorboard_writer(run) if tensorboard and group.main else None

    def restore(self, checkpoint: Path) -> None:
        """Go on from a checkpoint. Raises InputError if a file is of another run."""
        values = load_checkpoint(checkpoint, self.model, self.optimizer)
        missing = {field.name for field in fields(Record)} - values.keys()
        if missing:
            raise InputError(f"{checkpoint / STATE}: {min(missing)} is missing")
        try:
            record = Record(**values)
        except InputError as error:
            raise InputError(f"{checkpoint / STATE}: {error}") from None
        rows = [row for row in read_history(self.run) if row["step"] <= record.step]
        for fits, name in (
            (record.run == self.identity, self.run / "settings.json"),
            (f"step-{record.step:08d}" == checkpoint.name, checkpoint / STATE),
            (record.weights == fingerprint(self.model), checkpoint / WEIGHTS),
            (record.rows == len(rows), self.run / HISTORY),
        ):
            if not fits:
                raise InputError(
                    f"{name} does not belong to this run as {checkpoint} records it: "
                    "put the right file back, or train into another folder"
                )
        self.history, self.best_weights = rows, record.best_weights
        self.state = State(**{name: values[name] for name in asdict(State())})
        if self.group.main:
            self.restore_best()

    def restore_best(self) -> None:
        """Make sure of the best weights, from the best step's checkpoint if need be."""
        path, model = self.run / WEIGHTS, deepcopy(self.model)
        kept = self.run / "checkpoints" / f"step-{self.state.best_step:08d}" / WEIGHTS
        for source in (path, kept):
            try:
                load_weights(source, model)
            except InputError:
                continue
            if fingerprint(model) == self.best_weights:
                if source != path:
                    save_weights(path, model)
                return
        raise InputError(
            f"{path} is not the best weights of this run, those of step "
            f"{self.state.best_step}: put them back, or train into another folder"
        )

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
        self.need_finite("loss", loss)
        self.loss += loss
        self.tokens += sum(piece.n_tokens for piece in pieces)

    def need_finite(self, name: str, value: float) -> None:
        """Raise InputError if training has left the range of numbers."""
        if not math.isfinite(value):
            raise InputError(
                f"the {name} is {value} at step {self.now}: training diverged, and "
                "nothing was saved since the last validation. Try a lower learning "
                "rate, a longer warmup, or clipping"
            )

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
        for name, value in row.items():
            self.need_finite(name, value)
        self.history.append(row)
        self.loss, self.tokens = 0.0, 0
        improved = self.judge(row)
        if self.group.main:
            self.write(improved)
            self.say_if_still()

    def judge(self, row: dict[str, Any]) -> bool:
        """Whether these are the best scores so far; the state goes on to this row."""
        score, minus_loss = standing(row, self.metric)
        loss, old = -minus_loss, self.state
        improved = (score, -loss) > (old.best, -old.best_loss)
        self.state = State(
            step=row["step"],
            minutes=row["minutes"],
            cpu_minutes=row["cpu_minutes"],
            best=score if improved else old.best,
            best_loss=loss if improved else old.best_loss,
            best_step=row["step"] if improved else old.best_step,
            waited=0 if improved else old.waited + 1,
        )
        return improved

    def say_if_still(self) -> None:
        """Say once that the score which should select the weights does not move."""
        scores = [row[self.metric] for row in self.history]
        if len(scores) == 3 and len(set(scores)) == 1:
            warn(
                f"{self.metric} was {scores[0]:g} at each of 3 validations; until it "
                "moves, the validation loss selects the best weights"
            )

    def write(self, improved: bool) -> None:
        """Write what `save` recorded; then older checkpoints may go.

        The checkpoint comes before the best weights, which `restore_best` can take from
        it if the run is stopped between the two.
        """
        with whole_or_nothing(self.run / HISTORY) as temporary:
            lines = [json.dumps(row, allow_nan=False) + "\n" for row in self.history]
            temporary.write_text("".join(lines), "utf-8")
        weights = fingerprint(self.model)
        self.best_weights = weights if improved else self.best_weights
        record = Record(
            run=self.identity,
            rows=len(self.history),
            weights=weights,
            best_weights=self.best_weights,
            **asdict(self.state),
        )
        folder = self.run / "checkpoints" / f"step-{self.step:08d}"
        save_checkpoint(folder, self.model, self.optimizer, asdict(record))
        if improved:
            save_weights(self.run / WEIGHTS, self.model)
        self.tidy()
        if self.writer:
            for name, number in self.history[-1].items():
                self.writer.add_scalar(name, number, self.step)

    def tidy(self) -> None:
        """Delete checkpoints beyond `keep`, and what a killed writer left behind."""
        for old in list_checkpoints(self.run)[: -self.config.keep]:
            remove_folder(old)
        remove_unfinished(self.run)
        remove_unfinished(self.run / "checkpoints")


def standing(row: dict[str, Any], metric: str) -> tuple[float, float]:
    """What selects the best weights: the score, then the loss; higher is better."""
    sign = -1 if metric.endswith("loss") else 1
    return sign * row[metric], -row["validation_loss"]


def read_history(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's history; no rows if it has not begun."""
    path = run / HISTORY
    lines = read_bytes(path).splitlines() if path.exists() else []
    rows = [parsed(dict[str, int | Finite], line, path) for line in lines]
    for number, row in enumerate(rows, 1):
        missing = {"step", "tokens", "loss", "validation_loss"} - row.keys()
        if missing:
            raise InputError(f"{path}, line {number} has no {min(missing)}")
    return rows


def tensorboard_writer(run: Path) -> Any:
    """A TensorBoard log inside the run's folder."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "--tensorboard needs its package: pip install tensorboard"
        ) from None
    return SummaryWriter(str(run / "tensorboard"))
