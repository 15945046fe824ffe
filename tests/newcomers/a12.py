"""Encoder-decoder with rotary embeddings (half-rotation) and pre-norm blocks."""

import torch
from torch import Tensor, nn


class RotaryEmbedding(nn.Module):
    def __init__(self, head_dim: int, max_positions: int = 512):
        super().__init__()
        inv_freq = 10000 ** (-torch.arange(0, head_dim, 2).float() / head_dim)
        t = torch.arange(max_positions).float()
        emb = torch.einsum("i,j->ij", t, inv_freq).repeat(1, 2)
        self.register_buffer("cos", emb.cos()[None, :, None, :], persistent=False)
        self.register_buffer("sin", emb.sin()[None, :, None, :], persistent=False)

    @staticmethod
    def rotate_half(x: Tensor) -> Tensor:
        x1, x2 = x.chunk(2, dim=-1)
        return torch.cat((-x2, x1), dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        return x * self.cos[:, :n] + self.rotate_half(x) * self.sin[:, :n]


class RotaryAttention(nn.Module):
    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.to_qkv = nn.Linear(dim, dim * 3, bias=False)
        self.to_out = nn.Linear(dim, dim)
        self.rotary = RotaryEmbedding(dim // heads)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, n, d = x.shape
        qkv = self.to_qkv(x).view(b, n, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = self.rotary(q), self.rotary(k)
        sim = torch.einsum("bhid,bhjd->bhij", q, k) * self.scale
        sim = sim.masked_fill(~mask, torch.finfo(sim.dtype).min)
        attn = self.dropout(sim.softmax(dim=-1))
        out = torch.einsum("bhij,bhjd->bihd", attn, v)
        return self.to_out(out.reshape(b, n, d))


class CrossAttention(nn.Module):
    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, dim * 2, bias=False)
        self.to_out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        q = self.to_q(x).unflatten(-1, (self.heads, -1))
        k, v = self.to_kv(memory).unflatten(-1, (2, self.heads, -1)).unbind(2)
        sim = torch.einsum("bihd,bjhd->bhij", q, k) * self.scale
        sim = sim.masked_fill(~mask, torch.finfo(sim.dtype).min)
        attn = self.dropout(sim.softmax(dim=-1))
        return self.to_out(torch.einsum("bhij,bjhd->bihd", attn, v).flatten(2))


def feedforward(dim: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, dim * 4),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(dim * 4, dim),
        nn.Dropout(dropout),
    )


class Layer(nn.Module):
    def __init__(self, dim: int, heads: int, dropout: float, decoder: bool):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attn = RotaryAttention(dim, heads, dropout)
        if decoder:
            self.cross_norm = nn.LayerNorm(dim)
            self.cross = CrossAttention(dim, heads, dropout)
        self.ff = feedforward(dim, dropout)

    def forward(self, x, mask, memory=None, memory_mask=None):
        x = x + self.attn(self.norm(x), mask)
        if memory is not None:
            x = x + self.cross(self.cross_norm(x), memory, memory_mask)
        return x + self.ff(x)


class RotaryTranslator(nn.Module):
    def __init__(self, num_tokens: int, dim=64, depth=2, heads=4, dropout=0.1):
        super().__init__()
        self.src_emb = nn.Embedding(num_tokens, dim)
        self.tgt_emb = nn.Embedding(num_tokens, dim)
        self.emb_dropout = nn.Dropout(dropout)
        self.enc = nn.ModuleList(
            [Layer(dim, heads, dropout, decoder=False) for _ in range(depth)]
        )
        self.dec = nn.ModuleList(
            [Layer(dim, heads, dropout, decoder=True) for _ in range(depth)]
        )
        self.enc_norm = nn.LayerNorm(dim)
        self.to_logits = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, num_tokens))

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        src_mask = (src != 0)[:, None, None, :]
        i = torch.arange(tgt.shape[1], device=tgt.device)
        tgt_mask = (i[:, None] >= i[None, :]) & (tgt != 0)[:, None, None, :]
        memory = self.emb_dropout(self.src_emb(src))
        for layer in self.enc:
            memory = layer(memory, src_mask)
        memory = self.enc_norm(memory)
        x = self.emb_dropout(self.tgt_emb(tgt))
        for layer in self.dec:
            x = layer(x, tgt_mask, memory, src_mask)
        return self.to_logits(x)


def build():
    return RotaryTranslator(num_tokens=170)
