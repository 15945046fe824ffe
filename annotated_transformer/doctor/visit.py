"""A visit: the patient, ids to try it on, and what is kept for the pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from annotated_transformer.doctor.patient import Ids, Patient
from annotated_transformer.doctor.trace import Trace


@dataclass
class Visit:
    """One examination of one patient; random ids come from its own generator."""

    patient: Patient
    generator: torch.Generator = field(
        default_factory=lambda: torch.Generator().manual_seed(0)
    )
    pictures: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    proven: dict[str, str] = field(default_factory=dict)  # causes, with their words

    @property
    def module(self) -> nn.Module | None:
        """What holds the weights, if the patient has said so or is a module itself."""
        if self.patient.module is not None:
            return self.patient.module
        return self.patient.model if isinstance(self.patient.model, nn.Module) else None

    @property
    def device(self) -> torch.device:
        """Where the patient's weights are."""
        parameters = iter(self.module.parameters() if self.module is not None else ())
        first = next(parameters, None)
        return first.device if first is not None else torch.device("cpu")

    @property
    def specials(self) -> set[int]:
        """Ids that are no words."""
        p = self.patient
        return {i for i in (p.pad, p.bos, p.eos, p.unk) if i is not None}

    def words(self, rows: int, length: int, *, source: bool = False) -> Ids:
        """Random ordinary tokens, (rows, length); within a row all differ, if they can.

        `source` takes them from the source's vocabulary, if it is another one.
        """
        size = self.patient.vocab_size
        if source:
            size = self.patient.src_vocab_size or size
        ordinary = torch.tensor([i for i in range(size) if i not in self.specials])
        picks = [
            torch.randperm(len(ordinary), generator=self.generator)[:length]
            if length <= len(ordinary)
            else torch.randint(len(ordinary), (length,), generator=self.generator)
            for _ in range(rows)
        ]
        return ordinary[torch.stack(picks)].to(self.device)

    def other_source(self, src: Ids) -> Ids:
        """The same sources, (rows, length), but the first says other words."""
        other = src.clone()
        other[0, :-1] = self.words(1, src.size(1) - 1, source=True)[0]
        return other

    def sentences(self, lengths: Sequence[tuple[int, int]]) -> tuple[Ids, ...]:
        """A batch (src, tgt) of random sentences of so many words, or (ids,).

        Each tgt row is start token, words, end token, and padding if the patient pads;
        src rows are words, end token, padding.
        """
        p = self.patient
        fill = p.eos if p.pad is None else p.pad
        src = torch.full((len(lengths), max(s for s, _ in lengths) + 1), fill)
        tgt = torch.full((len(lengths), max(t for _, t in lengths) + 2), fill)
        for row, (n_src, n_tgt) in enumerate(lengths):
            src[row, :n_src] = self.words(1, n_src, source=True)[0].cpu()
            src[row, n_src] = p.eos
            tgt[row, 0], tgt[row, n_tgt + 1] = p.bos, p.eos
            tgt[row, 1 : n_tgt + 1] = self.words(1, n_tgt)[0].cpu()
        pair = src.to(self.device), tgt.to(self.device)
        return pair[1:] if p.decoder_only else pair

    def logits(self, *ids: Ids) -> Tensor:
        """The patient's logits (batch, tgt, vocab), in float32, in its present mode."""
        return self.output(*ids).detach()

    def output(self, *ids: Ids) -> Tensor:
        """The same with their gradient, which also avoids fast paths of inference."""
        with torch.enable_grad():
            return self.patient(*ids).float()

    @cached_property
    def examples(self) -> tuple[Ids, ...]:
        """What most examinations are done on: three sentences, (src, tgt_in) or (ids,).

        The first is whole, the others are padded; no two axes are equally long.
        """
        *src, tgt = self.sentences([(10, 7), (6, 4), (8, 5)])
        return *src, tgt[:, :-1]

    def named(self, ids: tuple[Ids, ...]) -> dict[str, Ids]:
        """Ids by their side: "src" and "tgt"."""
        return dict(zip(("src", "tgt")[-len(ids) :], ids, strict=True))

    def real(self, ids: Ids) -> Tensor:
        """Which positions are no padding, (batch, length)."""
        pad = self.patient.pad
        return torch.ones_like(ids, dtype=torch.bool) if pad is None else ids != pad

    @cached_property
    def trace(self) -> Trace | None:
        """What a forward pass on the examples does; None if it cannot be followed."""
        return self.followed(self.examples)

    @cached_property
    def whole(self) -> Trace | None:
        """The same with the first sentence alone, which has no padding."""
        return self.followed(tuple(ids[:1] for ids in self.examples))

    @cached_property
    def padded(self) -> Trace | None:
        """The same with the second sentence alone, which is padded."""
        return self.followed(tuple(ids[1:2] for ids in self.examples))

    def followed(self, ids: tuple[Ids, ...]) -> Trace | None:
        """The trace of a forward pass, or None."""
        try:
            return Trace(self.logits, **self.named(ids))
        except Exception as error:  # a model that no dispatch mode can follow
            self.facts["not_traced"] = f"{type(error).__name__}: {error}"
            return None
