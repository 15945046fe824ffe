"""Settings: a model's sizes (Table 3), and how to train it (§5)."""

from dataclasses import dataclass, replace

from annotated_transformer.attention import head_size
from annotated_transformer.errors import InputError
from annotated_transformer.schedule import cosine, inverse_square_root


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The sizes that define a Transformer; the defaults are the base model of Table 3.

    `tgt_vocab_size=None` means one vocabulary for both languages, and so one matrix for
    the two embeddings and the output (§3.4). `d_k` and `d_v`, the widths of one head,
    default to `d_model / n_heads`.

    Raises InputError for sizes that do not make a valid model.
    """

    vocab_size: int = 37_000
    tgt_vocab_size: int | None = None
    d_model: int = 512
    d_ff: int = 2_048
    n_heads: int = 8
    n_layers: int = 6
    d_k: int | None = None
    d_v: int | None = None
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation: str = "relu"
    norm: str = "post"
    positions: str = "sinusoidal"
    max_length: int = 1_024

    def __post_init__(self) -> None:
        sizes = ["vocab_size", "d_model", "d_ff", "n_heads", "n_layers", "max_length"]
        optional = ["tgt_vocab_size", "d_k", "d_v"]
        for name in sizes + [n for n in optional if getattr(self, n) is not None]:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(
                    f"{name} must be a whole number above 0, not {value!r}"
                )
        if None in (self.d_k, self.d_v):
            head_size(self.d_model, self.n_heads)
        if self.d_model % 2 and self.positions == "sinusoidal":
            raise InputError(
                f"d_model ({self.d_model}) must be even: sines and cosines pair up"
            )
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                known = ", ".join(choices)
                raise InputError(f"{name} must be one of {known}, not {value!r}")

    @property
    def key_size(self) -> int:
        """d_k: the width of one head's queries and keys (§3.2.2)."""
        return self.d_k or head_size(self.d_model, self.n_heads)

    @property
    def value_size(self) -> int:
        """d_v: the width of one head's values (§3.2.2)."""
        return self.d_v or head_size(self.d_model, self.n_heads)


CHOICES = {
    "activation": ("relu", "gelu", "silu", "leaky_relu", "tanh"),
    "norm": ("post", "pre"),
    "positions": ("sinusoidal", "learned"),
}

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


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train (§5): a step is one update, from a batch that all processes split.

    `learning_rate=None` means the schedule of Eq. 3 (§5.3); a number is the peak of a
    cosine over all steps. `accumulate` cuts a batch into that many pieces, run one
    after another, for the same update in less memory. `patience` stops after that many
    validations without a better score; None never stops early.
    """

    steps: int = 100_000
    batch_tokens: int = 25_000
    accumulate: int = 1
    learning_rate: float | None = None
    warmup: int = 4_000
    smoothing: float = 0.1
    clip: float | None = None
    validate_every: int = 1_000
    patience: int | None = None
    keep: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        counts = "steps batch_tokens accumulate warmup validate_every keep"
        for name in counts.split():
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if not 0 <= self.smoothing < 1:
            raise InputError(f"smoothing must be in [0, 1), not {self.smoothing}")

    def rate(self, step: int, d_model: int) -> float:
        """The learning rate at a step, counted from 1 (§5.3)."""
        if self.learning_rate is None:
            return inverse_square_root(step, d_model=d_model, warmup=self.warmup)
        return cosine(
            step, peak=self.learning_rate, warmup=self.warmup, total=self.steps
        )
