"""Encoder-decoder on the torch.nn layers, batch first, masks made in the model."""

import torch
from torch import nn


class Masks:
    """Makes the masks of a batch and spares the work where it can."""

    def __init__(self, pad):
        self.pad = pad
        self.causal = None
        self.src_padding = None

    def for_source(self, src):
        if self.src_padding is None or self.src_padding.shape != src.shape:
            self.src_padding = src == self.pad
        return self.src_padding.to(src.device)

    def for_target(self, tgt):
        n = tgt.size(1)
        if self.causal is None or self.causal.size(0) != n:
            self.causal = torch.ones(n, n).triu(1).bool()
        return self.causal.to(tgt.device), tgt == self.pad


class WordsAndPlaces(nn.Module):
    def __init__(self, vocab, dim, dropout, longest=300):
        super().__init__()
        self.words = nn.Embedding(vocab, dim)
        self.places = nn.Embedding(longest, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids):
        places = self.places.weight[: ids.size(1)]
        return self.dropout(self.norm(self.words(ids) + places))


class TranslationModel(nn.Module):
    def __init__(self, vocab, dim=48, heads=4, layers=2, dropout=0.1, pad=0):
        super().__init__()
        self.masks = Masks(pad)
        self.source = WordsAndPlaces(vocab, dim, dropout)
        self.target = WordsAndPlaces(vocab, dim, dropout)
        options = {
            "dim_feedforward": 3 * dim,
            "dropout": dropout,
            "activation": "gelu",
            "batch_first": True,
        }
        self.encoder = nn.ModuleList(
            [nn.TransformerEncoderLayer(dim, heads, **options) for _ in range(layers)]
        )
        self.decoder = nn.ModuleList(
            [nn.TransformerDecoderLayer(dim, heads, **options) for _ in range(layers)]
        )
        self.head = nn.Linear(dim, vocab)

    def encode(self, src):
        padding = self.masks.for_source(src)
        x = self.source(src)
        for layer in self.encoder:
            x = layer(x, src_key_padding_mask=padding)
        return x, padding

    def decode(self, tgt, memory, memory_padding):
        causal, padding = self.masks.for_target(tgt)
        x = self.target(tgt)
        for layer in self.decoder:
            x = layer(
                x,
                memory,
                tgt_mask=causal,
                tgt_key_padding_mask=padding,
                memory_key_padding_mask=memory_padding,
            )
        return x

    def forward(self, src, tgt):
        memory, memory_padding = self.encode(src)
        return self.head(self.decode(tgt, memory, memory_padding))


def build():
    return {"model": TranslationModel(vocab=220), "vocab_size": 220}
