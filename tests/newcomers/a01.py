"""A small translation Transformer in annotated-paper style, with accumulation."""

import copy
import math

import torch
from torch import nn

VOCAB = 120
PAD, START, END = 0, 1, 2


def clones(module, count):
    return nn.ModuleList([copy.deepcopy(module) for _ in range(count)])


def attention(query, key, value, mask, dropout):
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))
    scores = scores.masked_fill(~mask, -1e9)
    return dropout(scores.softmax(dim=-1)) @ value


class Attention(nn.Module):
    def __init__(self, heads, width, drop):
        super().__init__()
        self.heads = heads
        self.linears = clones(nn.Linear(width, width), 4)
        self.dropout = nn.Dropout(drop)

    def forward(self, query, key, value, mask):
        batch = query.size(0)
        query, key, value = [
            linear(x).view(batch, x.size(1), self.heads, -1).transpose(1, 2)
            for linear, x in zip(self.linears, (query, key, value), strict=False)
        ]
        mixed = attention(query, key, value, mask.unsqueeze(1), self.dropout)
        mixed = mixed.transpose(1, 2).contiguous().view(batch, query.size(2), -1)
        return self.linears[-1](mixed)


class Sublayer(nn.Module):
    def __init__(self, width, drop):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(drop)

    def forward(self, x, block):
        return x + self.dropout(block(self.norm(x)))


class FeedForward(nn.Sequential):
    def __init__(self, width, inner, drop):
        super().__init__(
            nn.Linear(width, inner),
            nn.ReLU(),
            nn.Dropout(drop),
            nn.Linear(inner, width),
        )


class EncoderLayer(nn.Module):
    def __init__(self, width, heads, inner, drop):
        super().__init__()
        self.self_attn = Attention(heads, width, drop)
        self.feed = FeedForward(width, inner, drop)
        self.sub = clones(Sublayer(width, drop), 2)

    def forward(self, x, mask):
        x = self.sub[0](x, lambda y: self.self_attn(y, y, y, mask))
        return self.sub[1](x, self.feed)


class DecoderLayer(nn.Module):
    def __init__(self, width, heads, inner, drop):
        super().__init__()
        self.self_attn = Attention(heads, width, drop)
        self.src_attn = Attention(heads, width, drop)
        self.feed = FeedForward(width, inner, drop)
        self.sub = clones(Sublayer(width, drop), 3)

    def forward(self, x, memory, src_mask, tgt_mask):
        x = self.sub[0](x, lambda y: self.self_attn(y, y, y, tgt_mask))
        x = self.sub[1](x, lambda y: self.src_attn(y, memory, memory, src_mask))
        return self.sub[2](x, self.feed)


class Embeddings(nn.Module):
    def __init__(self, vocab, width, drop, longest=256):
        super().__init__()
        self.lut = nn.Embedding(vocab, width)
        self.scale = math.sqrt(width)
        self.dropout = nn.Dropout(drop)
        place = torch.arange(longest).unsqueeze(1)
        rate = torch.exp(torch.arange(0, width, 2) * -(math.log(10000.0) / width))
        table = torch.zeros(longest, width)
        table[:, 0::2] = torch.sin(place * rate)
        table[:, 1::2] = torch.cos(place * rate)
        self.register_buffer("table", table)

    def forward(self, ids):
        return self.dropout(self.lut(ids) * self.scale + self.table[: ids.size(1)])


class EncoderDecoder(nn.Module):
    def __init__(self, vocab, width=64, heads=4, inner=128, depth=2, drop=0.1):
        super().__init__()
        self.src_embed = Embeddings(vocab, width, drop)
        self.tgt_embed = Embeddings(vocab, width, drop)
        self.encoder = clones(EncoderLayer(width, heads, inner, drop), depth)
        self.decoder = clones(DecoderLayer(width, heads, inner, drop), depth)
        self.enc_norm = nn.LayerNorm(width)
        self.dec_norm = nn.LayerNorm(width)
        self.generator = nn.Linear(width, vocab)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)

    def forward(self, src, tgt):
        src_mask = (src != PAD).unsqueeze(1)
        size = tgt.size(1)
        ahead = torch.ones(size, size, dtype=torch.bool, device=tgt.device).tril()
        tgt_mask = (tgt != PAD).unsqueeze(1) & ahead
        memory = self.src_embed(src)
        for layer in self.encoder:
            memory = layer(memory, src_mask)
        memory = self.enc_norm(memory)
        x = self.tgt_embed(tgt)
        for layer in self.decoder:
            x = layer(x, memory, src_mask, tgt_mask)
        return self.generator(self.dec_norm(x))


def build():
    model = EncoderDecoder(VOCAB)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, betas=(0.9, 0.98))
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)

    def train_step(batches):
        model.train()
        total = 0.0
        for src, tgt in batches:
            optimizer.zero_grad()
            logits = model(src, tgt[:, :-1])
            loss = criterion(logits.reshape(-1, VOCAB), tgt[:, 1:].reshape(-1))
            loss = loss / len(batches)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return total

    @torch.no_grad()
    def greedy(src, limit=40):
        model.eval()
        ys = torch.full((src.size(0), 1), START, dtype=torch.long, device=src.device)
        done = torch.zeros(src.size(0), dtype=torch.bool, device=src.device)
        for _ in range(limit):
            word = model(src, ys)[:, -1].argmax(-1)
            word = word.masked_fill(done, PAD)
            ys = torch.cat([ys, word.unsqueeze(1)], dim=1)
            done |= word == END
            if done.all():
                break
        return ys

    return {
        "model": model,
        "vocab_size": VOCAB,
        "train_step": train_step,
        "greedy": greedy,
    }
