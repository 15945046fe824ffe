"""Short captions with blots, and models that read them (chapters 11 and 18)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from annotated_transformer.batches import Batch, collate
from annotated_transformer.config import TransformerConfig
from annotated_transformer.grammar import grammar_corpus
from annotated_transformer.lessons.claims import seeded
from annotated_transformer.objectives import Objective
from annotated_transformer.schedule import cosine
from annotated_transformer.special import EOS, PAD, SPECIALS, UNK
from annotated_transformer.training import adam, set_rate, train_step
from annotated_transformer.transformer import Transformer


class Captions(NamedTuple):
    """Short captions of the grammar, and their words in German and in English."""

    train: Batch
    held_out: Batch
    words: tuple[list[str], list[str]]

    @property
    def config(self) -> TransformerConfig:
        """A small model for these vocabularies."""
        sizes = {"d_model": 32, "d_ff": 64, "n_heads": 2, "n_layers": 1}
        vocab_size, tgt_vocab_size = map(len, self.words)
        return TransformerConfig(
            vocab_size=vocab_size,
            tgt_vocab_size=tgt_vocab_size,
            norm="pre",
            dropout=0.0,
            **sizes,  # type: ignore[arg-type]
        )

    def in_words(self, pairs: Batch) -> list[tuple[str, ...]]:
        """Each pair as text, without padding and without its start and end."""
        sides = zip(self.words, (pairs.src.tolist(), pairs.tgt.tolist()), strict=True)
        texts = (
            [" ".join(words[i] for i in ids if i > EOS) for ids in rows]
            for words, rows in sides
        )
        return list(zip(*texts, strict=True))


@cache
def captions(longest: int = 40) -> Captions:
    """All short captions among 20,000, a fifth of them held out; no two are alike.

    The words are those of the training sentences. A held-out sentence with another
    English word is left out: no model could say it. (Seed 1, since the settings of the
    chapter were chosen with seed 0.)
    """
    corpus = grammar_corpus(20_000, seed=1)["train"]
    train, held_out = (
        [[side.split() for side in p] for p in part if max(map(len, p)) <= longest]
        for part in (corpus[:16_000], corpus[16_000:])
    )
    words = tuple(
        [*SPECIALS, *sorted({word for pair in train for word in pair[side]})]
        for side in (0, 1)
    )
    ids = [{word: i for i, word in enumerate(some)} for some in words]

    def encoded(pairs: list[list[list[str]]]) -> Batch:
        rows = [
            [[*(ids[i].get(word, UNK) for word in pair[i]), EOS] for i in (0, 1)]
            for pair in pairs
        ]
        return collate([(src, tgt) for src, tgt in rows if UNK not in tgt])

    return Captions(encoded(train), encoded(held_out), words)  # type: ignore[arg-type]


def choose(pairs: Batch, rows: slice | Tensor) -> Batch:
    """Some of the pairs, still padded as before."""
    return Batch(pairs.src[rows], pairs.tgt[rows])


def blotted(pairs: Batch, generator: torch.Generator, share: float = 0.1) -> Batch:
    """The same pairs, a share of the German words made illegible: they become UNK."""
    hit = torch.rand(pairs.src.shape, generator=generator) < share
    return Batch(pairs.src.masked_fill(hit & (pairs.src > UNK), UNK), pairs.tgt)


class Reading(NamedTuple):
    """What a model says at each real label, when it reads the right words before it."""

    loss: Float[Tensor, " label"]  # plain, in nats
    hits: Bool[Tensor, " label"]  # is its first choice right?
    certainty: Float[Tensor, " label"]  # the probability of its first choice


@torch.no_grad()
def reading(model: Transformer, pairs: Batch) -> Reading:
    """Measure a model on these pairs, in `eval()`; padding takes no part."""
    model.eval()
    real = pairs.labels != PAD
    labels = pairs.labels[real] - 1
    log_q = model(pairs.src, pairs.tgt_in)[real][:, 1:].log_softmax(-1)
    highest, choice = log_q.max(-1)
    loss = -log_q.gather(-1, labels[:, None])[:, 0]
    return Reading(loss, choice == labels, highest.exp())


class Trained(NamedTuple):
    """A model's reading of the held-out captions, and its losses on the way there."""

    final: Reading
    losses: Float[Tensor, "look 2"]  # plain: some training sentences, held out


def train_on_captions(
    sentences: int,
    seed: int,
    *,
    steps: int,
    smoothing: float = 0.0,
    dropout: float = 0.0,
    make_objective: Callable[..., Objective] = Objective,
    looks: int = 1,
) -> Trained:
    """Train a small model on the first so many captions, 32 in each step.

    Blots fall anew at each step. The seed decides the first weights, which sentences
    are drawn, and the blots: runs that differ in smoothing alone share all of these.
    """
    data, draw = captions(), seeded(seed)
    train, held_out = (blotted(part, seeded(99)) for part in data[:2])
    known = choose(train, slice(min(sentences, 150)))
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for the weights and for dropout
        model = Transformer(replace(data.config, dropout=dropout))
        objective, optimizer = make_objective(model, smoothing), adam(model)
        for step in range(1, steps + 1):
            set_rate(optimizer, cosine(step, peak=0.01, warmup=25, total=steps))
            rows = torch.randint(sentences, (32,), generator=draw)
            batch = blotted(choose(data.train, rows), draw)
            model.train()  # `reading` leaves it in eval()
            train_step(objective, optimizer, [batch], n_tokens=batch.n_tokens)
            if step * looks % steps < looks:
                parts = known, held_out
                losses.append([reading(model, p).loss.mean() for p in parts])
        return Trained(reading(model, held_out), torch.tensor(losses))


def by_seed(runs: Sequence[Trained], what: str) -> Float[Tensor, " run"]:
    """The mean of a reading's `loss`, `hits` or `certainty`, a number for each run."""
    return torch.stack([getattr(run.final, what).float().mean() for run in runs])
