"""Layers named after their Keras cousins, put together for translation."""

import numpy as np
import torch
from torch import nn


def positional_encoding(length, depth):
    half = depth / 2
    positions = np.arange(length)[:, np.newaxis]
    depths = np.arange(half)[np.newaxis, :] / half
    angle_rads = positions / (10000**depths)
    table = np.concatenate([np.sin(angle_rads), np.cos(angle_rads)], axis=-1)
    return torch.tensor(table, dtype=torch.float32)


class PositionalEmbedding(nn.Module):
    def __init__(self, vocab_size, d_model):
        super().__init__()
        self.d_model = d_model
        self.embedding = nn.Embedding(vocab_size, d_model, padding_idx=0)
        nn.init.uniform_(self.embedding.weight, -0.05, 0.05)
        self.register_buffer("pos_encoding", positional_encoding(512, d_model))

    def compute_mask(self, x):
        """Like nn.MultiheadAttention wants it: True is padding."""
        return torch.eq(x, 0)

    def forward(self, x):
        length = x.shape[1]
        x = self.embedding(x) * self.d_model**0.5
        return x + self.pos_encoding[None, :length, :]


class BaseAttention(nn.Module):
    def __init__(self, d_model, num_heads, rate):
        super().__init__()
        self.mha = nn.MultiheadAttention(
            d_model, num_heads, dropout=rate, batch_first=True
        )
        self.layernorm = nn.LayerNorm(d_model)


class CrossAttention(BaseAttention):
    def forward(self, x, context, context_padding):
        attn_output, _ = self.mha(
            x, context, context, key_padding_mask=context_padding, need_weights=False
        )
        return self.layernorm(x + attn_output)


class GlobalSelfAttention(BaseAttention):
    def forward(self, x, padding):
        attn_output, _ = self.mha(x, x, x, key_padding_mask=padding)
        return self.layernorm(x + attn_output)


class CausalSelfAttention(BaseAttention):
    def forward(self, x, padding):
        n = x.shape[1]
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(diagonal=1)
        attn_output, _ = self.mha(
            query=x, key=x, value=x, key_padding_mask=padding, attn_mask=future
        )
        return self.layernorm(x + attn_output)


class FeedForward(nn.Module):
    def __init__(self, d_model, dff, rate):
        super().__init__()
        self.seq = nn.Sequential(
            nn.Linear(d_model, dff),
            nn.ReLU(),
            nn.Linear(dff, d_model),
            nn.Dropout(rate),
        )
        self.layer_norm = nn.LayerNorm(d_model)

    def forward(self, x):
        return self.layer_norm(x + self.seq(x))


class EncoderLayer(nn.Module):
    def __init__(self, d_model, num_heads, dff, rate):
        super().__init__()
        self.self_attention = GlobalSelfAttention(d_model, num_heads, rate)
        self.ffn = FeedForward(d_model, dff, rate)

    def forward(self, x, padding):
        return self.ffn(self.self_attention(x, padding))


class DecoderLayer(nn.Module):
    def __init__(self, d_model, num_heads, dff, rate):
        super().__init__()
        self.causal_self_attention = CausalSelfAttention(d_model, num_heads, rate)
        self.cross_attention = CrossAttention(d_model, num_heads, rate)
        self.ffn = FeedForward(d_model, dff, rate)

    def forward(self, x, padding, context, context_padding):
        x = self.causal_self_attention(x, padding)
        x = self.cross_attention(x, context, context_padding)
        return self.ffn(x)


class Transformer(nn.Module):
    def __init__(self, num_layers, d_model, num_heads, dff, vocab_size, rate=0.1):
        super().__init__()
        self.src_embedding = PositionalEmbedding(vocab_size, d_model)
        self.tgt_embedding = PositionalEmbedding(vocab_size, d_model)
        self.dropout = nn.Dropout(rate)
        self.enc_layers = nn.ModuleList(
            [EncoderLayer(d_model, num_heads, dff, rate) for _ in range(num_layers)]
        )
        self.dec_layers = nn.ModuleList(
            [DecoderLayer(d_model, num_heads, dff, rate) for _ in range(num_layers)]
        )
        self.final_layer = nn.Linear(d_model, vocab_size)

    def forward(self, context, x):
        context_padding = self.src_embedding.compute_mask(context)
        padding = self.tgt_embedding.compute_mask(x)
        context = self.dropout(self.src_embedding(context))
        for layer in self.enc_layers:
            context = layer(context, context_padding)
        x = self.dropout(self.tgt_embedding(x))
        for layer in self.dec_layers:
            x = layer(x, padding, context, context_padding)
        return self.final_layer(x)


class CustomSchedule:
    def __init__(self, d_model, warmup_steps=400):
        self.d_model = d_model
        self.warmup_steps = warmup_steps

    def __call__(self, step):
        step = step + 1
        return self.d_model**-0.5 * min(step**-0.5, step * self.warmup_steps**-1.5)


def masked_loss(label, pred):
    mask = label != 0
    loss_object = nn.CrossEntropyLoss(reduction="none")
    loss = loss_object(pred.transpose(1, 2), label)
    loss = loss * mask
    return loss.sum() / mask.sum()


def build():
    transformer = Transformer(2, 64, 4, 128, vocab_size=160)
    optimizer = torch.optim.Adam(
        transformer.parameters(), lr=1.0, betas=(0.9, 0.98), eps=1e-9
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, CustomSchedule(64))

    def fit_one(batches):
        transformer.train()
        optimizer.zero_grad()
        for context, tgt in batches:
            pred = transformer(context, tgt[:, :-1])
            loss = masked_loss(tgt[:, 1:], pred) / len(batches)
            loss.backward()
        optimizer.step()
        schedule.step()

    def translate(src, max_tokens=32):
        transformer.eval()
        output = np.ones((len(src), 1), dtype=np.int64)
        ended = np.zeros(len(src), dtype=bool)
        for _ in range(max_tokens):
            with torch.no_grad():
                tokens = torch.from_numpy(output).to(src.device)
                predictions = transformer(src, tokens)[:, -1, :]
            predicted = predictions.argmax(dim=-1).cpu().numpy()
            predicted = np.where(ended, 0, predicted)
            output = np.concatenate([output, predicted[:, np.newaxis]], axis=1)
            ended |= predicted == 2
            if ended.all():
                break
        return output.tolist()

    return {
        "model": transformer,
        "vocab_size": 160,
        "train_step": fit_one,
        "greedy": translate,
    }
