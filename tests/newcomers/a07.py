"""A decoder-only translator, small-GPT style: the source is the prompt."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass
class GPTConfig:
    vocab_size: int = 100
    block_size: int = 128
    n_layer: int = 3
    n_head: int = 4
    n_embd: int = 64
    dropout: float = 0.1


class CausalSelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.attn_dropout = nn.Dropout(config.dropout)
        self.resid_dropout = nn.Dropout(config.dropout)
        self.n_head = config.n_head

    def forward(self, x, visible):
        b, t, c = x.size()
        q, k, v = self.c_attn(x).split(c, dim=2)
        k = k.view(b, t, self.n_head, c // self.n_head).transpose(1, 2)
        q = q.view(b, t, self.n_head, c // self.n_head).transpose(1, 2)
        v = v.view(b, t, self.n_head, c // self.n_head).transpose(1, 2)
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = F.softmax(att.masked_fill(~visible, -1e9), dim=-1)
        y = self.attn_dropout(att) @ v
        y = y.transpose(1, 2).contiguous().view(b, t, c)
        return self.resid_dropout(self.c_proj(y))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = nn.Sequential(
            nn.Linear(config.n_embd, 4 * config.n_embd),
            nn.GELU(),
            nn.Linear(4 * config.n_embd, config.n_embd),
            nn.Dropout(config.dropout),
        )

    def forward(self, x, visible):
        x = x + self.attn(self.ln_1(x), visible)
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.side = nn.Embedding(2, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.wte.weight = self.lm_head.weight
        tril = torch.tril(torch.ones(config.block_size, config.block_size))
        self.register_buffer("bias", tril.bool())
        self.apply(self._init_weights)

    def _init_weights(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, src, tgt):
        idx = torch.cat([src, tgt], dim=1)
        b, t = idx.size()
        real = idx.ne(0)
        # each side counts its own places
        pos = torch.cat(
            [
                torch.arange(src.size(1), device=idx.device),
                torch.arange(tgt.size(1), device=idx.device),
            ]
        )
        side = torch.zeros(t, dtype=torch.long, device=idx.device)
        side[src.size(1) :] = 1
        x = self.drop(self.wte(idx) + self.wpe(pos) + self.side(side))
        visible = (self.bias[:t, :t] & real[:, None, :]).view(b, 1, t, t)
        for block in self.h:
            x = block(x, visible)
        return self.lm_head(self.ln_f(x[:, src.size(1) :]))


def configure_optimizers(model, lr):
    decay = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": decay, "weight_decay": 0.01},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))


def build():
    config = GPTConfig()
    model = GPT(config)
    optimizer = configure_optimizers(model, 1e-3)

    def train_step(batches):
        model.train()
        for src, tgt in batches:
            x, y = tgt[:, :-1], tgt[:, 1:]
            logits = model(src, x)
            loss = F.cross_entropy(
                logits.reshape(-1, logits.size(-1)), y.reshape(-1), ignore_index=0
            )
            (loss / len(batches)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def generate(src, max_new_tokens=32):
        was_training = model.training
        model.eval()
        idx = torch.ones(src.size(0), 1, dtype=torch.long, device=src.device)
        ended = torch.zeros_like(idx, dtype=torch.bool)
        for _ in range(max_new_tokens):
            logits = model(src, idx)[:, -1, :]
            idx_next = logits.argmax(dim=-1, keepdim=True).masked_fill(ended, 0)
            idx = torch.cat((idx, idx_next), dim=1)
            ended = ended | (idx_next == 2)
            if bool(ended.all()):
                break
        model.train(was_training)
        return idx

    return {
        "model": model,
        "vocab_size": config.vocab_size,
        "train_step": train_step,
        "greedy": generate,
    }
