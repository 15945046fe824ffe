"""Annotated-paper classes with smoothed labels and the warm-up learning rate."""

import copy
import math

import torch
from torch import nn
from torch.nn.functional import log_softmax

MASKED = -1e9


class LayerNorm(nn.Module):
    def __init__(self, features, eps=1e-6):
        super().__init__()
        self.a_2 = nn.Parameter(torch.ones(features))
        self.b_2 = nn.Parameter(torch.zeros(features))
        self.eps = eps

    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        std = x.std(-1, keepdim=True)
        return self.a_2 * (x - mean) / (std + self.eps) + self.b_2


class Stack(nn.Module):
    def __init__(self, layer, n):
        super().__init__()
        self.layers = nn.ModuleList([copy.deepcopy(layer) for _ in range(n)])
        self.norm = LayerNorm(layer.size)

    def forward(self, x, *args):
        for layer in self.layers:
            x = layer(x, *args)
        return self.norm(x)


class MultiHeadedAttention(nn.Module):
    def __init__(self, h, d_model, dropout):
        super().__init__()
        self.d_k = d_model // h
        self.h = h
        self.w_q, self.w_k, self.w_v, self.w_o = (
            nn.Linear(d_model, d_model) for _ in range(4)
        )
        self.attn = None
        self.dropout = nn.Dropout(p=dropout)

    def forward(self, query, key, value, mask):
        nbatches = query.size(0)

        def split(x):
            return x.view(nbatches, -1, self.h, self.d_k).transpose(1, 2)

        q, k, v = split(self.w_q(query)), split(self.w_k(key)), split(self.w_v(value))
        scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(self.d_k)
        scores = scores.masked_fill(mask.unsqueeze(1) == 0, MASKED)
        p_attn = scores.softmax(dim=-1)
        self.attn = p_attn.detach()
        x = torch.matmul(self.dropout(p_attn), v)
        x = x.transpose(1, 2).contiguous().view(nbatches, -1, self.h * self.d_k)
        return self.w_o(x)


class Layer(nn.Module):
    """An encoder layer, or with a memory a decoder layer."""

    def __init__(self, size, h, d_ff, dropout, with_memory):
        super().__init__()
        self.size = size
        self.self_attn = MultiHeadedAttention(h, size, dropout)
        self.src_attn = MultiHeadedAttention(h, size, dropout) if with_memory else None
        self.w_1 = nn.Linear(size, d_ff)
        self.w_2 = nn.Linear(d_ff, size)
        self.norms = nn.ModuleList([LayerNorm(size) for _ in range(2 + with_memory)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, mask, memory=None, memory_mask=None):
        y = self.norms[0](x)
        x = x + self.dropout(self.self_attn(y, y, y, mask))
        if self.src_attn is not None:
            y = self.norms[1](x)
            x = x + self.dropout(self.src_attn(y, memory, memory, memory_mask))
        y = self.norms[-1](x)
        return x + self.dropout(self.w_2(self.dropout(self.w_1(y).relu())))


class PositionalEncoding(nn.Module):
    def __init__(self, d_model, dropout, max_len=600):
        super().__init__()
        self.dropout = nn.Dropout(p=dropout)
        pe = torch.zeros(max_len, d_model)
        position = torch.arange(0, max_len).unsqueeze(1)
        div_term = torch.exp(
            torch.arange(0, d_model, 2) * -(math.log(10000.0) / d_model)
        )
        pe[:, 0::2] = torch.sin(position * div_term)
        pe[:, 1::2] = torch.cos(position * div_term)
        self.register_buffer("pe", pe.unsqueeze(0))

    def forward(self, x):
        return self.dropout(x + self.pe[:, : x.size(1)])


class EncoderDecoder(nn.Module):
    def __init__(self, vocab, n=2, d_model=64, d_ff=128, h=4, dropout=0.1):
        super().__init__()
        self.d_model = d_model
        self.encoder = Stack(Layer(d_model, h, d_ff, dropout, False), n)
        self.decoder = Stack(Layer(d_model, h, d_ff, dropout, True), n)
        self.lut = nn.Embedding(vocab, d_model)
        self.position = PositionalEncoding(d_model, dropout)
        self.proj = nn.Linear(d_model, vocab)
        self.proj.weight = self.lut.weight
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)

    def embed(self, ids):
        return self.position(self.lut(ids) * math.sqrt(self.d_model))

    def encode(self, src, src_mask):
        return self.encoder(self.embed(src), src_mask)

    def decode(self, memory, src_mask, tgt, tgt_mask):
        return self.decoder(self.embed(tgt), tgt_mask, memory, src_mask)

    def forward(self, src, tgt):
        src_mask = (src != 0).unsqueeze(-2)
        tgt_mask = (tgt != 0).unsqueeze(-2) & subsequent_mask(tgt.size(-1), tgt.device)
        memory = self.encode(src, src_mask)
        return self.proj(self.decode(memory, src_mask, tgt, tgt_mask))


def subsequent_mask(size, device=None):
    shape = (1, size, size)
    return torch.triu(torch.ones(shape, device=device), diagonal=1) == 0


class LabelSmoothing(nn.Module):
    def __init__(self, size, padding_idx, smoothing):
        super().__init__()
        self.criterion = nn.KLDivLoss(reduction="sum")
        self.padding_idx = padding_idx
        self.smoothing = smoothing
        self.size = size

    def forward(self, x, target):
        dist = torch.full_like(x, self.smoothing / (self.size - 2))
        dist.scatter_(1, target.unsqueeze(1), 1.0 - self.smoothing)
        dist[:, self.padding_idx] = 0
        dist = dist.masked_fill((target == self.padding_idx).unsqueeze(1), 0.0)
        return self.criterion(x, dist)


def rate(step, model_size, factor, warmup):
    step = max(step, 1)
    return factor * model_size**-0.5 * min(step**-0.5, step * warmup**-1.5)


def build():
    vocab = 60
    model = EncoderDecoder(vocab)
    criterion = LabelSmoothing(vocab, padding_idx=0, smoothing=0.1)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=1.0, betas=(0.9, 0.98), eps=1e-9
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lr_lambda=lambda step: rate(step, model.d_model, 1.0, 200)
    )

    def train_step(batches):
        model.train()
        ntokens = sum((tgt[:, 1:] != 0).sum() for _, tgt in batches)
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for src, tgt in batches:
            tgt_y = tgt[:, 1:].contiguous().view(-1)
            out = log_softmax(model(src, tgt[:, :-1]), dim=-1)
            loss = criterion(out.contiguous().view(-1, vocab), tgt_y) / ntokens
            loss.backward()
            total += loss.item()
        optimizer.step()
        scheduler.step()
        return total

    def greedy_decode(src, max_len=40):
        model.eval()
        src_mask = (src != 0).unsqueeze(-2)
        with torch.no_grad():
            memory = model.encode(src, src_mask)
            ys = torch.ones(src.size(0), 1).type_as(src)
            for _ in range(max_len - 1):
                ahead = subsequent_mask(ys.size(1), ys.device)
                out = model.decode(memory, src_mask, ys, ahead)
                next_word = model.proj(out[:, -1]).argmax(dim=1)
                ys = torch.cat([ys, next_word.unsqueeze(1)], dim=1)
                if (ys == 2).any(dim=1).all():
                    break
        sentences = []
        for row in ys.tolist():
            sentences.append(row[: row.index(2) + 1] if 2 in row else row)
        return sentences

    return {
        "model": model,
        "vocab_size": vocab,
        "train_step": train_step,
        "greedy": greedy_decode,
    }
