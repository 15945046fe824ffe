"""A translation Transformer with einsum attention and learned distance biases."""

import torch
from torch import einsum, nn


class DistanceBias(nn.Module):
    """One learned number per head and clipped distance between two places."""

    def __init__(self, heads, reach=16):
        super().__init__()
        self.reach = reach
        self.table = nn.Embedding(2 * reach + 1, heads)

    def forward(self, length):
        spots = torch.arange(length, device=self.table.weight.device)
        gap = (spots[None, :] - spots[:, None]).clamp(-self.reach, self.reach)
        return self.table(gap + self.reach).permute(2, 0, 1)


class SelfAttention(nn.Module):
    def __init__(self, embed_size, heads):
        super().__init__()
        self.embed_size = embed_size
        self.heads = heads
        self.head_dim = embed_size // heads
        self.values = nn.Linear(embed_size, embed_size, bias=False)
        self.keys = nn.Linear(embed_size, embed_size, bias=False)
        self.queries = nn.Linear(embed_size, embed_size, bias=False)
        self.fc_out = nn.Linear(embed_size, embed_size)

    def forward(self, values, keys, query, mask, bias=None):
        n, q_len = query.shape[:2]
        k_len = keys.shape[1]
        v = self.values(values).reshape(n, k_len, self.heads, self.head_dim)
        k = self.keys(keys).reshape(n, k_len, self.heads, self.head_dim)
        q = self.queries(query).reshape(n, q_len, self.heads, self.head_dim)
        energy = einsum("nqhd,nkhd->nhqk", q, k) / self.head_dim**0.5
        if bias is not None:
            energy = energy + bias
        energy = energy.masked_fill(mask == 0, float("-1e20"))
        attention = torch.softmax(energy, dim=3)
        out = einsum("nhqk,nkhd->nqhd", attention, v)
        return self.fc_out(out.reshape(n, q_len, self.embed_size))


def feed_forward(embed_size, expansion):
    return nn.Sequential(
        nn.Linear(embed_size, expansion * embed_size),
        nn.ReLU(),
        nn.Linear(expansion * embed_size, embed_size),
    )


class EncoderBlock(nn.Module):
    def __init__(self, embed_size, heads, dropout, expansion):
        super().__init__()
        self.attention = SelfAttention(embed_size, heads)
        self.norm1 = nn.LayerNorm(embed_size)
        self.norm2 = nn.LayerNorm(embed_size)
        self.feed_forward = feed_forward(embed_size, expansion)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, mask, bias):
        attention = self.attention(x, x, x, mask, bias)
        x = self.norm1(self.dropout(attention) + x)
        return self.norm2(self.dropout(self.feed_forward(x)) + x)


class DecoderBlock(nn.Module):
    def __init__(self, embed_size, heads, dropout, expansion):
        super().__init__()
        self.attention = SelfAttention(embed_size, heads)
        self.norm = nn.LayerNorm(embed_size)
        self.cross = SelfAttention(embed_size, heads)
        self.cross_norm = nn.LayerNorm(embed_size)
        self.feed_forward = feed_forward(embed_size, expansion)
        self.last_norm = nn.LayerNorm(embed_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, enc_out, src_mask, trg_mask, bias):
        x = self.norm(x + self.dropout(self.attention(x, x, x, trg_mask, bias)))
        seen = self.cross(enc_out, enc_out, x, src_mask)
        x = self.cross_norm(x + self.dropout(seen))
        return self.last_norm(x + self.dropout(self.feed_forward(x)))


class Transformer(nn.Module):
    def __init__(
        self, vocab_size, embed_size=48, num_layers=2, heads=4, dropout=0.1, expansion=4
    ):
        super().__init__()
        self.src_words = nn.Embedding(vocab_size, embed_size)
        self.trg_words = nn.Embedding(vocab_size, embed_size)
        self.src_bias = DistanceBias(heads)
        self.trg_bias = DistanceBias(heads)
        self.encoder = nn.ModuleList(
            EncoderBlock(embed_size, heads, dropout, expansion)
            for _ in range(num_layers)
        )
        self.decoder = nn.ModuleList(
            DecoderBlock(embed_size, heads, dropout, expansion)
            for _ in range(num_layers)
        )
        self.fc_out = nn.Linear(embed_size, vocab_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, src, trg):
        src_mask = (src != 0)[:, None, None, :]
        n, trg_len = trg.shape
        trg_mask = torch.tril(torch.ones((trg_len, trg_len), device=trg.device))
        trg_mask = trg_mask.expand(n, 1, trg_len, trg_len)
        trg_mask = trg_mask * (trg != 0)[:, None, None, :]
        out = self.dropout(self.src_words(src))
        src_bias = self.src_bias(src.shape[1])
        for block in self.encoder:
            out = block(out, src_mask, src_bias)
        x = self.dropout(self.trg_words(trg))
        trg_bias = self.trg_bias(trg_len)
        for block in self.decoder:
            x = block(x, out, src_mask, trg_mask, trg_bias)
        return self.fc_out(x)


def build():
    return Transformer(vocab_size=90)
