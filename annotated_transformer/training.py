"""The training loop (§5): it resumes exactly, on one process or many."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from annotated_transformer.batches import (
    Batch,
    EncodedPair,
    check_lengths,
    collate,
    epochs,
    token_groups,
)
from annotated_transformer.config import TrainingConfig
from annotated_transformer.devices import compile_stacks, fast_path
from annotated_transformer.objectives import Objective, objective_for
from annotated_transformer.processes import Processes
from annotated_transformer.progress import Progress
from annotated_transformer.special import PAD
from annotated_transformer.transformer import Transformer


def adam(model: nn.Module) -> torch.optim.Adam:
    """Adam with the paper's betas and eps (§5.3); the schedule sets its rate."""
    return torch.optim.Adam(
        model.parameters(), lr=0.0, betas=(0.9, 0.98), eps=1e-9, fused=True
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> float:
    """Give all parameters this learning rate, and return it."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def cut(pairs: Sequence[EncodedPair], pieces: int) -> list[Batch]:
    """Deal pairs into pieces like cards; a piece that gets none counts for nothing."""
    hands = [pairs[i::pieces] for i in range(pieces)]
    blank = collate(pairs[:1])
    blank.tgt[:] = PAD
    return [collate(hand) if hand else blank for hand in hands]


def train_step(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    pieces: Sequence[Batch],
    *,
    n_tokens: int,
    clip: float | None = None,
    processes: int = 1,
) -> float:
    """One update from the pieces of a batch; returns their summed loss, in nats.

    Each piece's loss is divided by the tokens of the whole batch, never by its own, so
    the gradient is that of the whole batch, however it is cut. Processes average their
    gradients, hence the factor `processes`. Clipping comes after the last piece.
    """
    optimizer.zero_grad()
    device = next(objective.parameters()).device
    total = 0.0
    for i, piece in enumerate(pieces):
        wait = isinstance(objective, DistributedDataParallel) and i < len(pieces) - 1
        with objective.no_sync() if wait else nullcontext():  # type: ignore
            with torch.autocast(device.type, torch.bfloat16, device.type == "cuda"):
                loss = objective(piece.to(device))
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
    """Mean loss per token in nats, without smoothing: its exp is the perplexity."""
    objective.eval()
    device = objective.model.tgt_embeddings.weight.device
    plain = Objective(objective.model, smoothing=0.0).eval()
    total, n_tokens = 0.0, 0
    for group in token_groups(pairs, max_tokens):
        batch = collate(group).to(device)
        total, n_tokens = total + plain(batch).item(), n_tokens + batch.n_tokens
    return total / n_tokens


def train(
    model: Transformer,
    train_pairs: Sequence[EncodedPair],
    validation_pairs: Sequence[EncodedPair],
    config: TrainingConfig,
    run: Path,
    *,
    score: Callable[[Processes], dict[str, float]] | None = None,
    make_objective: Callable[..., Objective] = objective_for,
    device: str = "auto",
    **keeping: Any,
) -> list[dict[str, Any]]:
    """Train as in §5; write weights, history and checkpoints to the folder `run`.

    `score` adds to each validation; the rest goes to `Progress`. Returns the history.
    """
    check_lengths([*train_pairs, *validation_pairs], config.batch_tokens)
    group = Processes.join(device)
    objective = make_objective(model.to(group.device), config)
    optimizer = adam(model)
    progress = Progress(run, model, optimizer, config, group, **keeping)
    if group.device.type == "cuda":
        compile_stacks(model.encoder, model.decoder)
    shared = group.share(objective)
    update: dict[str, Any] = {"clip": config.clip, "processes": group.count}
    batches = epochs(train_pairs, config.batch_tokens, config.seed, progress.step)
    with fast_path(model):
        for step, (epoch, pairs) in zip(progress.steps(), batches, strict=False):
            group.seed(config.seed, step)  # so that resuming changes nothing
            objective.train()
            rate = set_rate(optimizer, config.rate(step, model.config.d_model))
            hands = cut(pairs, group.count * min(config.accumulate, len(pairs)))
            pieces, n_tokens = group.part(hands), sum(len(tgt) for _, tgt in pairs)
            loss = train_step(shared, optimizer, pieces, n_tokens=n_tokens, **update)
            progress.count(loss, pieces)
            if step % config.validate_every == 0 or step == config.steps:
                loss = validate(objective, validation_pairs, config.batch_tokens)
                figures = {"validation_loss": loss, **(score(group) if score else {})}
                progress.save({"epoch": epoch, "learning_rate": rate, **figures})
    return progress.history
