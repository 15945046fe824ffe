"""A translator class that owns its network, optimizer and decoding loop."""

import math

import torch
from torch import nn


class Positions(nn.Module):
    def __init__(self, dim, longest=200):
        super().__init__()
        grid = torch.arange(longest)[:, None] / torch.pow(
            10000, torch.arange(0, dim, 2)[None, :] / dim
        )
        table = torch.empty(longest, dim)
        table[:, 0::2], table[:, 1::2] = grid.sin(), grid.cos()
        self.register_buffer("table", table[:, None, :])

    def forward(self, x):
        return x + self.table[: len(x)]


class Network(nn.Module):
    """Time first inside: every activation is (time, batch, dim)."""

    def __init__(self, vocab, dim=64, heads=4, layers=2, dropout=0.1):
        super().__init__()
        self.emb_src = nn.Embedding(vocab, dim)
        self.emb_tgt = nn.Embedding(vocab, dim)
        self.scale = math.sqrt(dim)
        self.positions = Positions(dim)
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for _ in range(layers):
            self.encoder.append(
                nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout)
            )
            self.decoder.append(
                nn.TransformerDecoderLayer(dim, heads, 2 * dim, dropout)
            )
        self.classify = nn.Linear(dim, vocab)
        for weight in (self.emb_src.weight, self.emb_tgt.weight):
            nn.init.normal_(weight, std=1 / self.scale)

    def look_up(self, table, ids):
        return self.dropout(self.positions(table(ids.T) * self.scale))

    def forward(self, src, tgt):
        no_src, no_tgt = src.eq(0), tgt.eq(0)
        steps = torch.arange(tgt.size(1), device=tgt.device)
        future = steps[None, :] > steps[:, None]
        memory = self.look_up(self.emb_src, src)
        for layer in self.encoder:
            memory = layer(memory, src_key_padding_mask=no_src)
        x = self.look_up(self.emb_tgt, tgt)
        for layer in self.decoder:
            x = layer(
                x,
                memory,
                tgt_mask=future,
                tgt_key_padding_mask=no_tgt,
                memory_key_padding_mask=no_src,
            )
        return self.classify(x).transpose(0, 1)


class Translator:
    pad, start, end = 0, 1, 2

    def __init__(self, vocab):
        self.vocab = vocab
        self.network = Network(vocab)
        self.loss = nn.CrossEntropyLoss(ignore_index=self.pad)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)

    def compute_loss(self, src, tgt):
        inputs = tgt[:, :-1]
        logits = self.network(src, inputs)
        words = inputs.size(1)
        labels = tgt[:, :words]
        return self.loss(logits.reshape(-1, self.vocab), labels.reshape(-1))

    def update(self, batches):
        self.network.train()
        self.optimizer.zero_grad()
        losses = [self.compute_loss(src, tgt) for src, tgt in batches]
        loss = torch.stack(losses).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def translate(self, src, longest=30):
        self.network.eval()
        result = torch.full_like(src[:, :1], self.start)
        for _ in range(longest):
            scores = self.network(src, result)[:, -1]
            stopped = (result == self.end).any(dim=1)
            words = scores.argmax(dim=1).masked_fill(stopped, self.pad)
            result = torch.cat([result, words[:, None]], dim=1)
            if (result == self.end).any(dim=1).all():
                break
        return [[w for w in row if w != self.pad] for row in result.tolist()]


def build():
    translator = Translator(150)
    return {
        "model": translator.network,
        "vocab_size": translator.vocab,
        "train_step": translator.update,
        "greedy": translator.translate,
    }
