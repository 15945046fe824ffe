"""What is examined: a model, and whatever of its training and decoding is given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from annotated_transformer.errors import InputError

Ids = Tensor  # int64, (batch, length)
Batches = list[tuple[Ids, ...]]  # micro-batches of (src, tgt), or of (ids,)


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Decoding with a cache, in the reader's own code.

    `start(src)` gives a state; `step(ids, state)` takes one token per row, (rows,), the
    start token first, and gives the next token's logits, (rows, vocab), and a state;
    `reorder(state, rows)` goes on with these rows in this order, as beam search does.
    """

    start: Callable[[Ids], Any]
    step: Callable[[Tensor, Any], tuple[Tensor, Any]]
    reorder: Callable[[Any, Tensor], Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Patient:
    """A Transformer, and the parts of its training and decoding that are given.

    `model` maps (src, tgt_in) to logits (batch, tgt, vocab); with `decoder_only`, it
    maps ids to logits. All ids are int64, (batch, length). `module` holds the weights,
    if `model` is a function. `pad` is None where nothing is padded.

    `train_step(batches)` makes one update from micro-batches (src, tgt), whose rows of
    tgt are start token, words, end token, padding; it calls the model itself.
    `loss(logits, labels)` is a number, `schedule(step)` Adam's learning rate at a step
    counted from 1. `greedy(src)` and `beam(src, beam_size)` give
    a row of ids for each source. `causal_mask(length)` and `padding_mask(ids)` are the
    reader's own. `batch` is one (src, tgt) of the reader's own training
    data. `tokenizer` has `encode(text)` and `decode(ids)`; `texts` are lines for it.
    """

    model: Callable[..., Any]
    vocab_size: int
    src_vocab_size: int | None = None
    module: nn.Module | None = None
    decoder_only: bool = False
    trained: bool = False
    pad: int | None = 0
    bos: int = 1
    eos: int = 2
    unk: int | None = None
    batch: tuple[Ids, ...] | None = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    train_step: Callable[[Batches], Any] | None = None
    optimizer: torch.optim.Optimizer | None = None
    schedule: Callable[[int], float] | None = None
    greedy: Callable[[Ids], Any] | None = None
    beam: Callable[[Ids, int], Any] | None = None
    cache: Cache | None = None
    causal_mask: Callable[[int], Tensor] | None = None
    padding_mask: Callable[[Ids], Tensor] | None = None
    tokenizer: Any = None
    texts: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not callable(self.model):
            raise InputError(
                f"the model is a {type(self.model).__name__}: give a module or a "
                "function that maps (src, tgt_in) to logits"
            )
        if self.vocab_size < 8:
            raise InputError(
                f"vocab_size ({self.vocab_size}) must be at least 8: three special "
                "tokens and some words"
            )

    def __call__(self, *ids: Ids) -> Tensor:
        """Logits (batch, tgt, vocab), whatever the framework wraps them in."""
        return logits_of(self.model(*ids))


def logits_of(output: Any) -> Tensor:
    """The logits in what a model returned: alone, first of several, or by name."""
    if isinstance(output, dict) and "logits" in output:
        output = output["logits"]
    output = getattr(output, "logits", output)
    if isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor) or output.dim() != 3:
        shape = tuple(output.shape) if isinstance(output, Tensor) else ""
        raise InputError(
            f"the model returned a {type(output).__name__} {shape}: the doctor needs "
            "logits (batch, tgt, vocab), as a tensor or under the name logits"
        )
    return output


def with_logits(output: Any, logits: Tensor) -> Any:
    """What a model returned, with other logits where `logits_of` finds them."""
    if isinstance(output, Tensor):
        return logits
    if hasattr(output, "_fields"):  # a named tuple
        name = "logits" if "logits" in output._fields else output._fields[0]
        return output._replace(**{name: logits})
    if isinstance(output, dict) and "logits" in output:
        output["logits"] = logits  # in place, for it may be of a class of its own
    elif hasattr(output, "logits"):
        output.logits = logits
    else:
        output = type(output)([logits, *output[1:]])
    return output


def are_probabilities(output: Tensor, *, atol: float = 1e-3) -> bool:
    """Whether all numbers are at least 0 and sum to 1 over the vocabulary."""
    sums = output.sum(-1)
    ones = torch.allclose(sums, torch.ones_like(sums), atol=atol)
    return ones and bool((output >= 0).all())


def as_logits(output: Tensor) -> Tensor:
    """Logits for what may be probabilities."""
    return output.clamp(min=1e-30).log() if are_probabilities(output) else output
