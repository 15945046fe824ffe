"""Size against data at fixed compute: small language models on the grammar's sentences.

A budget and a width decide how many tokens a run trains on, and it sees each once. The
operations are counted by formula, not by a clock.
"""

import random
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from annotated_transformer.config import TransformerConfig
from annotated_transformer.errors import InputError
from annotated_transformer.grammar import Sampler
from annotated_transformer.layers import Embeddings, SinusoidalPositions
from annotated_transformer.masks import causal_mask
from annotated_transformer.schedule import cosine
from annotated_transformer.studies import Measures, Settings, Study
from annotated_transformer.training import adam, set_rate
from annotated_transformer.transformer import (
    Encoder,
    EncoderLayer,
    final_norm,
    reset_parameters,
    sublayers,
)

LENGTH, WINDOWS = 32, 8  # a batch: windows of text, tokens in each
LAYERS = 2
PAIRS = 170_000  # of the grammar: more tokens than the longest run reads
HELD_OUT = 2_000  # windows that no run trains on
# Budgets, in operations, and the widths that share each of them.
SWEEP = {
    1e10: (6, 8, 12, 16, 24),
    3e10: (8, 12, 16, 24, 32),
    1e11: (12, 16, 24, 32, 48),
    3e11: (16, 24, 32, 48, 64),
}
LARGER = {1e12: (32, 48, 64, 96)}  # what the sweep must predict


class LanguageModel(nn.Module):
    """Guesses each next word: layers of self-attention that never look ahead.

    The output has a matrix of its own, so that all ways to count parameters differ.
    """

    def __init__(self, c: TransformerConfig):
        super().__init__()
        self.embeddings = Embeddings(c.vocab_size, c.d_model)
        self.positions = SinusoidalPositions(c.max_length, c.d_model)
        layers = [EncoderLayer(*sublayers(c, 1)) for _ in range(c.n_layers)]
        self.layers = Encoder(layers, final_norm(c))
        self.output = nn.Linear(c.d_model, c.vocab_size, bias=False)
        reset_parameters(self, c.d_model)
        nn.init.zeros_(self.output.weight)  # begins with a blind guess at any width

    def forward(
        self, ids: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length vocab"]:
        """Logits of the token after each token."""
        x = self.positions(self.embeddings(ids))
        return self.output(self.layers(x, causal_mask(ids.size(1), ids.device)))


def model_sizes(width: int, vocab_size: int) -> TransformerConfig:
    """A model of this width: two pre-norm layers, heads of about 8, no dropout."""
    return TransformerConfig(
        vocab_size=vocab_size,
        d_model=width,
        d_ff=4 * width,
        n_heads=max(1, width // 8),
        n_layers=LAYERS,
        dropout=0.0,
        norm="pre",
        max_length=LENGTH,
    )


def token_flops(c: TransformerConfig, length: int = LENGTH) -> int:
    """Operations of training on one token: 2 for a multiplication with its addition.

    The backward pass takes twice as many as the forward pass.
    """
    attention = 4 * c.d_model**2 + 2 * length * c.d_model  # projections, scores, mixing
    layer = attention + 2 * c.d_model * c.d_ff
    return 3 * 2 * (c.n_layers * layer + c.d_model * c.vocab_size)


def counts(c: TransformerConfig) -> dict[str, int]:
    """The number of parameters, counted in three ways."""
    with torch.device("meta"):  # shapes without memory
        model = LanguageModel(c)
    every = sum(p.numel() for p in model.parameters())
    table = model.embeddings.weight.numel()
    return {
        "all": every,
        "without_embeddings": every - table,
        "layers": every - table - model.output.weight.numel(),
    }


@cache
def text(pairs: int, seed: int = 0) -> tuple[list[str], Int[Tensor, "window token"]]:
    """The words, and windows of text: sentences of both languages in random order.

    A window has one token more than a model reads: the last is only a label.
    """
    sampler = Sampler(seed)
    sentences: list[str] = []
    while len(sentences) < 2 * pairs:
        if pair := sampler.sentence():
            sentences += [side.replace(",", " ,").rstrip(".") + " ." for side in pair]
    random.Random(seed).shuffle(sentences)
    stream = [word for sentence in sentences for word in sentence.split()]
    words = sorted(set(stream))
    index = {word: i for i, word in enumerate(words)}
    ids = torch.tensor([index[word] for word in stream])
    whole = len(ids) // (LENGTH + 1) * (LENGTH + 1)
    return words, ids[:whole].view(-1, LENGTH + 1)


def train(
    model: LanguageModel, windows: Int[Tensor, "window token"], *, rate: float
) -> list[float]:
    """One pass over the windows; the rate rises, then falls to 0 as a cosine."""
    optimizer, losses = adam(model), []
    batches = windows.split(WINDOWS)
    warmup = max(1, len(batches) // 10)
    for step, ids in enumerate(batches, 1):
        set_rate(optimizer, cosine(step, peak=rate, warmup=warmup, total=len(batches)))
        optimizer.zero_grad()
        loss = next_word_loss(model, ids)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def next_word_loss(
    model: LanguageModel, ids: Int[Tensor, "window token"]
) -> Float[Tensor, ""]:
    """Mean cross entropy of each next word, in nats."""
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def measure(run: Settings, pairs: int = PAIRS) -> Measures:
    """Train one model with its budget; the loss on text that it has not seen.

    Raises InputError if the budget would buy more text than there is.
    """
    words, windows = text(pairs)
    held_out, windows = windows[:HELD_OUT], windows[HELD_OUT:]
    c = model_sizes(run["width"], len(words))
    steps = round(run["budget"] / (token_flops(c) * LENGTH * WINDOWS))
    if steps * WINDOWS > len(windows):
        raise InputError(
            f"{run['budget']:.0e} operations at width {run['width']} need "
            f"{steps * WINDOWS} windows, and there are {len(windows)}"
        )
    torch.manual_seed(run["seed"])
    order = torch.randperm(len(windows))[: steps * WINDOWS]
    model = LanguageModel(c)
    train(model, windows[order], rate=0.5 / c.d_model)
    with torch.inference_mode():
        parts = [next_word_loss(model, ids).item() for ids in held_out.split(250)]
    tokens = steps * WINDOWS * LENGTH
    return {"loss": sum(parts) / len(parts), "tokens": tokens, **counts(c)}


def parabola(
    sizes: Float[Tensor, " width"], losses: Float[Tensor, "*draws width"]
) -> Float[Tensor, "*draws 3"]:
    """The parabola in log(size) nearest to the losses: factors of powers 0, 1 and 2."""
    columns = torch.stack([sizes.double().log() ** power for power in range(3)], -1)
    return losses.double() @ torch.linalg.pinv(columns).mT


def lowest(
    sizes: Float[Tensor, " width"], losses: Float[Tensor, "*draws width"]
) -> tuple[Float[Tensor, "*draws"], Float[Tensor, "*draws"]]:
    """The size at the bottom of the parabola through the losses, and the loss there."""
    constant, slope, bend = parabola(sizes, losses).unbind(-1)
    return (-slope / (2 * bend)).exp(), constant - slope**2 / (4 * bend)


def power(
    budgets: Float[Tensor, " budget"], optima: Float[Tensor, "*draws budget"]
) -> tuple[Float[Tensor, "*draws"], Float[Tensor, "*draws"]]:
    """The exponent of a power law through the optima, and the log of its factor."""
    x, y = budgets.double().log(), optima.double().log()
    centered = x - x.mean()
    exponent = (y * centered).sum(-1) / centered.square().sum()
    return exponent, y.mean(-1) - exponent * x.mean()


STUDY = Study(
    about="Language models of 7,000 to 320,000 parameters, two layers, at five fixed "
    "budgets, on sentences of the built-in grammar, each seen once: the loss held out",
    runs=[
        {"budget": budget, "width": width, "seed": seed}
        for budget, widths in (SWEEP | LARGER).items()
        for width in widths
        for seed in range(3)
    ],
    measure=measure,
)
