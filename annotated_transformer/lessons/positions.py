"""Rotations behind the sinusoids, and a model that needs positions (chapter 06)."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from annotated_transformer.attention import MultiHeadAttention
from annotated_transformer.layers import Embeddings, FeedForward, PreNorm, Vectors
from annotated_transformer.lessons.claims import seeded
from annotated_transformer.transformer import EncoderLayer


def frequencies(d_model: int) -> Float[Tensor, " pair"]:
    """The angle by which each pair of columns turns from position to position."""
    return 10_000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)


def waves(length: int, d_model: int) -> Float[Tensor, "length d_model"]:
    """The table of `sinusoids` in float64, for sums that should be exact."""
    angle = torch.arange(length)[:, None] * frequencies(d_model)  # (length, pair)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


def turn_by(angle: float) -> Float[Tensor, "2 2"]:
    """The rotation that moves the hand of one clock, (sine, cosine), by an angle."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return torch.tensor([[cosine, sine], [-sine, cosine]], dtype=torch.float64)


def shift(k: float, d_model: int) -> Float[Tensor, "d_model d_model"]:
    """The rotation that moves an encoding by k positions: one block for each clock."""
    return torch.block_diag(*[turn_by(k * f) for f in frequencies(d_model).tolist()])


SYMBOLS, BACK = 16, 3  # which of 16 symbols stood three positions before?
SEEN, LONG = 16, 48  # the length in training, and the longest in the test


def finder_batch(
    n: int, length: int, generator: torch.Generator
) -> tuple[Int[Tensor, "n length"], Int[Tensor, "n answers"]]:
    """Random symbols, and the answers at the positions BACK, BACK + 1, ..."""
    ids = torch.randint(SYMBOLS, (n, length), generator=generator)
    return ids, ids[:, :-BACK]


class NoPositions(nn.Module):
    """Stands where positions would be added, and adds nothing."""

    def forward(self, x: Vectors, start: int = 0) -> Vectors:
        """Return x as it is."""
        return x


class Finder(nn.Module):
    """Embeddings, positions, one encoder layer with one head, and a score a symbol."""

    def __init__(
        self,
        positions: nn.Module,
        attend: Callable[[int, int], MultiHeadAttention] = MultiHeadAttention,
        d_model: int = 32,
    ):
        super().__init__()
        self.embeddings, self.positions = Embeddings(SYMBOLS, d_model), positions
        norms = [PreNorm(d_model, dropout=0.0) for _ in range(2)]
        self.layer = EncoderLayer(attend(d_model, 1), FeedForward(d_model, 64), norms)
        self.scores = nn.Sequential(nn.LayerNorm(d_model), nn.Linear(d_model, SYMBOLS))
        for name, parameter in self.named_parameters():
            if "embeddings" in name or "positions" in name:
                nn.init.normal_(parameter, std=d_model**-0.5)  # as the model does

    def forward(
        self, ids: Int[Tensor, "batch length"], start: int = 0
    ) -> Float[Tensor, "batch length symbols"]:
        """Scores of the symbols at each position; the first one is number `start`."""
        x = self.positions(self.embeddings(ids), start)
        return self.scores(self.layer(x, None))  # None: no mask


def train_finder(
    make_model: Callable[[], Finder], seed: int, *, latest: int = 0, steps: int = 250
) -> tuple[Finder, list[float]]:
    """Train on SEEN positions; return the model and its losses.

    Each batch starts at a random position from 0 to `latest`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # decides the first weights
        model, g, losses = make_model(), seeded(seed), []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, steps)
    for _ in range(steps):
        ids, answers = finder_batch(64, SEEN, g)
        start = int(torch.randint(latest + 1, (), generator=g))
        scores = model(ids, start)[:, BACK:]
        loss = F.cross_entropy(scores.flatten(0, 1), answers.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return model.eval(), losses


@torch.no_grad()
def finder_accuracy(model: Finder, length: int) -> Float[Tensor, " answers"]:
    """Right answers on new sequences, in percent, from position BACK on."""
    ids, answers = finder_batch(1000, length, seeded(99))
    hits = model(ids)[:, BACK:].argmax(-1) == answers
    return 100 * hits.float().mean(0)
