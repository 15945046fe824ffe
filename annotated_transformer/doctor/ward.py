"""Six sick translators by number, and a healthy one, for a reader to examine.

Chapter 18 admits them. What ails each stands in this file: read it after your
diagnosis, not before.
"""

import difflib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from annotated_transformer.config import TransformerConfig
from annotated_transformer.doctor.causes import CAUSES
from annotated_transformer.doctor.patient import Batches, Ids, Patient
from annotated_transformer.errors import InputError
from annotated_transformer.layers import Embeddings
from annotated_transformer.masks import causal_mask, padding_mask
from annotated_transformer.special import BOS, EOS, PAD, UNK
from annotated_transformer.transformer import Transformer

CONFIG = TransformerConfig(
    vocab_size=60,
    d_model=64,
    d_ff=128,
    n_heads=4,
    n_layers=1,
    norm="pre",
    dropout=0.1,
)
RATE = 5e-3
LONGER = 4  # an output may have so many tokens more than its source


class Bed(Transformer):
    """A model with its training and its decoding, in parts that may each be wrong."""

    first, cause, look = BOS, "", ""

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        self.optimizer = torch.optim.Adam(
            self.parameters(), RATE, betas=(0.9, 0.98), eps=1e-9
        )

    def source_mask(self, src: Ids) -> Tensor | None:
        """Which source positions may be looked at."""
        return padding_mask(src)

    def target_mask(self, length: int) -> Tensor | None:
        """Which target positions may be looked at."""
        return causal_mask(length)

    def encode(self, src: Ids) -> Tensor:
        """What the decoder gets of the source, (batch, src, d_model)."""
        x = self.embed(self.src_embeddings, src)
        memory: Tensor = self.encoder(x, self.source_mask(src))
        return memory

    def forward(self, src: Ids, tgt: Ids) -> Tensor:
        """A score for each next token, (batch, tgt, vocab)."""
        masks = self.source_mask(src), self.target_mask(tgt.size(1))
        x = self.embed(self.tgt_embeddings, tgt)
        return self.logits(self.decoder(x, self.encode(src), *masks))

    def targets(self, tgt: Ids) -> tuple[Ids, Ids]:
        """What the decoder reads, and what it must write."""
        return tgt[:, :-1], tgt[:, 1:]

    def loss(self, logits: Tensor, labels: Ids) -> Tensor:
        """The summed loss of all real labels, in nats."""
        return F.cross_entropy(logits.mT, labels, ignore_index=PAD, reduction="sum")

    def train_step(self, batches: Batches) -> float:
        """One update from the pieces of a batch; its loss in nats per label."""
        self.train()
        self.optimizer.zero_grad()
        pieces = [(src, *self.targets(tgt)) for src, tgt in batches]
        n_labels = sum(int((labels != PAD).sum()) for _, _, labels in pieces)
        total = 0.0
        for src, tgt_in, labels in pieces:
            loss = self.loss(self(src, tgt_in), labels) / n_labels
            loss.backward()
            total += loss.item()
        self.optimizer.step()
        return total

    @torch.no_grad()
    def greedy(self, src: Ids) -> list[list[int]]:
        """The likeliest token after token, until each row has its end token."""
        self.eval()
        ids = torch.full((len(src), 1), self.first)
        for _ in range(src.size(1) + LONGER):
            ids = torch.cat([ids, self(src, ids)[:, -1:].argmax(-1)], 1)
        rows = [row[1:] for row in ids.tolist()]
        return [row[: row.index(EOS)] if EOS in row else row for row in rows]

    def patient(self) -> Patient:
        """All of it, as the doctor takes it."""
        sizes = self.config.tgt_vocab_size, self.config.vocab_size
        return Patient(
            model=self,
            module=self,
            vocab_size=sizes[0] or sizes[1],
            src_vocab_size=sizes[1],
            unk=UNK,
            train_step=self.train_step,
            optimizer=self.optimizer,
            greedy=self.greedy,
        )


class Bed1(Bed):
    """The same sentence for every source."""

    cause = "memory_ignored"
    look = "give two sources the same target: by how much do the logits differ?"

    def encode(self, src: Ids) -> Tensor:
        """What the decoder gets of the source, (batch, src, d_model)."""
        return torch.zeros_like(super().encode(src))


class Bed2(Bed):
    """The right words in a wrong order."""

    cause = "positions_missing"
    look = "turn a source around, keep the target: do the logits change?"

    def embed(self, embeddings: Embeddings, ids: Ids, start: int = 0) -> Tensor:
        """The same, in this patient's way."""
        return self.dropout(embeddings(ids))  # type: ignore[no-any-return]


class Bed3(Bed):
    """A loss of nearly nothing, and useless outputs."""

    cause = "causal_mask_missing"
    look = "change the last target word: which positions' logits change?"

    def target_mask(self, length: int) -> Tensor | None:
        """Which target positions may be looked at."""
        return None


class Bed4(Bed):
    """A translation that depends on its neighbors in the batch."""

    cause = "padding_mask_missing"
    look = "add padding to a source: do the logits change?"

    def source_mask(self, src: Ids) -> Tensor | None:
        """Which source positions may be looked at."""
        return None


class Bed5(Bed):
    """A loss that stalls high."""

    cause = "softmax_twice"
    look = "give the loss logits of your own, sure of the right word: what does it say?"

    def loss(self, logits: Tensor, labels: Ids) -> Tensor:
        """The summed loss of all real labels, in nats."""
        return super().loss(logits.softmax(-1), labels)


class Bed6(Bed):
    """Decoding that begins where training never did."""

    cause, first = "start_token", EOS
    look = "print the first token that the decoder reads, in training and in decoding."


class Bed7(Bed):
    """Decoding that does not stop: the chapter's example."""

    cause = "end_token_untrained"
    look = "count the end tokens among the labels."

    def targets(self, tgt: Ids) -> tuple[Ids, Ids]:
        """What the decoder reads, and what it must write."""
        reads, writes = super().targets(tgt)
        return reads, writes.masked_fill(writes == EOS, PAD)


BEDS: Sequence[type[Bed]] = (Bed, Bed1, Bed2, Bed3, Bed4, Bed5, Bed6, Bed7)


def patient(
    number: int, config: TransformerConfig = CONFIG, *, seed: int = 0
) -> Patient:
    """A patient with fresh weights, who learns by `train_step`, writes by `greedy`.

    0 is healthy, 1 to 6 are the reader's, 7 is the chapter's example. Raises
    InputError for another number.
    """
    if number not in range(len(BEDS)):
        raise InputError(f"there is no patient {number}: take 0 to {len(BEDS) - 1}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BEDS[number](config).patient()


def diagnose(number: object, cause: object) -> str:
    """Whether this cause is what ails a patient; if not, what to measure.

    Never says what it is. `cause` is a name of the doctor's `CAUSES`.
    """
    if not isinstance(number, int):
        kind = type(number).__name__
        raise InputError(f"a patient has a number, 1 to {len(BEDS) - 1}, not a {kind}")
    if number not in range(1, len(BEDS)):
        raise InputError(f"patient {number} is not sick: take 1 to {len(BEDS) - 1}")
    bed = BEDS[number]
    if cause is None:
        return "not done yet"
    if not isinstance(cause, str):
        return f"a cause is a name in quotation marks, not a {type(cause).__name__}"
    if cause == bed.cause:
        return "right"
    if cause not in CAUSES:
        close = difflib.get_close_matches(cause, CAUSES, n=1)
        meant = f": did you mean {close[0]}?" if close else ""
        return f"no cause is called {cause}{meant}"
    return f"no. To tell causes apart, {bed.look}"
