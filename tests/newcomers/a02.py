"""An encoder-decoder Transformer with rotary positions, RMS norm and gated layers."""

import torch
import torch.nn.functional as F
from torch import nn


class RMSNorm(nn.Module):
    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        power = x.pow(2).mean(-1, keepdim=True)
        return x * torch.rsqrt(power + self.eps) * self.weight


def freqs_table(dim, end, theta=10000.0):
    freqs = 1.0 / theta ** (torch.arange(0, dim, 2).float() / dim)
    angles = torch.outer(torch.arange(end).float(), freqs)
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def rotate(x, table):
    """Turn the pairs of x, (batch, length, heads, dim), by their positions."""
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    cos = table[: x.size(1), :, 0][None, :, None, :]
    sin = table[: x.size(1), :, 1][None, :, None, :]
    even, odd = pairs.unbind(-1)
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2)


class Attention(nn.Module):
    def __init__(self, dim, n_heads, p, rope):
        super().__init__()
        self.n_heads = n_heads
        self.p = p
        self.rope = rope
        self.wq = nn.Linear(dim, dim, bias=False)
        self.wk = nn.Linear(dim, dim, bias=False)
        self.wv = nn.Linear(dim, dim, bias=False)
        self.wo = nn.Linear(dim, dim, bias=False)

    def forward(self, x, context, allowed, table):
        q = self.wq(x).unflatten(-1, (self.n_heads, -1))
        k = self.wk(context).unflatten(-1, (self.n_heads, -1))
        v = self.wv(context).unflatten(-1, (self.n_heads, -1))
        if self.rope:
            q, k = rotate(q, table), rotate(k, table)
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=allowed,
            dropout_p=self.p if self.training else 0.0,
        )
        return self.wo(out.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.w1 = nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    def __init__(self, dim, n_heads, p, cross):
        super().__init__()
        self.attn_norm = RMSNorm(dim)
        self.attn = Attention(dim, n_heads, p, rope=True)
        self.cross_norm = RMSNorm(dim) if cross else None
        self.cross = Attention(dim, n_heads, p, rope=False) if cross else None
        self.ffn_norm = RMSNorm(dim)
        self.ffn = SwiGLU(dim, 2 * dim)
        self.drop = nn.Dropout(p)

    def forward(self, x, allowed, table, memory=None, memory_allowed=None):
        h = self.attn_norm(x)
        x = x + self.drop(self.attn(h, h, allowed, table))
        if self.cross is not None:
            h = self.cross_norm(x)
            x = x + self.drop(self.cross(h, memory, memory_allowed, table))
        return x + self.drop(self.ffn(self.ffn_norm(x)))


class Seq2Seq(nn.Module):
    def __init__(self, vocab, dim=96, n_heads=6, depth=2, p=0.1, longest=512):
        super().__init__()
        self.tok_src = nn.Embedding(vocab, dim)
        self.tok_tgt = nn.Embedding(vocab, dim)
        self.encoder = nn.ModuleList(
            [Block(dim, n_heads, p, cross=False) for _ in range(depth)]
        )
        self.decoder = nn.ModuleList(
            [Block(dim, n_heads, p, cross=True) for _ in range(depth)]
        )
        self.enc_norm = RMSNorm(dim)
        self.dec_norm = RMSNorm(dim)
        self.lm_head = nn.Linear(dim, vocab, bias=False)
        self.drop = nn.Dropout(p)
        table = freqs_table(dim // n_heads, longest)
        self.register_buffer("table", table, persistent=False)
        self.apply(self.init_weights)

    @staticmethod
    def init_weights(module):
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.05)

    def forward(self, src, tgt):
        real = src.ne(0)[:, None, None, :]
        t = tgt.size(1)
        past = torch.ones(t, t, device=tgt.device).tril().bool()
        seen = past & tgt.ne(0)[:, None, None, :]
        memory = self.drop(self.tok_src(src))
        for block in self.encoder:
            memory = block(memory, real, self.table)
        memory = self.enc_norm(memory)
        x = self.drop(self.tok_tgt(tgt))
        for block in self.decoder:
            x = block(x, seen, self.table, memory, real)
        return self.lm_head(self.dec_norm(x))


def build():
    return Seq2Seq(vocab=180)
