"""Two more families from the same layers: a stack without its partner, and a mask.

Departs from §3: the paper's model has an encoder and a decoder. These have one of them.
"""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from annotated_transformer.config import TransformerConfig
from annotated_transformer.layers import Embeddings
from annotated_transformer.masks import causal_mask, padding_mask
from annotated_transformer.special import PAD
from annotated_transformer.transformer import (
    POSITIONS,
    Encoder,
    EncoderLayer,
    final_norm,
    reset_parameters,
    sublayers,
)

Ids = Int[Tensor, "batch length"]


class OneStack(nn.Module):
    """Embeddings, positions, self-attention layers, and the tied output layer (§3).

    Who may look where is all that is missing: `mask`, which a family fills in.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = c = config
        layers = [EncoderLayer(*sublayers(c, 1)) for _ in range(c.n_layers)]
        self.embeddings = Embeddings(c.vocab_size, c.d_model)
        self.positions = POSITIONS[c.positions](c.max_length, c.d_model)
        self.dropout = nn.Dropout(c.dropout)
        self.stack = Encoder(layers, final_norm(c))
        reset_parameters(self, c.d_model)

    def features(self, ids: Ids) -> Float[Tensor, "batch length d_model"]:
        """One vector for each token, from all that it may look at."""
        x = self.dropout(self.positions(self.embeddings(ids)))
        return self.stack(x, self.mask(ids))

    def forward(self, ids: Ids) -> Float[Tensor, "batch length vocab"]:
        """A score for every token of the vocabulary, at each position (§3.4)."""
        return F.linear(self.features(ids), self.embeddings.weight)

    def mask(self, ids: Ids) -> Bool[Tensor, "..."]:
        """Which keys a query may look at; True = may look."""
        raise NotImplementedError("take DecoderOnly or EncoderOnly")


class DecoderOnly(OneStack):
    """A language model: the decoder without cross-attention (§3.1).

    Padding comes last, where the causal mask hides it, so it needs no mask.
    """

    def mask(self, ids: Ids) -> Bool[Tensor, "length length"]:
        """Nobody sees the future, so position i can be asked for token i + 1."""
        return causal_mask(ids.size(1), ids.device)


class EncoderOnly(OneStack):
    """A reader: the encoder alone, where each token sees both sides (§3.1)."""

    def mask(self, ids: Ids) -> Bool[Tensor, "batch 1 1 length"]:
        """All that is not padding."""
        return padding_mask(ids)


class Classifier(nn.Module):
    """A label for a text: the mean of its tokens' features, then one linear layer."""

    def __init__(self, reader: EncoderOnly, n_labels: int):
        super().__init__()
        self.reader = reader
        self.output = nn.Linear(reader.config.d_model, n_labels)
        nn.init.zeros_(self.output.weight)  # it begins without an opinion
        nn.init.zeros_(self.output.bias)

    def forward(self, ids: Ids) -> Float[Tensor, "batch labels"]:
        """A score for each label; padding is left out of the mean."""
        real = (ids != PAD)[..., None]
        features = self.reader.features(ids).masked_fill(~real, 0.0)
        return self.output(features.sum(1) / real.sum(1))
