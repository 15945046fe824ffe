"""A single stack for source and target, with word vectors from a given table."""

import torch
import torch.nn as nn
import torch.nn.functional as F


def word_vectors(num_words, size, seed=13):
    """The table of vectors to begin with, one row a word, padding at zero."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(num_words, size, generator=generator) * size**-0.5
    table[0] = 0.0
    return table


class SharedStackLayer(nn.Module):
    def __init__(self, size, heads, dropout):
        super().__init__()
        self.attention = nn.MultiheadAttention(
            size, heads, dropout=dropout, batch_first=True
        )
        self.expand = nn.Linear(size, 4 * size)
        self.reduce = nn.Linear(4 * size, size)
        self.before_attention = nn.LayerNorm(size)
        self.before_feed = nn.LayerNorm(size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, mask):
        y = self.before_attention(x)
        y, _ = self.attention(y, y, y, attn_mask=mask, need_weights=False)
        x = x + self.dropout(y)
        y = self.reduce(F.gelu(self.expand(self.before_feed(x))))
        return x + self.dropout(y)


class SharedStack(nn.Module):
    """A prefix language model: the source sees itself, the target what it may."""

    def __init__(self, num_words, size=64, heads=4, depth=3, dropout=0.1):
        super().__init__()
        self.heads = heads
        vectors = word_vectors(num_words, size)
        self.words = nn.Embedding.from_pretrained(vectors, padding_idx=0)
        self.source_places = nn.Embedding(128, size)
        self.target_places = nn.Embedding(128, size)
        for places in (self.source_places, self.target_places):
            nn.init.normal_(places.weight, std=0.05)
        self.layers = nn.ModuleList(
            [SharedStackLayer(size, heads, dropout) for _ in range(depth)]
        )
        self.norm = nn.LayerNorm(size)
        self.output = nn.Linear(size, num_words)
        self.dropout = nn.Dropout(dropout)

    def prefix_mask(self, src, tgt):
        """-1e9 where not to look, one (length, length) for each row and head."""
        s, t = src.size(1), tgt.size(1)
        blocked = torch.zeros(s + t, s + t, dtype=torch.bool, device=src.device)
        blocked[:s, s:] = True
        blocked[s:, s:] = torch.ones(t, t, device=src.device).triu(1).bool()
        padding = torch.cat([src, tgt], dim=1).eq(0).unsqueeze(1)
        blocked = (blocked | padding).repeat_interleave(self.heads, dim=0)
        return torch.zeros(blocked.shape, device=src.device).masked_fill(blocked, -1e9)

    def forward(self, src, tgt):
        s, t = src.size(1), tgt.size(1)
        source = self.words(src) + self.source_places.weight[:s]
        target = self.words(tgt) + self.target_places.weight[:t]
        x = self.dropout(torch.cat([source, target], dim=1))
        mask = self.prefix_mask(src, tgt)
        for layer in self.layers:
            x = layer(x, mask)
        return self.output(self.norm(x[:, s:]))


def build():
    num_words = 120
    model = SharedStack(num_words)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=1e-3)

    def learn(batches):
        model.train()
        optimizer.zero_grad()
        for src, tgt in batches:
            scores = model(src, tgt[:, :-1]).permute(0, 2, 1)
            loss = F.cross_entropy(scores, tgt[:, 1:], ignore_index=0)
            (loss / len(batches)).backward()
        optimizer.step()

    @torch.no_grad()
    def translate(src, at_most=30):
        model.eval()
        tgt = torch.ones_like(src[:, :1])
        open_rows = torch.ones(len(src), dtype=torch.bool, device=src.device)
        while tgt.size(1) < at_most and open_rows.any():
            best = model(src, tgt)[:, -1].argmax(-1)
            best = torch.where(open_rows, best, torch.zeros_like(best))
            tgt = torch.cat([tgt, best[:, None]], dim=1)
            open_rows = open_rows & (best != 2)
        return tgt

    return {
        "model": model,
        "vocab_size": num_words,
        "train_step": learn,
        "greedy": translate,
    }
