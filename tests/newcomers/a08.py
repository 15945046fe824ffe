"""A translation Transformer that keeps to the functional interface."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class MHA(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.h, self.dk = h, d // h
        self.qkv = nn.ModuleDict({name: nn.Linear(d, d) for name in "qkv"})
        self.merge = nn.Linear(d, d)

    def heads(self, name, x):
        return self.qkv[name](x).unflatten(2, (self.h, self.dk)).movedim(2, 1)

    def forward(self, to, frm, bias):
        q, k, v = self.heads("q", to), self.heads("k", frm), self.heads("v", frm)
        w = F.softmax(q @ k.mT / math.sqrt(self.dk) + bias, dim=-1)
        return self.merge((w @ v).movedim(1, 2).flatten(2))


class FFN(nn.Module):
    def __init__(self, d, hidden):
        super().__init__()
        self.up = nn.Linear(d, hidden)
        self.down = nn.Linear(hidden, d)

    def forward(self, x):
        return self.down(F.relu(self.up(x)))


class Enc(nn.Module):
    def __init__(self, d, h, p):
        super().__init__()
        self.p = p
        self.att, self.ffn = MHA(d, h), FFN(d, 2 * d)
        self.n1, self.n2 = nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, x, bias):
        x = self.n1(x + F.dropout(self.att(x, x, bias), self.p, self.training))
        return self.n2(x + F.dropout(self.ffn(x), self.p, self.training))


class Dec(nn.Module):
    def __init__(self, d, h, p):
        super().__init__()
        self.p = p
        self.att, self.cross, self.ffn = MHA(d, h), MHA(d, h), FFN(d, 2 * d)
        self.n1, self.n2, self.n3 = (nn.LayerNorm(d) for _ in range(3))

    def forward(self, x, bias, mem, mem_bias):
        x = self.n1(x + F.dropout(self.att(x, x, bias), self.p, self.training))
        x = self.n2(x + F.dropout(self.cross(x, mem, mem_bias), self.p))
        return self.n3(x + F.dropout(self.ffn(x), self.p, self.training))


def key_bias(ids):
    """Zero for words and a huge negative number for padding: (batch, 1, 1, len)."""
    return (ids == 0).float()[:, None, None, :] * -1e9


def causal_bias(n, device):
    return torch.full((n, n), -1e9, device=device).triu(1)


class Net(nn.Module):
    def __init__(self, vocab, d=64, h=4, layers=2, p=0.1, max_len=256):
        super().__init__()
        self.d, self.p = d, p
        self.words = nn.Parameter(torch.randn(vocab, d) / math.sqrt(d))
        self.places = nn.Parameter(torch.randn(max_len, d) * 0.02)
        self.enc = nn.ModuleList([Enc(d, h, p) for _ in range(layers)])
        self.dec = nn.ModuleList([Dec(d, h, p) for _ in range(layers)])
        self.bias = nn.Parameter(torch.zeros(vocab))

    def embed(self, ids):
        x = F.embedding(ids, self.words) * math.sqrt(self.d)
        x = x + self.places[: ids.shape[1]]
        return F.dropout(x, self.p, self.training)

    def forward(self, src, tgt):
        src_bias = key_bias(src)
        # the minimum, so that two huge numbers never add up
        tgt_bias = torch.minimum(key_bias(tgt), causal_bias(tgt.shape[1], tgt.device))
        mem = self.embed(src)
        for layer in self.enc:
            mem = layer(mem, src_bias)
        x = self.embed(tgt)
        for layer in self.dec:
            x = layer(x, tgt_bias, mem, src_bias)
        return F.linear(x, self.words, self.bias)


def build():
    return {"model": Net(vocab=110), "vocab_size": 110}
