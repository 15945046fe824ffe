"""Listening to the reader's own training step: what its loss does with given logits.

The model's logits are exchanged for the doctor's, `fake + 0 * logits`, and whatever
loss follows leaves its gradient in `fake`: for each position of each sentence, which
label it has, how much it counts, and whether softmax came once.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from annotated_transformer.doctor.keep import unchanged
from annotated_transformer.doctor.patient import (
    Batches,
    Ids,
    are_probabilities,
    logits_of,
    with_logits,
)
from annotated_transformer.doctor.visit import Visit
from annotated_transformer.errors import InputError

LOGITS, LOGS, PROBABILITIES = "logits", "log-probabilities", "probabilities"


def kind_of(output: Tensor) -> str:
    """Whether a model returns logits, log-probabilities or probabilities."""
    output = output.detach().double()
    ones = torch.ones(output.shape[:-1], dtype=torch.double, device=output.device)
    if torch.allclose(output.exp().sum(-1), ones, atol=1e-2):
        return LOGS
    return PROBABILITIES if are_probabilities(output, atol=1e-2) else LOGITS


def fake_output(visit: Visit, shape: torch.Size, kind: str) -> Tensor:
    """Outputs of the doctor's choice, a leaf: spread enough to tell losses apart."""
    values = torch.randn(shape, generator=visit.generator)
    if kind != LOGITS:
        values = values.log_softmax(-1) if kind == LOGS else values.softmax(-1)
    return values.to(visit.device).requires_grad_()


@dataclass
class Call:
    """One call of the model: the ids that went in, and what came out instead."""

    ids: list[Ids]
    kind: str
    fake: Tensor  # (batch, tgt, vocab)
    quiet: bool = False  # whether there is dropout, and all of it was off
    cleared: bool = False  # whether gradients of the call before were thrown away

    @property
    def gradient(self) -> Tensor:
        """What the loss has left, (batch, tgt, vocab)."""
        empty = torch.zeros_like(self.fake)
        return empty if self.fake.grad is None else self.fake.grad


@contextmanager
def exchanged(visit: Visit, module: nn.Module) -> Iterator[list[Call]]:
    """Exchange the logits that `module` returns, and note each call."""
    calls: list[Call] = []
    ids: list[Ids] = []
    whole = visit.module or module

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = [*args, *(v for k, v in kwargs.items() if k != "labels")]
        ids[:] = [t.detach().clone() for t in given if is_ids(t)]

    def exchange(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        with suppress(InputError):
            logits = logits_of(output)
            if torch.is_grad_enabled() and fits(logits.size(-1), visit):
                kind = kind_of(logits)
                fake = fake_output(visit, logits.shape, kind)
                calls.append(Call(list(ids), kind, fake, dropout_is_off(whole)))
                return with_logits(output, fake + 0 * logits.nan_to_num(0, 0, 0))
        return output

    fed: set[int] = set()  # parameters that have had a gradient in this update

    def feed(parameter: nn.Parameter) -> None:
        if id(parameter) in fed and parameter.grad is None and calls:
            calls[-1].cleared = True
        fed.add(id(parameter))

    hooks = [
        whole.register_forward_pre_hook(note, with_kwargs=True),
        module.register_forward_hook(exchange),
        register_optimizer_step_pre_hook(lambda *_: fed.clear()),
    ]
    for p in whole.parameters():
        if p.requires_grad:
            hooks.append(p.register_hook(lambda _, p=p: feed(p)))
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def is_ids(thing: Any) -> bool:
    """Whether this is a (batch, length) tensor of integers."""
    if not isinstance(thing, Tensor) or thing.dim() != 2:
        return False
    return thing.dtype in (torch.int64, torch.int32)


def dropout_is_off(module: nn.Module) -> bool:
    """Whether there is dropout, and each that there is would do nothing."""
    drops = [
        m
        for m in module.modules()
        if (isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0)
        or (isinstance(m, nn.MultiheadAttention) and m.dropout > 0)
    ]
    return bool(drops) and not any(m.training for m in drops)


def fits(columns: int, visit: Visit) -> bool:
    """Whether an output is so wide that it must be logits; some pad the vocabulary."""
    return -8 <= columns - visit.patient.vocab_size <= 128


def places(visit: Visit) -> list[nn.Module]:
    """Where logits can be exchanged: the whole model, or its output layer."""
    if visit.module is None:
        return []
    size = visit.patient.vocab_size
    layers = [m for m in visit.module.modules() if isinstance(m, nn.Linear)]
    return [visit.module, *[m for m in layers if m.out_features == size][-1:]]


def listen(visit: Visit, batches: Batches) -> list[Call]:
    """Calls of one training step whose logits count; none if it cannot be heard."""
    train_step = visit.patient.train_step
    if train_step is None:
        return []
    for module in places(visit):
        with unchanged(visit.patient), exchanged(visit, module) as calls:
            train_step([tuple(ids.clone() for ids in piece) for piece in batches])
        if counted := [call for call in calls if call.gradient.any()]:
            return counted
    return []


# What a gradient says


def back(p: Tensor, gradient: Tensor) -> Tensor:
    """The gradient before a softmax that gave p."""
    return p * (gradient - (p * gradient).sum(-1, keepdim=True))


# Each loss as its gradient at x, where t is the distribution that is asked for.
FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross entropy": lambda x, t: x.softmax(-1) - t,
    "negative": lambda x, t: -t,
    "negative log": lambda x, t: -t / x,
    "cross entropy of softmax": lambda x, t: back(
        x.softmax(-1), x.softmax(-1).softmax(-1) - t
    ),
    "negative softmax": lambda x, t: back(x.softmax(-1), -t),
}


def fit(form: str, x: Tensor, gradient: Tensor, label: Tensor) -> tuple[Tensor, float]:
    """Each row's weight (rows,) in a loss of this form, and the part left unexplained.

    With label smoothing, a gradient is that of the label alone, times a, plus that of
    all tokens alike, times b: the row's weight is a + b.
    """
    one = nn.functional.one_hot(label, x.size(-1)).to(x)
    parts = [FORMS[form](x, one), FORMS[form](x, torch.full_like(x, 1 / x.size(-1)))]
    basis = torch.stack(parts, -1)  # (rows, vocab, 2)
    basis = basis.nan_to_num(0, 0, 0)
    gram = basis.mT @ basis  # (rows, 2, 2)
    gram = gram + 1e-9 * gram.amax((-2, -1), keepdim=True) * torch.eye(2).to(x)
    factors = torch.linalg.solve(gram, basis.mT @ gradient.unsqueeze(-1))
    left = (basis @ factors).squeeze(-1) - gradient
    return factors.sum((-2, -1)), (left.norm() / gradient.norm()).item()


@dataclass
class Reading:
    """What the gradients of a step say, row by row: a row is one position of a target.

    `place` counts from the start token, which is 0; a sentence of n words ends at
    n + 1, where the end token is, and padding follows. All are (rows,).
    """

    kind: str  # what the model returns
    quiet: bool  # whether there is dropout, and all of it was off
    counts: Tensor  # bool: whether the row is in the loss at all
    weight: Tensor  # how much
    label: Tensor
    label_place: Tensor  # in the sentence, -1 if it is not there
    given_place: Tensor  # of the decoder's input in the same row
    end: Tensor  # the end token's place in the row's sentence
    sentence: Tensor  # which of the doctor's
    starts: list[int]  # first inputs of the decoder
    form: str = ""  # the loss that explains the gradient

    def real(self, pad: int | None) -> Tensor:
        """Rows that count, and should."""
        return self.counts & (self.given_place < self.end) & (self.label != pad)

    def padded(self, pad: int | None, eos: int) -> Tensor:
        """Rows that count, and should not."""
        if pad is None:
            return torch.zeros_like(self.counts)
        label = (self.label == pad) & (pad != eos)
        return self.counts & (label | (self.given_place > self.end))


def read(visit: Visit, calls: list[Call], batches: Batches) -> Reading:
    """What calls of the model, and their gradients, say about the loss."""
    sentences = [
        (ids[0], ids[-1]) for piece in batches for ids in zip(*piece, strict=True)
    ]
    columns: dict[str, list[Tensor]] = {}
    starts: list[int] = []
    for call in calls:
        rows, start = positions(call, sentences, visit)
        starts += start
        for name, values in rows.items():
            columns.setdefault(name, []).append(values)
    table: dict[str, Any] = {k: torch.cat(parts) for k, parts in columns.items()}
    x = torch.cat([call.fake.detach().double().flatten(0, 1) for call in calls])
    gradient = torch.cat([call.gradient.double().flatten(0, 1) for call in calls])
    largest = gradient.abs().amax(-1)
    counts = largest > 1e-6 * largest.max()
    table |= {"counts": counts, "weight": torch.zeros_like(largest)}
    quiet = all(call.quiet for call in calls)
    reading = Reading(kind=calls[0].kind, quiet=quiet, starts=starts, **table)
    real = reading.real(visit.patient.pad)
    some = real if real.any() else counts
    found = explain(reading.kind, x[some], gradient[some], reading.label[some])
    reading.form, reading.weight[some] = found
    return reading


def explain(
    kind: str, x: Tensor, gradient: Tensor, label: Tensor
) -> tuple[str, Tensor]:
    """The form of loss that explains a gradient, or "", and each row's weight.

    Row by row, some losses differ by a factor alone: -p is -log p times p. Of those
    that fit, it is the one for which the rows count most alike.
    """
    dead = ~gradient.any(0)  # a padding column may be left out of the softmax
    if 0 < dead.sum() <= 4:
        x = x.masked_fill(dead, -torch.inf)
    spreads, weights = {}, {}
    for form in FORMS:
        if form == "negative log" and kind != PROBABILITIES:
            continue
        weights[form], left = fit(form, x, gradient, label)
        if left < 0.05:
            spreads[form] = float(weights[form].abs().log().std(unbiased=False))
    if spreads:
        best = min(spreads, key=lambda form: spreads[form])
        return best, weights[best]
    return "", -gradient.gather(-1, label[:, None]).squeeze(-1)


def positions(
    call: Call, sentences: list[tuple[Tensor, Tensor]], visit: Visit
) -> tuple[dict[str, Tensor], list[int]]:
    """Each row's sentence, label, and their places; and the decoder's first inputs."""
    labels = call.gradient.argmin(-1)  # (batch, tgt)
    length = labels.size(1)
    owners = [owner(call, row, sentences, visit) for row in range(len(labels))]
    inputs = decoder_input(call, owners, sentences, visit)
    shifts: Counter[int] = Counter()
    for row, who in enumerate(owners):
        where = lookup(sentences[who][1], visit.specials)
        tokens = inputs[row].tolist() if inputs is not None else []
        shifts.update(where[i] - t for t, i in enumerate(tokens) if i in where)
    shift = shifts.most_common(1)[0][0] if shifts else 0
    given = (torch.arange(length) + shift).expand(len(labels), -1)
    ends = [end_of(sentences[who][1], visit) for who in owners]
    found = [
        [nearest(sentences[who][1], i, t + shift + 1) for t, i in enumerate(row)]
        for who, row in zip(owners, labels.tolist(), strict=True)
    ]
    starts = inputs[:, 0].tolist() if inputs is not None and shift == 0 else []
    each = torch.tensor(owners)[:, None].expand(-1, length)
    rows = {
        "label": labels,
        "label_place": torch.tensor(found),
        "given_place": given,
        "end": torch.tensor(ends)[:, None].expand(-1, length),
        "sentence": each,
    }
    return {k: v.flatten().to(labels.device) for k, v in rows.items()}, starts


def lookup(sentence: Ids, specials: set[int]) -> dict[int, int]:
    """Each word's place."""
    return {i: t for t, i in enumerate(sentence.tolist()) if i not in specials}


def end_of(sentence: Ids, visit: Visit) -> int:
    """The end token's place: right after the last word."""
    return max(lookup(sentence, visit.specials).values(), default=0) + 1


def nearest(sentence: Ids, token: int, place: int) -> int:
    """Where the token stands in the sentence, nearest to a place; -1 if nowhere."""
    at = [t for t, i in enumerate(sentence.tolist()) if i == token]
    return min(at, key=lambda t: abs(t - place), default=-1)


def owner(
    call: Call, row: int, sentences: list[tuple[Tensor, Tensor]], visit: Visit
) -> int:
    """Which of the doctor's sentences a row is: the one with most words in common."""
    given = {i for ids in call.ids if row < len(ids) for i in ids[row].tolist()}
    given -= visit.specials
    shared = [
        len(given & {i for ids in sentence for i in ids.tolist()})
        for sentence in sentences
    ]
    return shared.index(max(shared))


def decoder_input(
    call: Call,
    owners: list[int],
    sentences: list[tuple[Tensor, Tensor]],
    visit: Visit,
) -> Ids | None:
    """Which of the ids that went in was the decoder's: most of its words are known."""

    def known(ids: Ids) -> float:
        hits = [
            i in lookup(sentences[who][1], visit.specials)
            for who, row in zip(owners, ids.tolist(), strict=True)
            for i in row
            if i not in visit.specials
        ]
        return sum(hits) / max(len(hits), 1)

    length = call.fake.size(1)
    several = [ids for ids in call.ids if len(ids) == len(owners)]
    several = [ids[:, :length] for ids in several if ids.size(1) >= length]
    best = max(several, key=known, default=None)
    return best if best is not None and known(best) > 0.5 else None
