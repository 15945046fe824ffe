"""A one-layer translation Transformer with convolution-like names, and its trainer."""

import math

import torch
from torch import nn

SPECIAL = {"<pad>": 0, "<s>": 1, "</s>": 2}


class Heads(nn.Module):
    def __init__(self, width, count, dropout):
        super().__init__()
        self.count = count
        self.query = nn.Linear(width, width)
        self.memory = nn.Linear(width, 2 * width)
        self.join = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, y, visible):
        b, n, w = x.shape
        m = y.shape[1]
        q = self.query(x).reshape(b, n, self.count, -1).permute(0, 2, 1, 3)
        kv = self.memory(y).reshape(b, m, 2, self.count, -1).permute(2, 0, 3, 1, 4)
        score = q.matmul(kv[0].transpose(2, 3)).div(math.sqrt(w / self.count))
        score = torch.where(visible, score, torch.full_like(score, -1e9))
        mix = self.dropout(score.softmax(3)).matmul(kv[1])
        return self.join(mix.permute(0, 2, 1, 3).reshape(b, n, w))


class Wrapped(nn.Module):
    """Post-norm residual around any module."""

    def __init__(self, width, inner, dropout):
        super().__init__()
        self.inner = inner
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, *rest):
        return self.norm(x + self.dropout(self.inner(x, *rest)))


class Pair(nn.Module):
    """The words of a language: embedding with sines and cosines."""

    def __init__(self, vocab, width, dropout):
        super().__init__()
        self.table = nn.Embedding(vocab, width)
        nn.init.normal_(self.table.weight, std=width**-0.5)
        self.width = width
        self.dropout = nn.Dropout(dropout)

    def waves(self, length, device):
        t = torch.arange(length, device=device).float().unsqueeze(1)
        w = torch.arange(self.width // 2, device=device).float()
        a = t * 10000 ** (-2 * w / self.width)
        return torch.stack([a.sin(), a.cos()], dim=2).flatten(1)

    def forward(self, ids):
        x = self.table(ids) * math.sqrt(self.width)
        return self.dropout(x + self.waves(ids.shape[1], ids.device))


class OneLayer(nn.Module):
    def __init__(self, vocab, width=128, heads=8, dropout=0.1):
        super().__init__()
        self.src = Pair(vocab, width, dropout)
        self.tgt = Pair(vocab, width, dropout)

        def ffn():
            return nn.Sequential(
                nn.Linear(width, 256), nn.ReLU(), nn.Linear(256, width)
            )

        def wrap(inner):
            return Wrapped(width, inner, dropout)

        self.e_look = wrap(Heads(width, heads, dropout))
        self.e_think = wrap(ffn())
        self.d_look = wrap(Heads(width, heads, dropout))
        self.d_cross = wrap(Heads(width, heads, dropout))
        self.d_think = wrap(ffn())
        self.score = nn.Linear(width, vocab)

    def encode(self, src):
        visible = (src > 0).unsqueeze(1).unsqueeze(1)
        x = self.src(src)
        return self.e_think(self.e_look(x, x, visible)), visible

    def forward(self, src, tgt):
        memory, src_visible = self.encode(src)
        n = tgt.shape[1]
        visible = torch.ones(n, n, dtype=torch.bool, device=tgt.device).tril()
        visible = visible & (tgt > 0).unsqueeze(1).unsqueeze(1)
        y = self.tgt(tgt)
        y = self.d_look(y, y, visible)
        y = self.d_cross(y, memory, src_visible)
        return self.score(self.d_think(y))


class Trainer:
    def __init__(self, vocab):
        self.model = OneLayer(vocab)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=8e-4)
        self.last_special = max(SPECIAL.values())

    def loss(self, logits, gold):
        """Mean negative log-probability of the words that count."""
        counts = gold > self.last_special
        logp = logits.log_softmax(dim=-1)
        picked = logp.gather(2, gold.unsqueeze(2)).squeeze(2)
        return -(picked * counts).sum() / counts.sum().clamp(min=1)

    def step(self, batches):
        self.model.train()
        self.optimizer.zero_grad()
        total = 0.0
        for src, tgt in batches:
            loss = self.loss(self.model(src, tgt[:, :-1]), tgt[:, 1:]) / len(batches)
            loss.backward()
            total += float(loss.detach())
        self.optimizer.step()
        return total

    @torch.no_grad()
    def greedy(self, src, longest=25):
        self.model.eval()
        out = src.new_full((len(src), 1), SPECIAL["<s>"])
        for _ in range(longest):
            step = self.model(src, out)[:, -1].argmax(1, keepdim=True)
            over = (out == SPECIAL["</s>"]).any(1, keepdim=True)
            out = torch.cat([out, step.masked_fill(over, SPECIAL["<pad>"])], 1)
            if (out == SPECIAL["</s>"]).any(1).all():
                break
        return [row[row != SPECIAL["<pad>"]] for row in out]


def build():
    trainer = Trainer(100)
    return {
        "model": trainer.model,
        "vocab_size": 100,
        "train_step": trainer.step,
        "greedy": trainer.greedy,
    }
