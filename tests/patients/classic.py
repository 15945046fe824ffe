"""Patients in the manner of tutorials since 2018: every part written by hand.

First the healthy Transformer, its training and its decoding. Then the sick ones: each
replaces one piece by what somebody once wrote there.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from annotated_transformer.doctor.patient import Batches, Ids, Patient
from tests.patients.cases import Case

PAD, BOS, EOS = 0, 1, 2
VOCAB_SIZE, N_LAYERS, N_HEADS, D_FF, DROPOUT = 97, 2, 4, 128, 0.1
WARMUP = 400


# The model


class LayerNorm(nn.Module):
    """Mean 0 and variance 1 over the features of each position."""

    def __init__(self, d_model: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = x.var(-1, keepdim=True, unbiased=False)
        return self.gain * (x - mean) / torch.sqrt(variance + 1e-6) + self.bias


class PositionalEncoding(nn.Module):
    """Sine and cosine of the position, at wavelengths from 2 pi on, added."""

    def __init__(self, d_model: int, max_len: int = 512):
        super().__init__()
        position = torch.arange(max_len).unsqueeze(1)
        angles = self.angles(position, torch.arange(0, d_model, 2), d_model)
        pe = torch.zeros(max_len, d_model)
        pe[:, 0::2] = torch.sin(angles)
        pe[:, 1::2] = torch.cos(angles)
        self.register_buffer("pe", pe.unsqueeze(0))
        self.dropout = nn.Dropout(DROPOUT)

    def angles(self, position: Tensor, even: Tensor, d_model: int) -> Tensor:
        return position / 10_000 ** (even / d_model)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pe[:, : x.size(1)]
        return self.dropout(x)


class Embeddings(nn.Module):
    """Token vectors of variance 1: small weights times the root of d_model."""

    def __init__(self, d_model: int):
        super().__init__()
        self.table = nn.Embedding(VOCAB_SIZE, d_model)
        nn.init.normal_(self.table.weight, std=d_model**-0.5)
        self.d_model = d_model

    def forward(self, ids: Ids) -> Tensor:
        return self.table(ids) * math.sqrt(self.d_model)


class MultiHeadAttention(nn.Module):
    """Four attentions side by side; in masks, True may be looked at."""

    def __init__(self, d_model: int):
        super().__init__()
        self.d_k = d_model // N_HEADS
        self.q_linear = nn.Linear(d_model, d_model)
        self.k_linear = nn.Linear(d_model, d_model)
        self.v_linear = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(DROPOUT)

    def split(self, x: Tensor) -> Tensor:
        x = x.view(x.size(0), x.size(1), N_HEADS, self.d_k)
        return x.transpose(1, 2)  # (batch, heads, length, d_k)

    def join(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2).contiguous()  # (batch, length, heads, d_k)
        return x.view(x.size(0), x.size(1), N_HEADS * self.d_k)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(self.d_k)

    def weights(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            # As good as minus infinity, but no NaN in a row where all is hidden.
            scores = scores.masked_fill(mask == 0, torch.finfo(scores.dtype).min)
        return F.softmax(scores, dim=-1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        q = self.split(self.q_linear(q))
        k = self.split(self.k_linear(k))
        v = self.split(self.v_linear(v))
        weights = self.dropout(self.weights(self.scores(q, k), mask))
        return self.out(self.join(torch.matmul(weights, v)))


class FeedForward(nn.Module):
    """Wider, clipped at zero, narrow again."""

    def __init__(self, d_model: int):
        super().__init__()
        self.linear1 = nn.Linear(d_model, D_FF)
        self.linear2 = nn.Linear(D_FF, d_model)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(F.relu(self.linear1(x))))


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each added to its input, then normalized."""

    def __init__(self, d_model: int, attention: type, norm: type):
        super().__init__()
        self.attention = attention(d_model)
        self.ff = FeedForward(d_model)
        self.norm1, self.norm2 = norm(d_model), norm(d_model)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm1(x + self.dropout(self.attention(x, x, x, mask)))
        return self.norm2(x + self.dropout(self.ff(x)))


class DecoderLayer(nn.Module):
    """The same, with attention to the encoder's output between the two."""

    def __init__(self, d_model: int, attention: type, norm: type):
        super().__init__()
        self.self_attention = attention(d_model)
        self.cross_attention = attention(d_model)
        self.ff = FeedForward(d_model)
        self.norm1, self.norm2, self.norm3 = (norm(d_model) for _ in range(3))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(
        self, x: Tensor, memory: Tensor, mask: Tensor, tgt_mask: Tensor
    ) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, tgt_mask)))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, memory, mask)))
        return self.norm3(x + self.dropout(self.ff(x)))


class Transformer(nn.Module):
    """Encoder and decoder: ids (batch, src) and (batch, tgt) to logits."""

    def __init__(
        self,
        d_model: int = 64,
        embeddings: type = Embeddings,
        positions: type = PositionalEncoding,
        attention: type = MultiHeadAttention,
        norm: type = LayerNorm,
        encoder_layer: type = EncoderLayer,
        decoder_layer: type = DecoderLayer,
    ):
        super().__init__()
        self.src_embed = nn.Sequential(embeddings(d_model), positions(d_model))
        self.tgt_embed = nn.Sequential(embeddings(d_model), positions(d_model))
        self.encoder = self.stack(lambda: encoder_layer(d_model, attention, norm))
        self.decoder = self.stack(lambda: decoder_layer(d_model, attention, norm))
        self.output = nn.Linear(d_model, VOCAB_SIZE)
        self.initialize()

    def stack(self, layer: Callable[[], nn.Module]) -> nn.ModuleList:
        return nn.ModuleList([layer() for _ in range(N_LAYERS)])

    def initialize(self) -> None:
        for name, p in self.named_parameters():
            if p.dim() > 1 and "embed" not in name:
                nn.init.xavier_uniform_(p)

    def padding_mask(self, query: Ids, key: Ids) -> Tensor:
        """True where the key is no padding, (batch, 1, query, key)."""
        mask = (key != PAD)[:, None, None, :]
        return mask.expand(-1, -1, query.size(1), -1)

    def causal_mask(self, length: int) -> Tensor:
        """True up to the query's own position, (length, length)."""
        return torch.tril(torch.ones(length, length)) == 1

    def encode(self, src: Ids) -> Tensor:
        x, mask = self.src_embed(src), self.padding_mask(src, src)
        for layer in self.encoder:
            x = layer(x, mask)
        return x

    def decode(self, memory: Tensor, src: Ids, tgt: Ids) -> Tensor:
        x, mask = self.tgt_embed(tgt), self.padding_mask(tgt, src)
        tgt_mask = self.padding_mask(tgt, tgt) & self.causal_mask(tgt.size(1))
        for layer in self.decoder:
            x = layer(x, memory, mask, tgt_mask)
        return x

    def forward(self, src: Ids, tgt: Ids) -> Tensor:
        return self.output(self.decode(self.encode(src), src, tgt))


# Training and decoding


class Training:
    """Adam, a rate that rises and falls, and updates from several small batches."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.optimizer = torch.optim.Adam(
            model.parameters(), lr=1.0, betas=(0.9, 0.98), eps=1e-9
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.rate)

    def rate(self, step: int) -> float:
        step += 1  # LambdaLR counts from 0
        return 64**-0.5 * min(step**-0.5, step * WARMUP**-1.5)

    def shift(self, tgt: Ids) -> tuple[Ids, Ids]:
        """What the decoder is given, and what it must say."""
        return tgt[:, :-1], tgt[:, 1:]

    def loss(self, logits: Tensor, labels: Ids) -> Tensor:
        """Cross entropy, summed over the labels that are no padding."""
        return F.cross_entropy(
            logits.reshape(-1, logits.size(-1)),
            labels.reshape(-1),
            ignore_index=PAD,
            reduction="sum",
        )

    def count(self, batches: Batches) -> int:
        """How many labels the whole batch has."""
        return sum(int((tgt[:, 1:] != PAD).sum()) for _, tgt in batches)

    def backward(self, batches: Batches) -> float:
        """Add up the gradients of all micro-batches; their loss per label."""
        total, n_labels = 0.0, self.count(batches)
        for src, tgt in batches:
            tgt_in, labels = self.shift(tgt)
            loss = self.loss(self.model(src, tgt_in), labels) / n_labels
            loss.backward()
            total += loss.item()
        return total

    def step(self, batches: Batches) -> float:
        """One update."""
        self.model.train()
        self.optimizer.zero_grad()
        loss = self.backward(batches)
        self.optimizer.step()
        self.schedule.step()
        return loss


class Greedy:
    """Always the likeliest next token, until each row has its end token."""

    def __init__(self, model: nn.Module):
        self.model = model

    def start(self, rows: int) -> Ids:
        return torch.full((rows, 1), BOS)

    @torch.no_grad()
    def __call__(self, src: Ids) -> Ids:
        """Ids (batch, length) after the start token, padded after the end token."""
        self.model.eval()
        ys = self.start(src.size(0))
        done = torch.zeros(src.size(0), dtype=torch.bool)
        for _ in range(src.size(1) + 20):
            next_word = self.model(src, ys)[:, -1].argmax(-1)
            next_word = next_word.masked_fill(done, PAD)
            ys = torch.cat([ys, next_word.unsqueeze(1)], dim=1)
            done = done | (next_word == EOS)
            if done.all():
                break
        return ys[:, 1:]


def patient(
    model: nn.Module, training: type = Training, greedy: type = Greedy
) -> Patient:
    """All that its author has: model, loss, training step and decoding."""
    trainer = training(model)
    return Patient(
        model=model,
        vocab_size=VOCAB_SIZE,
        pad=PAD,
        bos=BOS,
        eos=EOS,
        loss=trainer.loss,
        train_step=trainer.step,
        optimizer=trainer.optimizer,
        greedy=greedy(model),
    )


# The other healthy one: norms first, log-probabilities, smoothed targets


class PreNormEncoderLayer(EncoderLayer):
    def forward(self, x, mask):
        y = self.norm1(x)
        x = x + self.dropout(self.attention(y, y, y, mask))
        return x + self.dropout(self.ff(self.norm2(x)))


class PreNormDecoderLayer(DecoderLayer):
    def forward(self, x, memory, mask, tgt_mask):
        y = self.norm1(x)
        x = x + self.dropout(self.self_attention(y, y, y, tgt_mask))
        y = self.norm2(x)
        x = x + self.dropout(self.cross_attention(y, memory, memory, mask))
        return x + self.dropout(self.ff(self.norm3(x)))


class PreNormTransformer(Transformer):
    """Norms first, so a last norm after each stack; returns log-probabilities."""

    def __init__(self, d_model: int = 64, **parts: type):
        layers = {
            "encoder_layer": PreNormEncoderLayer,
            "decoder_layer": PreNormDecoderLayer,
        }
        super().__init__(d_model, **layers | parts)
        self.encoder_norm, self.decoder_norm = LayerNorm(d_model), LayerNorm(d_model)

    def forward(self, src, tgt):
        memory = self.encoder_norm(self.encode(src))
        x = self.decoder_norm(self.decode(memory, src, tgt))
        return F.log_softmax(self.output(x), dim=-1)


class SmoothedTraining(Training):
    """KL divergence from smoothed targets, in which padding has no part."""

    def smooth(self, labels: Ids, smoothing: float = 0.1) -> Tensor:
        target = torch.full((labels.size(0), VOCAB_SIZE), smoothing / (VOCAB_SIZE - 2))
        target.scatter_(1, labels.unsqueeze(1), 1.0 - smoothing)
        target[:, PAD] = 0.0
        return target.masked_fill((labels == PAD).unsqueeze(1), 0.0)

    def loss(self, logits, labels):
        log_probs = logits.reshape(-1, VOCAB_SIZE)
        return F.kl_div(log_probs, self.smooth(labels.reshape(-1)), reduction="sum")


HEALTHY = [
    Case(
        "classic: post-norm, logits",
        "",
        None,
        lambda: patient(Transformer()),
    ),
    Case(
        "classic: pre-norm, log-probabilities",
        "",
        None,
        lambda: patient(PreNormTransformer(), SmoothedTraining),
    ),
]
