"""A translation Transformer whose heads are folded into the batch for bmm."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def sinusoids(length, channels):
    steps = math.log(10000) / (channels // 2 - 1)
    rates = torch.exp(-steps * torch.arange(channels // 2))
    angles = torch.arange(length)[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class FoldedAttention(nn.Module):
    def __init__(self, n_state, n_head, dropout):
        super().__init__()
        self.n_head = n_head
        self.to_q = nn.Linear(n_state, n_state)
        self.to_kv = nn.Linear(n_state, 2 * n_state)
        self.out = nn.Linear(n_state, n_state)
        self.dropout = dropout

    def fold(self, x):
        b, t, c = x.shape
        x = x.reshape(b, t, self.n_head, c // self.n_head).transpose(1, 2)
        return x.reshape(b * self.n_head, t, c // self.n_head)

    def unfold(self, x, b):
        _, t, d = x.shape
        x = x.reshape(b, self.n_head, t, d).transpose(1, 2)
        return x.reshape(b, t, self.n_head * d)

    def forward(self, x, source, blocked):
        """blocked: (batch, 1 or queries, keys), True where not to look."""
        k, v = self.to_kv(source).chunk(2, dim=-1)
        q, k, v = self.fold(self.to_q(x)), self.fold(k), self.fold(v)
        weights = torch.bmm(q, k.transpose(1, 2)) / math.sqrt(q.size(-1))
        blocked = blocked.repeat(self.n_head, 1, 1)
        weights = weights.masked_fill(blocked, -1e9).softmax(dim=-1)
        weights = F.dropout(weights, self.dropout, self.training)
        return self.out(self.unfold(torch.bmm(weights, v), x.size(0)))


class Residual(nn.Module):
    def __init__(self, n_state, module, dropout):
        super().__init__()
        self.ln = nn.LayerNorm(n_state)
        self.module = module
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, *args):
        return x + self.dropout(self.module(self.ln(x), *args))


class SelfBlock(nn.Module):
    def __init__(self, n_state, n_head, dropout):
        super().__init__()
        self.ln = nn.LayerNorm(n_state)
        self.attn = FoldedAttention(n_state, n_head, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, blocked):
        h = self.ln(x)
        return x + self.dropout(self.attn(h, h, blocked))


def mlp(n_state):
    return nn.Sequential(
        nn.Linear(n_state, 4 * n_state), nn.GELU(), nn.Linear(4 * n_state, n_state)
    )


class EncoderLayer(nn.Module):
    def __init__(self, n_state, n_head, dropout):
        super().__init__()
        self.attn = SelfBlock(n_state, n_head, dropout)
        self.mlp = Residual(n_state, mlp(n_state), dropout)

    def forward(self, x, blocked):
        return self.mlp(self.attn(x, blocked))


class DecoderLayer(nn.Module):
    def __init__(self, n_state, n_head, dropout):
        super().__init__()
        self.attn = SelfBlock(n_state, n_head, dropout)
        cross = FoldedAttention(n_state, n_head, dropout)
        self.cross = Residual(n_state, cross, dropout)
        self.mlp = Residual(n_state, mlp(n_state), dropout)

    def forward(self, x, blocked, memory, memory_blocked):
        x = self.attn(x, blocked)
        return self.mlp(self.cross(x, memory, memory_blocked))


class Translator(nn.Module):
    def __init__(self, n_vocab, n_state=80, n_head=4, n_layer=2, dropout=0.1):
        super().__init__()
        self.src_emb = nn.Embedding(n_vocab, n_state)
        self.tgt_emb = nn.Embedding(n_vocab, n_state)
        self.register_buffer("positions", sinusoids(300, n_state))
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.ModuleList(
            [EncoderLayer(n_state, n_head, dropout) for _ in range(n_layer)]
        )
        self.decoder = nn.ModuleList(
            [DecoderLayer(n_state, n_head, dropout) for _ in range(n_layer)]
        )
        self.ln_enc = nn.LayerNorm(n_state)
        self.ln_dec = nn.LayerNorm(n_state)
        self.head = nn.Linear(n_state, n_vocab)

    def embed(self, table, ids):
        return self.drop(table(ids) + self.positions[: ids.size(1)])

    def forward(self, src, tgt):
        src_blocked = src.eq(0).unsqueeze(1)
        t = tgt.size(1)
        later = torch.ones(t, t, device=tgt.device).triu(1).bool()
        tgt_blocked = later | tgt.eq(0).unsqueeze(1)
        memory = self.embed(self.src_emb, src)
        for layer in self.encoder:
            memory = layer(memory, src_blocked)
        memory = self.ln_enc(memory)
        x = self.embed(self.tgt_emb, tgt)
        for layer in self.decoder:
            x = layer(x, tgt_blocked, memory, src_blocked)
        return self.head(self.ln_dec(x))


def build():
    return Translator(n_vocab=140)
