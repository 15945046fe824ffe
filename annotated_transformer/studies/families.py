"""Two families on captions: a language model, and a reader that is trained twice.

The English of the built-in grammar. The decoder-only model is judged by perplexity on
held-out captions. The encoder-only model must name who acts: a person, a pet or a farm
animal; it begins with random weights, or with weights that learned to fill in masked
words, and sees few labels.
"""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from annotated_transformer.config import TransformerConfig
from annotated_transformer.families import Classifier, DecoderOnly, EncoderOnly
from annotated_transformer.grammar import Pair, Phrase, Sampler, Verb
from annotated_transformer.schedule import cosine
from annotated_transformer.special import BOS, EOS, PAD, SPECIALS, UNK
from annotated_transformer.studies import Measures, Settings, Study, rounded
from annotated_transformer.training import adam, set_rate

MASK = len(SPECIALS)  # one more special token, for words to fill in
ACTORS = ("person", "pet", "farm")  # the labels: kinds of nouns in the grammar
TRAIN, HELD_OUT = 8_000, 1_000

Ids = Int[Tensor, "sentence length"]
Labels = Int[Tensor, " sentence"]


class Namer(Sampler):
    """Draws sentences of the grammar, and notes who acts in the main clause."""

    actor = ""

    def clause(self, pattern: str, verb: Verb, subject: Phrase) -> dict[str, Pair]:
        """The main clause is the first that a sentence makes."""
        self.actor = self.actor or subject.noun.kind
        return super().clause(pattern, verb, subject)

    def sentence(self) -> Pair | None:
        """Draw a sentence, as the grammar does."""
        self.actor = ""
        return super().sentence()


class Captions(NamedTuple):
    """English captions as ids, and who acts in each; the last thousand are held out."""

    words: list[str]
    ids: Ids  # the start token, the words, the end token, padding
    labels: Labels

    def text(self, ids: Sequence[int]) -> str:
        """The words of a row, without padding, start and end."""
        return " ".join(self.words[i] for i in ids if i not in (PAD, BOS, EOS))

    def encode(self, text: str) -> list[int]:
        """The ids of a text; words that no training caption has become UNK."""
        known = {word: i for i, word in enumerate(self.words)}
        return [BOS, *(known.get(word, UNK) for word in split(text)), EOS]


def split(text: str) -> list[str]:
    """Small letters, and the comma as a word."""
    return text.lower().rstrip(".").replace(",", " ,").split()


@cache
def captions(seed: int = 0) -> Captions:
    """Captions that all differ, in words of the training part."""
    namer, found = Namer(seed), dict[str, int]()
    while len(found) < TRAIN + HELD_OUT:
        pair = namer.sentence()
        if pair is not None:
            found.setdefault(pair[1], ACTORS.index(namer.actor))
    texts = [split(text) for text in found]
    seen = sorted({word for text in texts[:TRAIN] for word in text})
    data = Captions([*SPECIALS, "<mask>", *seen], *[torch.empty(0)] * 2)
    rows = [torch.tensor(data.encode(text)) for text in found]
    padded = pad_sequence(rows, batch_first=True, padding_value=PAD)
    return Captions(data.words, padded, torch.tensor(list(found.values())))


def config(vocab_size: int) -> TransformerConfig:
    """One small model for all families."""
    return TransformerConfig(
        vocab_size=vocab_size,
        d_model=64,
        d_ff=128,
        n_heads=4,
        n_layers=2,
        norm="pre",
        dropout=0.1,
        max_length=64,
    )


def shorter(ids: Ids) -> Ids:
    """Without the columns that are padding in all rows."""
    return ids[:, : int((ids != PAD).sum(1).max())]


def hide(
    ids: Ids, vocab_size: int, g: torch.Generator, *, rate: float = 0.15
) -> tuple[Ids, Ids]:
    """BERT's inputs and labels: words to guess, and PAD where nothing is asked.

    Of the chosen words, 80 % become MASK, 10 % another word, and 10 % stay (Devlin et
    al. 2018).
    """
    word = ids > MASK
    chosen = word & (torch.rand(ids.shape, generator=g) < rate)
    how = torch.rand(ids.shape, generator=g)
    other = torch.randint(MASK + 1, vocab_size, ids.shape, generator=g)
    inputs = torch.where(chosen & (how < 0.8), MASK, ids)
    inputs = torch.where(chosen & (how >= 0.9), other, inputs)
    return inputs, ids.masked_fill(~chosen, PAD)


def language_loss(model: DecoderOnly, ids: Ids) -> Tensor:
    """Nats for each next token: the model reads all but the last, and guesses on."""
    logits = model(ids[:, :-1])
    return F.cross_entropy(logits.mT, ids[:, 1:], ignore_index=PAD)


def masked_loss(model: EncoderOnly, ids: Ids, g: torch.Generator) -> Tensor:
    """Nats for each hidden word, guessed from both sides."""
    inputs, labels = hide(ids, model.config.vocab_size, g)
    return F.cross_entropy(model(inputs).mT, labels, ignore_index=PAD)


def train(
    model: nn.Module,
    loss_of: Callable[[Tensor], Tensor],
    rows: int,
    *,
    steps: int,
    rate: float,
    seed: int,
    size: int = 32,
) -> list[float]:
    """Chapter 09's loop; `loss_of` takes the row numbers of a batch, drawn by the seed.

    Returns the loss of each step. The model ends in `eval()`.
    """
    optimizer, losses = adam(model), []
    g, warmup = torch.Generator().manual_seed(seed), max(2, steps // 10)
    model.train()
    for step in range(1, steps + 1):
        set_rate(optimizer, cosine(step, peak=rate, warmup=warmup, total=steps))
        loss = loss_of(torch.randint(rows, (size,), generator=g))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


def language_model(seed: int, steps: int = 1_000) -> tuple[DecoderOnly, list[float]]:
    """A decoder-only model of the captions, and its losses."""
    data = captions()
    torch.manual_seed(seed)  # the first weights, and dropout
    model = DecoderOnly(config(len(data.words)))

    def loss_of(rows: Tensor) -> Tensor:
        return language_loss(model, shorter(data.ids[rows]))

    return model, train(model, loss_of, TRAIN, steps=steps, rate=5e-3, seed=seed)


def pretrained(seed: int, steps: int = 2_000) -> tuple[EncoderOnly, list[float]]:
    """An encoder-only model that has learned to fill in masked words, no labels."""
    data, g = captions(), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = EncoderOnly(config(len(data.words)))

    def loss_of(rows: Tensor) -> Tensor:
        return masked_loss(model, shorter(data.ids[rows]), g)

    return model, train(model, loss_of, TRAIN, steps=steps, rate=3e-3, seed=seed)


def fine_tuned(
    reader: EncoderOnly, labels: int, seed: int, *, steps: int = 150, rate: float = 2e-3
) -> Classifier:
    """A classifier from a copy of a reader: all its weights learn from few labels.

    The seed chooses the labels, and their order.
    """
    data, g = captions(), torch.Generator().manual_seed(10_000 + seed)
    torch.manual_seed(seed)
    model = Classifier(deepcopy(reader), len(ACTORS))
    known = torch.randperm(TRAIN, generator=g)[:labels]

    def loss_of(rows: Tensor) -> Tensor:
        chosen = known[rows]
        return F.cross_entropy(model(shorter(data.ids[chosen])), data.labels[chosen])

    train(model, loss_of, labels, steps=steps, rate=rate, seed=seed)
    return model


@torch.inference_mode()
def confusion(
    model: Classifier, rows: slice = slice(TRAIN, None)
) -> Int[Tensor, "label found"]:
    """How many captions of each label get which one; by default, the held-out ones."""
    data, n = captions(), len(ACTORS)
    found = model(shorter(data.ids[rows])).argmax(-1)
    return (data.labels[rows] * n + found).bincount(minlength=n * n).view(n, n)


def accuracy(table: Int[Tensor, "label found"]) -> float:
    """The fraction that gets its own label."""
    return (table.trace() / table.sum()).item()


def f1(table: Int[Tensor, "label found"]) -> Float[Tensor, " label"]:
    """Of each label: 2 hits / (captions that have it + captions that get it)."""
    return 2 * table.diagonal() / (table.sum(0) + table.sum(1))


@torch.inference_mode()
def perplexity(model: DecoderOnly) -> float:
    """exp of the mean loss in nats of each held-out token, the end token too."""
    return math.exp(language_loss(model, shorter(captions().ids[TRAIN:])).item())


LABELS = (30, 100, 300, 1_000)  # how many the fine-tuning sees
STARTS = ("language model", "random", "masked", "random, longer", "masked, longer")
STEPS, LONGER = 150, 600  # of fine-tuning
FINE_SEEDS = range(3)  # of each start: which labels, in which order


def measure(run: Settings) -> Measures:
    """One language model; or one start, fine-tuned on few labels and on more."""
    if run["start"] == "language model":
        model, losses = language_model(run["seed"])
        means = torch.tensor(losses).view(len(losses) // 50, 50).mean(1)
        return {"perplexity": perplexity(model), "losses": rounded(means)}
    start, _, longer = run["start"].partition(", ")
    reader, losses = pretrained(run["seed"], 2_000 if start == "masked" else 0)
    steps = LONGER if longer else STEPS
    # (number of labels, fine-tuning seed, label, found)
    tables = torch.stack([
        torch.stack(
            [confusion(fine_tuned(reader, n, s, steps=steps)) for s in FINE_SEEDS]
        )
        for n in LABELS
    ])  # fmt: skip
    flat = tables.flatten(0, 1)
    shape = len(LABELS), len(FINE_SEEDS)
    return {
        "losses": rounded(torch.tensor(losses).view(len(losses) // 50, 50).mean(1)),
        "accuracy": rounded(torch.tensor([accuracy(t) for t in flat]).view(shape)),
        "f1": rounded(torch.stack([f1(t).mean() for t in flat]).view(shape)),
        "tables": tables.tolist(),
    }


STUDY = Study(
    about=(
        "English captions of the grammar: perplexity of a language model; who acts, by "
        "a reader with few labels that began at random or with masked words"
    ),
    runs=[{"start": start, "seed": seed} for start in STARTS for seed in range(3)],
    measure=measure,
)
