"""A translation Transformer with cached keys and values for word-by-word decoding."""

import torch
from torch import nn


class Attn(nn.Module):
    def __init__(self, dim, heads, dropout):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def shape(self, x):
        bsz, length, dim = x.shape
        return x.view(bsz, length, self.heads, dim // self.heads).transpose(1, 2)

    def keys_values(self, x):
        return self.shape(self.k_proj(x)), self.shape(self.v_proj(x))

    def forward(self, query, keys, values, hide):
        q = self.shape(self.q_proj(query)) * (query.size(-1) // self.heads) ** -0.5
        scores = (q @ keys.transpose(2, 3)).masked_fill(hide, -1e8)
        probs = self.dropout(torch.softmax(scores, dim=-1))
        merged = (probs @ values).transpose(1, 2).reshape(query.shape)
        return self.out_proj(merged)


class EncoderLayer(nn.Module):
    def __init__(self, dim, heads, ffn, dropout):
        super().__init__()
        self.self_attn = Attn(dim, heads, dropout)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, ffn), nn.Linear(ffn, dim)
        self.final_layer_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, hide):
        h = self.self_attn(x, *self.self_attn.keys_values(x), hide)
        x = self.self_attn_layer_norm(x + self.dropout(h))
        h = self.fc2(torch.relu(self.fc1(x)))
        return self.final_layer_norm(x + self.dropout(h))


class DecoderLayer(EncoderLayer):
    def __init__(self, dim, heads, ffn, dropout):
        super().__init__(dim, heads, ffn, dropout)
        self.encoder_attn = Attn(dim, heads, dropout)
        self.encoder_attn_layer_norm = nn.LayerNorm(dim)

    def forward(self, x, enc, enc_hide, hide, cache=None):
        keys, values = self.self_attn.keys_values(x)
        if cache is not None:
            if "k" in cache:
                keys = torch.cat([cache["k"], keys], dim=2)
                values = torch.cat([cache["v"], values], dim=2)
            cache["k"], cache["v"] = keys, values
        h = self.self_attn(x, keys, values, hide)
        x = self.self_attn_layer_norm(x + self.dropout(h))
        h = self.encoder_attn(x, *self.encoder_attn.keys_values(enc), enc_hide)
        x = self.encoder_attn_layer_norm(x + self.dropout(h))
        h = self.fc2(torch.relu(self.fc1(x)))
        return self.final_layer_norm(x + self.dropout(h))


class LearnedEmbedding(nn.Module):
    def __init__(self, vocab, dim, dropout, max_positions=256):
        super().__init__()
        self.tokens = nn.Embedding(vocab, dim)
        self.positions = nn.Embedding(max_positions, dim)
        self.layernorm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids):
        places = torch.arange(ids.size(1), device=ids.device)
        x = self.tokens(ids) + self.positions(places)
        return self.dropout(self.layernorm(x))


class TransformerModel(nn.Module):
    def __init__(self, vocab, dim=64, heads=4, ffn=128, layers=2, dropout=0.1):
        super().__init__()
        self.encoder_embed = LearnedEmbedding(vocab, dim, dropout)
        self.decoder_embed = LearnedEmbedding(vocab, dim, dropout)
        self.encoder_layers = nn.ModuleList(
            [EncoderLayer(dim, heads, ffn, dropout) for _ in range(layers)]
        )
        self.decoder_layers = nn.ModuleList(
            [DecoderLayer(dim, heads, ffn, dropout) for _ in range(layers)]
        )
        self.output_projection = nn.Linear(dim, vocab)

    def encode(self, src):
        hide = src.eq(0)[:, None, None, :]
        x = self.encoder_embed(src)
        for layer in self.encoder_layers:
            x = layer(x, hide)
        return x, hide

    def decode(self, prev, enc, enc_hide):
        size = prev.size(1)
        future = torch.ones(size, size, device=prev.device).triu(1).bool()
        hide = future | prev.eq(0)[:, None, None, :]
        x = self.decoder_embed(prev)
        for layer in self.decoder_layers:
            x = layer(x, enc, enc_hide, hide)
        return self.output_projection(x)

    def decode_step(self, last, enc, enc_hide, caches):
        """The logits after one more word; caches holds what came before."""
        x = self.decoder_embed(last)
        nothing = torch.zeros(1, dtype=torch.bool, device=last.device)
        for layer, cache in zip(self.decoder_layers, caches, strict=True):
            x = layer(x, enc, enc_hide, nothing, cache)
        return self.output_projection(x[:, -1])

    def forward(self, src, prev):
        return self.decode(prev, *self.encode(src))


def build():
    vocab = 130
    model = TransformerModel(vocab)
    optimizer = torch.optim.Adam(model.parameters(), lr=7e-4, betas=(0.9, 0.98))

    def train_step(batches):
        model.train()
        optimizer.zero_grad()
        words = sum(int((tgt[:, 1:] != 0).sum()) for _, tgt in batches)
        for src, tgt in batches:
            lprobs = model(src, tgt[:, :-1]).log_softmax(-1)
            loss = nn.functional.nll_loss(
                lprobs.flatten(0, 1),
                tgt[:, 1:].flatten(),
                ignore_index=0,
                reduction="sum",
            )
            (loss / words).backward()
        optimizer.step()

    @torch.no_grad()
    def greedy(src, limit=40):
        model.eval()
        enc, enc_hide = model.encode(src)
        caches = [{} for _ in model.decoder_layers]
        last = src.new_full((src.size(0), 1), 1)
        finished = torch.zeros_like(last, dtype=torch.bool)
        steps = [last]
        for _ in range(limit):
            logits = model.decode_step(last, enc, enc_hide, caches)
            last = logits.argmax(-1, keepdim=True)
            steps.append(last.masked_fill(finished, 0))
            finished |= last.eq(2)
            if finished.all():
                break
        return torch.cat(steps, dim=1)

    return {
        "model": model,
        "vocab_size": vocab,
        "train_step": train_step,
        "greedy": greedy,
    }
