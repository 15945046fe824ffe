"""A decoder-only translator: prompt pushed to the right, answer after it."""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention


def push_right(ids):
    """Move the padding of every row to its front, the words keep their order."""
    order = torch.argsort((ids != 0).int(), dim=1, stable=True)
    return ids.gather(1, order)


class Attention(nn.Module):
    def __init__(self, n_embd, n_head, dropout):
        super().__init__()
        self.n_head = n_head
        self.key = nn.Linear(n_embd, n_embd)
        self.query = nn.Linear(n_embd, n_embd)
        self.value = nn.Linear(n_embd, n_embd)
        self.proj = nn.Linear(n_embd, n_embd)
        self.dropout = dropout

    def forward(self, x, bias):
        batch, time, channels = x.shape
        shape = (batch, time, self.n_head, channels // self.n_head)
        q = self.query(x).view(shape).transpose(1, 2)
        k = self.key(x).view(shape).transpose(1, 2)
        v = self.value(x).view(shape).transpose(1, 2)
        p = self.dropout if self.training else 0.0
        y = scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=p)
        return self.proj(y.transpose(1, 2).reshape(batch, time, channels))


class Block(nn.Module):
    def __init__(self, n_embd, n_head, dropout):
        super().__init__()
        self.ln1 = nn.LayerNorm(n_embd)
        self.ln2 = nn.LayerNorm(n_embd)
        self.attn = Attention(n_embd, n_head, dropout)
        self.mlp = nn.Sequential(
            nn.Linear(n_embd, 4 * n_embd),
            nn.GELU(),
            nn.Linear(4 * n_embd, n_embd),
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x, bias):
        x = x + self.drop(self.attn(self.ln1(x), bias))
        return x + self.drop(self.mlp(self.ln2(x)))


class PromptTranslator(nn.Module):
    def __init__(self, vocab, n_embd=64, n_head=4, n_layer=3, dropout=0.1, ctx=256):
        super().__init__()
        self.tok_emb = nn.Embedding(vocab, n_embd)
        self.pos_emb = nn.Embedding(ctx, n_embd)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            [Block(n_embd, n_head, dropout) for _ in range(n_layer)]
        )
        self.ln_f = nn.LayerNorm(n_embd)
        self.head = nn.Linear(n_embd, vocab, bias=False)
        self.apply(self._init)

    @staticmethod
    def _init(module):
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.data.normal_(0.0, 0.05)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.data.zero_()

    def forward(self, src, tgt):
        ids = torch.cat([push_right(src), tgt], dim=1)
        real = ids != 0
        # the first word of every row has position 0, wherever it stands
        positions = (real.cumsum(1) - 1).clamp(min=0)
        x = self.drop(self.tok_emb(ids) + self.pos_emb(positions))
        length = ids.size(1)
        causal = torch.ones(length, length, device=ids.device).tril().bool()
        allowed = causal & real[:, None, None, :]
        bias = torch.zeros(allowed.shape, device=ids.device)
        bias = bias.masked_fill(~allowed, -1e9)
        for block in self.blocks:
            x = block(x, bias)
        first = src.size(1) - 1
        answer = self.ln_f(x)[:, first : first + tgt.size(1)]
        return self.head(answer)


def build():
    return PromptTranslator(vocab=80)
