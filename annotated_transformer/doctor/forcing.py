"""Teacher forcing: what the model says of outputs that are shown to it at once."""

from collections.abc import Iterator

import torch
from torch import Tensor

from annotated_transformer.doctor.patient import Ids, as_logits
from annotated_transformer.doctor.visit import Visit

NEAR = 1e-3  # of the logits' standard deviation: what two ways of adding may differ by
CHECKED = 24  # tokens of each output


def sources(visit: Visit, rows: int) -> Ids:
    """Sources without padding, (rows, 7); the beginnings of texts for a decoder."""
    p = visit.patient
    if p.decoder_only:
        start = torch.full((rows, 1), p.bos, device=visit.device)
        return torch.cat([start, visit.words(rows, 6)], 1)
    end = torch.full((rows, 1), p.eos, device=visit.device)
    return torch.cat([visit.words(rows, 6, source=True), end], 1)


def training_start(visit: Visit) -> int:
    """The first decoder input in training, as far as one knows."""
    start = visit.facts.get("training_start")
    if start is not None:
        return int(start)
    if visit.patient.batch is not None:
        first = visit.patient.batch[-1][:, 0].unique()
        if len(first) == 1:
            return int(first)
    return visit.patient.bos


def candidates(visit: Visit) -> list[int]:
    """What decoding may begin with, training's start token first."""
    p = visit.patient
    given = [training_start(visit), p.bos, p.eos, *([] if p.pad is None else [p.pad])]
    return list(dict.fromkeys([*given, 0, 1, 2, 3]))


def bodies(
    visit: Visit, rows: list[list[int]], start: int
) -> Iterator[list[list[int]]]:
    """The outputs as labels, each up to its end token: as they are; without a start."""
    longest = max(map(len, rows))
    short = [not row or len(row) < longest for row in rows]  # so it has ended
    cut = 2 if all(row[:1] == [start] for row in rows) else 1
    for first in range(cut):
        body = [up_to_end(visit, row[first:]) for row in rows]
        end = visit.patient.eos
        yield [
            row + [end] * (ended and row[-1:] != [end])
            for row, ended in zip(body, short, strict=True)
        ]


def up_to_end(visit: Visit, row: list[int]) -> list[int]:
    """A row to its first end token, that included; no padding after it."""
    p = visit.patient
    if p.eos in row:
        return row[: row.index(p.eos) + 1]
    while row and row[-1] == p.pad:
        row = row[:-1]
    return row


def explained(visit: Visit, src: Ids, rows: list[list[int]], start: int) -> bool:
    """Whether the outputs are the likeliest tokens of a decoder that begins so."""
    return any(
        all(
            bool((gaps(visit, one, row, [start]) < NEAR).all())
            for one, row in zip(src, body, strict=True)
        )
        for body in bodies(visit, rows, start)
    )


def starts_of(
    visit: Visit, src: Ids, rows: list[list[int]], begun: int | None
) -> list[int]:
    """The start tokens that explain the outputs; `begun` is the one seen, if any."""
    starts = candidates(visit) if begun is None else [begun]
    right = [start for start in starts if explained(visit, src, rows, start)]
    return right or [s for s in starts[:1] if explained_without(visit, src, rows, s)]


def explained_without(
    visit: Visit, src: Ids, rows: list[list[int]], start: int
) -> bool:
    """Whether they are the likeliest tokens, those that are no words left out."""
    ids = torch.full((len(src), 1), start, device=src.device)
    for _ in range(CHECKED):
        ids = torch.cat([ids, visit.logits(src, ids)[:, -1:].argmax(-1)], 1)
    for whole, row in zip(ids[:, 1:].tolist(), rows, strict=True):
        left, right = (
            [i for i in up_to_end(visit, part) if i not in visit.specials]
            for part in (whole, row)
        )
        same = min(len(left), len(right))
        ended = visit.patient.eos in whole
        if left[:same] != right[:same] or ((ended or not same) and left != right):
            return False
    return True


def disagreement(visit: Visit, src: Ids, rows: list[list[int]], start: int) -> str:
    """Where the outputs differ from the likeliest tokens, in words."""
    *_, body = bodies(visit, rows, start)
    distances = [
        gaps(visit, one, row, [start]) for one, row in zip(src, body, strict=True)
    ]
    return shares(distances)


def shares(distances: list[Tensor]) -> str:
    """How many tokens are not the likeliest ones."""
    wrong = torch.cat(distances) >= NEAR
    return f"{int(wrong.sum())} of {len(wrong)} tokens are others"


def without_prompt(visit: Visit, src: Ids, rows: list[list[int]]) -> tuple[bool, str]:
    """For a decoder alone: whether what it adds to each text is wrong, and how much."""
    distances = []
    for prompt, row in zip(src.tolist(), rows, strict=True):
        if row[: len(prompt)] == prompt:
            row = row[len(prompt) :]
        distances.append(gaps(visit, None, up_to_end(visit, row), prompt))
    return bool((torch.cat(distances) >= NEAR).any()), shares(distances)


def gaps(visit: Visit, src: Tensor | None, row: list[int], before: list[int]) -> Tensor:
    """How far each token is from the likeliest, in standard deviations of the logits.

    Padding, start and unknown token may be ruled out, so they do not count as likelier.
    """
    row = row[:CHECKED]
    if not row:
        return torch.zeros(0)
    logits = forced(visit, src, row, before)
    ids = torch.tensor(row, device=logits.device)
    if int(ids.max()) >= logits.size(-1):
        return torch.full((len(row),), float("inf"))
    ruled_out = visit.specials - {visit.patient.eos}
    words = logits.clone()
    words[:, [i for i in ruled_out if i < logits.size(-1)]] = -torch.inf
    best, chosen = words.max(-1).values, logits.gather(-1, ids[:, None])[:, 0]
    return ((best - chosen) / logits.std(-1)).clamp(min=0).cpu()


def forced(
    visit: Visit, src: Tensor | None, row: list[int], before: list[int]
) -> Tensor:
    """The logits (len(row), vocab) that predict a row which stands after `before`."""
    ids = torch.tensor([before + row[:-1]], device=visit.device)
    logits = visit.logits(ids) if src is None else visit.logits(src[None], ids)
    return logits[0, len(before) - 1 :]


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-probabilities of logits, of log-probabilities, or of probabilities."""
    return as_logits(logits).log_softmax(-1)


def differences(some: Tensor, others: Tensor) -> Tensor:
    """Each position's largest difference, (tgt,), in standard deviations."""
    some, others = log_probabilities(some), log_probabilities(others)
    if some.shape != others.shape:
        return torch.full((others.size(1),), torch.inf)
    worst = (some - others).abs().amax((0, 2))
    return (worst / others.std(-1).mean(0)).cpu()
