"""Encoder-decoder with an incremental state for decoding, time-first layers."""

import math

import torch
import torch.nn.functional as F
from torch import nn

PAD, BOS, EOS = 0, 1, 2


def make_positions(tokens, first=0):
    """Positions count the real words; padding stays at position 0."""
    mask = tokens.ne(PAD).long()
    return torch.cumsum(mask, dim=1) * mask + first * mask


class MultiheadAttention(nn.Module):
    def __init__(self, embed_dim, num_heads, dropout):
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.scaling = self.head_dim**-0.5
        self.k_proj = nn.Linear(embed_dim, embed_dim)
        self.v_proj = nn.Linear(embed_dim, embed_dim)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        self.dropout = nn.Dropout(dropout)
        for proj in (self.k_proj, self.v_proj, self.q_proj):
            nn.init.xavier_uniform_(proj.weight, gain=1 / math.sqrt(2))
        nn.init.xavier_uniform_(self.out_proj.weight)

    def _heads(self, x):
        """(time, batch, dim) -> (batch, heads, time, head_dim)"""
        time, bsz, _ = x.shape
        x = x.view(time, bsz, self.num_heads, self.head_dim)
        return x.permute(1, 2, 0, 3)

    def forward(self, query, source, key_padding, attn_mask=None, state=None):
        time, bsz, dim = query.shape
        q = self._heads(self.q_proj(query) * self.scaling)
        if state is not None and state.get("static"):
            k, v = state["k"], state["v"]
        else:
            k, v = self._heads(self.k_proj(source)), self._heads(self.v_proj(source))
            if state is not None:
                if "k" in state:
                    k = torch.cat([state["k"], k], dim=2)
                    v = torch.cat([state["v"], v], dim=2)
                state["k"], state["v"] = k, v
        weights = torch.matmul(q, k.transpose(-1, -2))
        if attn_mask is not None:
            weights = weights + attn_mask
        if key_padding is not None:
            weights = weights.masked_fill(key_padding[:, None, None, :], -1e9)
        weights = self.dropout(F.softmax(weights.float(), dim=-1).type_as(weights))
        out = torch.matmul(weights, v).permute(2, 0, 1, 3).reshape(time, bsz, dim)
        return self.out_proj(out)


class EncoderLayer(nn.Module):
    def __init__(self, dim, heads, ffn_dim, dropout):
        super().__init__()
        self.self_attn = MultiheadAttention(dim, heads, dropout)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, ffn_dim)
        self.fc2 = nn.Linear(ffn_dim, dim)
        self.final_layer_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, padding):
        residual = x
        x = self.self_attn_layer_norm(x)
        x = residual + self.dropout(self.self_attn(x, x, padding))
        residual = x
        x = F.relu(self.fc1(self.final_layer_norm(x)))
        return residual + self.dropout(self.fc2(x))


class DecoderLayer(EncoderLayer):
    def __init__(self, dim, heads, ffn_dim, dropout):
        super().__init__(dim, heads, ffn_dim, dropout)
        self.encoder_attn = MultiheadAttention(dim, heads, dropout)
        self.encoder_attn_layer_norm = nn.LayerNorm(dim)

    def forward(self, x, enc, enc_padding, padding, attn_mask, state=None):
        own = None if state is None else state["self"]
        other = None if state is None else state["cross"]
        residual = x
        x = self.self_attn_layer_norm(x)
        x = self.self_attn(x, x, padding, attn_mask, own)
        x = residual + self.dropout(x)
        residual = x
        x = self.encoder_attn_layer_norm(x)
        x = self.encoder_attn(x, enc, enc_padding, state=other)
        if other is not None:
            other["static"] = True
        x = residual + self.dropout(x)
        residual = x
        x = F.relu(self.fc1(self.final_layer_norm(x)))
        return residual + self.dropout(self.fc2(x))


class TransformerModel(nn.Module):
    def __init__(self, vocab, dim=64, heads=4, ffn_dim=128, layers=2, dropout=0.1):
        super().__init__()
        self.embed_scale = math.sqrt(dim)
        self.embed_tokens = nn.Embedding(vocab, dim, padding_idx=PAD)
        self.embed_positions = nn.Embedding(300, dim, padding_idx=0)
        for table in (self.embed_tokens, self.embed_positions):
            nn.init.normal_(table.weight, mean=0, std=dim**-0.5)
            nn.init.constant_(table.weight[0], 0)
        sizes = (dim, heads, ffn_dim, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(layers))
        self.encoder_norm = nn.LayerNorm(dim)
        self.decoder_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def embed(self, tokens, first=0):
        x = self.embed_scale * self.embed_tokens(tokens)
        x = x + self.embed_positions(make_positions(tokens, first))
        return self.dropout(x).transpose(0, 1)

    def encode(self, src_tokens):
        padding = src_tokens.eq(PAD)
        x = self.embed(src_tokens)
        for layer in self.encoder:
            x = layer(x, padding)
        return self.encoder_norm(x), padding

    def output(self, x):
        x = self.decoder_norm(x).transpose(0, 1)
        return F.linear(x, self.embed_tokens.weight)

    def decode(self, prev, enc, enc_padding):
        size = prev.size(1)
        causal = torch.full((size, size), float("-inf"), device=prev.device).triu(1)
        x = self.embed(prev)
        padding = prev.eq(PAD)
        for layer in self.decoder:
            x = layer(x, enc, enc_padding, padding, causal)
        return self.output(x)

    def step(self, last, place, enc, enc_padding, states):
        x = self.embed(last, first=place)
        for layer, state in zip(self.decoder, states, strict=True):
            x = layer(x, enc, enc_padding, None, None, state)
        return self.output(x)[:, -1]

    def forward(self, src_tokens, prev_output_tokens):
        enc, padding = self.encode(src_tokens)
        return self.decode(prev_output_tokens, enc, padding)


def build():
    vocab = 140
    model = TransformerModel(vocab)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98))

    def train_step(samples):
        model.train()
        optimizer.zero_grad()
        sample_size = 0
        for src, tgt in samples:
            target = tgt[:, 1:]
            lprobs = F.log_softmax(model(src, tgt[:, :-1]), dim=-1)
            loss = F.nll_loss(
                lprobs.reshape(-1, vocab),
                target.reshape(-1),
                ignore_index=PAD,
                reduction="sum",
            )
            loss.backward()
            sample_size += int(target.ne(PAD).sum())
        for p in model.parameters():
            if p.grad is not None:
                p.grad.div_(sample_size)
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    @torch.no_grad()
    def generate(src, max_len=40):
        model.eval()
        enc, padding = model.encode(src)
        states = [{"self": {}, "cross": {}} for _ in model.decoder]
        last = src.new_full((src.size(0), 1), BOS)
        hypos = [[BOS] for _ in range(src.size(0))]
        done = [False] * src.size(0)
        for place in range(max_len):
            scores = model.step(last, place, enc, padding, states)
            scores[:, PAD] = -math.inf
            last = scores.argmax(dim=-1, keepdim=True)
            for i, word in enumerate(last.squeeze(1).tolist()):
                if not done[i]:
                    hypos[i].append(word)
                    done[i] = word == EOS
            if all(done):
                break
        return hypos

    return {
        "model": model,
        "vocab_size": vocab,
        "train_step": train_step,
        "greedy": generate,
    }
