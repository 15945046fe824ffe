"""Settings: a model's sizes (Table 3), how to train it (§5), and how to decode."""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from annotated_transformer.attention import head_size
from annotated_transformer.errors import InputError
from annotated_transformer.schedule import cosine, inverse_square_root
from annotated_transformer.settings import (
    Count,
    Layers,
    Positive,
    Seed,
    Share,
    Weight,
    Width,
    checked,
)


@checked
class TransformerConfig:
    """The sizes that define a Transformer; the defaults are the base model of Table 3.

    `tgt_vocab_size=None` means one vocabulary for both languages, and so one matrix for
    the two embeddings and the output (§3.4). `d_k` and `d_v`, the widths of one head,
    default to `d_model / n_heads`.

    Raises InputError for sizes that do not make a valid model.
    """

    vocab_size: Width = 37_000
    tgt_vocab_size: Width | None = None
    d_model: Width = 512
    d_ff: Width = 2_048
    n_heads: Width = 8
    n_layers: Layers = 6
    d_k: Width | None = None
    d_v: Width | None = None
    dropout: Share = 0.1
    attention_dropout: Share = 0.0
    activation: Literal["relu", "gelu", "silu", "leaky_relu", "tanh"] = "relu"
    norm: Literal["post", "pre"] = "post"
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    max_length: Width = 1_024

    def __post_init__(self) -> None:
        if None in (self.d_k, self.d_v):
            head_size(self.d_model, self.n_heads)
        if self.d_model % 2 and self.positions == "sinusoidal":
            raise InputError(
                f"d_model ({self.d_model}) must be even: sines and cosines pair up"
            )

    @property
    def key_size(self) -> int:
        """d_k: the width of one head's queries and keys (§3.2.2)."""
        return self.d_k or head_size(self.d_model, self.n_heads)

    @property
    def value_size(self) -> int:
        """d_v: the width of one head's values (§3.2.2)."""
        return self.d_v or head_size(self.d_model, self.n_heads)


BASE = TransformerConfig()
BIG = replace(BASE, d_model=1_024, d_ff=4_096, n_heads=16, dropout=0.3)
# Departs from §3.1: pre-norm, which needs no long warmup at this size.
SMALL = TransformerConfig(
    vocab_size=4_000,
    d_model=192,
    d_ff=768,
    n_heads=6,
    n_layers=3,
    norm="pre",
    dropout=0.2,
)
TINY = TransformerConfig(
    vocab_size=1_000,
    d_model=128,
    d_ff=512,
    n_heads=4,
    n_layers=2,
    norm="pre",
    dropout=0.1,
)

# Table 3's rows: their sizes, and the printed parameter count in millions. (A) varies
# heads, (B) d_k, (C) size, (D) dropout, (E) positions; rows A, D and E print no count,
# which means the same as base: 65.
TABLE_3: dict[str, tuple[TransformerConfig, int]] = {
    "base": (BASE, 65),
    "A h=1": (replace(BASE, n_heads=1), 65),
    "A h=4": (replace(BASE, n_heads=4), 65),
    "A h=16": (replace(BASE, n_heads=16), 65),
    "A h=32": (replace(BASE, n_heads=32), 65),
    "B d_k=16": (replace(BASE, d_k=16), 58),
    "B d_k=32": (replace(BASE, d_k=32), 60),
    "C N=2": (replace(BASE, n_layers=2), 36),
    "C N=4": (replace(BASE, n_layers=4), 50),
    "C N=8": (replace(BASE, n_layers=8), 80),
    "C d_model=256": (replace(BASE, d_model=256, d_k=32, d_v=32), 28),
    "C d_model=1024": (replace(BASE, d_model=1_024, d_k=128, d_v=128), 168),
    "C d_ff=1024": (replace(BASE, d_ff=1_024), 53),
    "C d_ff=4096": (replace(BASE, d_ff=4_096), 90),
    "D P=0.0": (replace(BASE, dropout=0.0), 65),
    "D P=0.2": (replace(BASE, dropout=0.2), 65),
    "E learned": (replace(BASE, positions="learned"), 65),
    "big": (BIG, 213),
}


@checked
class TrainingConfig:
    """How to train (§5): a step is one update, from a batch that all processes split.

    `learning_rate=None` means the schedule of Eq. 3 (§5.3); a number is the peak of a
    cosine over all steps. `accumulate` cuts a batch into that many pieces, run one
    after another, for the same update in less memory. `consistency` weighs what two
    passes with different dropout say differently; 0 makes one pass. `risk` weighs the
    BLEU of the model's own samples (minimum-risk training). `patience` stops after that
    many validations without a better score; None never stops early.
    """

    steps: Count = 100_000
    batch_tokens: Count = 25_000
    accumulate: Count = 1
    learning_rate: Positive | None = None
    warmup: Count = 4_000
    smoothing: Share = 0.1
    consistency: Weight = 0.0
    risk: Weight = 0.0
    clip: Positive | None = None
    validate_every: Count = 1_000
    patience: Count | None = None
    keep: Count = 5
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.consistency and self.risk:
            raise InputError(
                "consistency and risk are two objectives: train with one, then "
                "--start-from its result with the other"
            )

    def rate(self, step: int, d_model: int) -> float:
        """The learning rate at a step, counted from 1 (§5.3)."""
        if self.learning_rate is None:
            return inverse_square_root(step, d_model=d_model, warmup=self.warmup)
        return cosine(
            step, peak=self.learning_rate, warmup=self.warmup, total=self.steps
        )


@checked
class SearchConfig:
    """How to choose a translation: by beam search (§6.1), or by drawing tokens."""

    beam_size: Annotated[int, Field(ge=1, le=256)] = 4
    alpha: Annotated[float, Field(ge=0, le=10)] = 0.6
    temperature: Annotated[float, Field(ge=1e-6, le=100)] = 1.0
    top_k: Count | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Seed = 0
