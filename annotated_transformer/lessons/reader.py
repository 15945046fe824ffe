"""Words in, words out (chapter 05)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from annotated_transformer.attention import fused_attention
from annotated_transformer.grammar import grammar_corpus
from annotated_transformer.layers import Embeddings, FeedForward, sinusoids
from annotated_transformer.lessons.claims import seeded
from annotated_transformer.masks import causal_mask


def english_sentences(
    size: int = 3000,
) -> tuple[list[str], Int[Tensor, "sentence position"]]:
    """The words of the grammar's English (chapter 14), and its sentences as ids.

    Word 0 is padding; word 1 begins each sentence.
    """
    texts = [
        english.lower().rstrip(".").replace(",", "").split()
        for _, english in grammar_corpus(size)["train"]
    ]
    words = ["<pad>", "<s>", *sorted({word for text in texts for word in text})]
    index = {word: i for i, word in enumerate(words)}
    rows = [torch.tensor([1, *(index[word] for word in text)]) for text in texts]
    return words, pad_sequence(rows, batch_first=True)


class Reader(nn.Module):
    """Guesses each next word: embeddings, positions, one layer, and the same matrix.

    The words are multiplied by `factor`, and the sinusoids by `positions`.
    """

    def __init__(
        self, n_words: int, *, factor: float, positions: float = 1.0, d_model: int = 32
    ):
        super().__init__()
        self.embeddings, self.positions = Embeddings(n_words, d_model), positions
        nn.init.normal_(self.embeddings.weight, std=d_model**-0.5)
        self.embeddings.scale = factor
        self.query_key_value = nn.Linear(d_model, 3 * d_model)
        self.feed_forward = FeedForward(d_model, 4 * d_model)
        self.norms = nn.ModuleList([nn.LayerNorm(d_model), nn.LayerNorm(d_model)])

    def forward(
        self, ids: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length words"]:
        """Logits of the word after each word; nobody sees the future."""
        length, d_model = ids.size(1), self.embeddings.weight.size(1)
        x = self.embeddings(ids) + self.positions * sinusoids(length, d_model)
        query, key, value = self.query_key_value(x).chunk(3, -1)
        mixed = fused_attention(query, key, value, causal_mask(length))
        x = self.norms[0](x + mixed)
        x = self.norms[1](x + self.feed_forward(x))
        return F.linear(x, self.embeddings.weight)


def train_reader(
    model: Reader,
    sentences: Int[Tensor, "sentence position"],
    seed: int,
    *,
    rate: float = 0.005,
    steps: int = 200,
) -> list[float]:
    """Train on batches of 32 sentences, which the seed draws; return the losses."""
    g, losses = seeded(seed), []
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for _ in range(steps):
        batch = sentences[torch.randint(len(sentences), (32,), generator=g)]
        logits, following = model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()
        loss = F.cross_entropy(logits, following, ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
