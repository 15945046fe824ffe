"""A script for the reader's decoding: whatever the model says, these tokens follow."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from annotated_transformer.doctor.forcing import log_probabilities
from annotated_transformer.doctor.patient import (
    Ids,
    are_probabilities,
    logits_of,
    with_logits,
)
from annotated_transformer.doctor.visit import Visit
from annotated_transformer.errors import InputError

Chances = Mapping[int | None, Mapping[int, float]]  # token: {next: probability}


class TooLong(BaseException):
    """Decoding went on and on; no `except Exception` of the reader's catches it."""


class Script:
    """What follows each token, and what was heard while decoding followed it.

    `chances[None]` is for every token that is not named; the probability left over is
    spread evenly. Without chances one only listens. Logits are found by their columns,
    wherever in the module they are made, and the tokens before them by the last ids
    that an embedding, or else any module, was given, and that are not the source `src`.
    """

    def __init__(self, visit: Visit, src: Ids, chances: Chances | None = None):
        self.module, self.decoder_only = visit.module, visit.patient.decoder_only
        self.src = None if self.decoder_only else src
        self.one = (1, len(src))  # one token of each row, if positions come first
        self.turned: set[int] = set()  # modules whose positions come first
        self.columns, self.probabilities = kind_of_output(visit)
        self.chances = chances
        self.calls: Counter[int] = Counter()
        self.ids: Tensor | None = None
        self.ids_turned = False
        self.embedded = False  # the ids are an embedding's
        self.start: int | None = None  # the decoder's first input
        self.training = False  # whether the module was in train() at any time
        self.deadline = float("inf")
        self.cached = True  # as long as one token at a time is read

    @property
    def steps(self) -> int:
        """How many times logits were made."""
        return max(self.calls.values(), default=0)

    @contextmanager
    def played(self, *, steps: int = 300, seconds: float = 20) -> Iterator["Script"]:
        """Listen, and answer, while the reader decodes. Raises TooLong."""
        self.limit, self.deadline = steps, time.monotonic() + seconds
        hooks = []
        try:
            for module in self.module.modules() if self.module is not None else ():
                hear, answer = self.hear, self.answer
                hooks += [
                    module.register_forward_pre_hook(hear, with_kwargs=True),
                    module.register_forward_hook(answer),
                ]
            yield self
        finally:
            for hook in hooks:
                hook.remove()

    def hear(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Keep the last ids that went in."""
        embedding = isinstance(module, nn.Embedding)
        rows = getattr(module, "num_embeddings", self.columns) if embedding else 0
        if embedding and abs(int(rows) - self.columns) > 8:
            return  # of positions, or of another vocabulary
        if self.embedded and not embedding:
            return
        for value in (*args, *kwargs.values()):
            whole = isinstance(value, Tensor) and value.dtype in (
                torch.int64,
                torch.int32,
            )
            if whole and not are_of(value, self.src):
                self.ids, self.embedded = value, embedding
                self.ids_turned = self.is_turned(module, value.shape)

    def answer(self, module: nn.Module, args: tuple, output: Any) -> Any:
        """Put the script's logits in the place of the model's."""
        if isinstance(output, Tensor):
            logits = output
        elif module is self.module:
            try:
                logits = logits_of(output)
            except InputError:
                return None
        else:
            return None
        if logits.size(-1) != self.columns or not logits.is_floating_point():
            return None
        turned = self.is_turned(module, logits.shape[:-1])
        shape = logits.shape[:-1][::-1] if turned else logits.shape[:-1]
        ids = self.ids.mT if self.ids is not None and self.ids_turned else self.ids
        before = tokens_before(ids, shape)
        if before is None:
            return None
        before = before.mT if turned else before
        self.count(module, before)
        new = self.instead(module, before, logits)
        return None if new is None else with_logits(output, new.to(logits))

    def is_turned(self, module: nn.Module, shape: torch.Size) -> bool:
        """Whether a module has positions first: with one token a row, it shows."""
        if self.one[1] > 1 and not self.decoder_only and shape == self.one:
            self.turned.add(id(module))
        return id(module) in self.turned and len(shape) == 2

    def count(self, module: nn.Module, before: Tensor) -> None:
        """Remember how decoding began, and end it if it goes on and on."""
        if not self.calls and not self.decoder_only:
            first = before.reshape(len(before), -1)[:, 0].unique()
            self.start = int(first) if len(first) == 1 else None
        self.training |= self.module is not None and self.module.training
        self.calls[id(module)] += 1
        if self.ids is not None and self.calls[id(module)] > 2:
            self.cached &= self.ids[0].numel() == 1
        if self.steps > self.limit or time.monotonic() > self.deadline:
            raise TooLong

    def instead(
        self, module: nn.Module, before: Tensor, logits: Tensor
    ) -> Tensor | None:
        """What the reader gets for these logits; None leaves them."""
        return None if self.chances is None else self.logits(before)

    def logits(self, before: Tensor) -> Tensor:
        """The script's log-probabilities (*before, columns), or probabilities."""
        chances = self.chances or {}
        keys = [key for key in chances if key is not None]
        rows = torch.stack([self.row(chances[key]) for key in [*keys, None]])
        which = torch.full_like(before, len(keys))
        for i, key in enumerate(keys):
            which[before == key] = i
        return rows.to(before.device)[which]

    def row(self, chances: Mapping[int, float]) -> Tensor:
        """One token's (columns,) of what may follow."""
        rest = (1 - sum(chances.values())) / self.columns
        row = torch.full((self.columns,), rest)
        for token, chance in chances.items():
            row[token] += chance
        return row if self.probabilities else row.log()


class Staggered(Script):
    """A script that each row of the batch begins one word later than the one before."""

    def __init__(self, visit: Visit, src: Ids, chances: Chances, words: list[int]):
        super().__init__(visit, src, chances)
        self.words = words

    def logits(self, before: Tensor) -> Tensor:
        """The same; after the start token, a row's own first word."""
        new = super().logits(before)
        for row, word in enumerate(self.words[: len(before)]):
            begins = torch.ones_like(before[row], dtype=torch.bool)
            for token in self.words:
                begins &= before[row] != token
            new[row][begins] = self.row({word: 0.9999}).to(new)
        return new


class FixedLength(Script):
    """Words alone for so many steps, and then the end token, whatever the model says.

    Which words is a matter of the model's logits in their second decimal, so that a
    wrong past or source, however little it changes an untrained model, changes all.
    Steps are counted from the last time that all rows had nothing but `start`.
    """

    def __init__(self, visit: Visit, src: Ids, *, length: int, start: int):
        super().__init__(visit, src)
        self.length, self.first, self.end = length, start, visit.patient.eos
        self.barred = [i for i in visit.specials if i < self.columns]
        self.where = 0  # the innermost module that makes logits
        self.begun: int | None = None  # with which of its calls decoding began

    def instead(
        self, module: nn.Module, before: Tensor, logits: Tensor
    ) -> Tensor | None:
        """Words alone, or the end token alone."""
        self.where = self.where or id(module)
        if id(module) != self.where:
            return None
        call, width = self.calls[id(module)], before[0].numel()
        if width == 1 and bool((before == self.first).all()):
            self.begun = call
        step = width - 1 if width > 1 else call - (self.begun or call)
        known = log_probabilities(logits.float())
        new = 3 * torch.sin(200 * known / known.std(-1, keepdim=True))
        new[..., self.barred] = -1e4
        if step >= self.length:
            new[:] = -1e4
            new[..., self.end] = 0.0
        return new.softmax(-1) if self.probabilities else new.log_softmax(-1)


def kind_of_output(visit: Visit) -> tuple[int, bool]:
    """The output's columns, and whether they are probabilities."""
    with torch.no_grad():
        logits = visit.logits(*visit.sentences([(3, 3)]))
    return logits.size(-1), are_probabilities(logits)


def are_of(ids: Tensor, src: Ids | None) -> bool:
    """Whether these are rows of the source, whichever axis comes first."""
    if src is None or ids.dim() != 2:
        return False
    rows = set(map(tuple, src.tolist()))
    return any(rows.issuperset(map(tuple, x.tolist())) for x in (ids, ids.mT))


def tokens_before(ids: Tensor | None, shape: torch.Size) -> Tensor | None:
    """The token before each logits' place, if the ids fit; `shape` is without vocab."""
    if ids is None or not ids.dim():
        return None
    if ids.shape == shape:
        return ids
    if ids.numel() == shape.numel():
        return (ids.mT if ids.shape[::-1] == shape else ids).reshape(shape)
    if ids.dim() == 2 and len(ids) == shape[0]:
        length = shape[1] if len(shape) > 1 else 1
        if length <= ids.size(1) and len(ids) * length == shape.numel():
            return ids[:, ids.size(1) - length :].reshape(shape)
    return None
