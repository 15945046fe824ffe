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
        return sum(int((self.shift(tgt)[1] != PAD).sum()) for _, tgt in batches)

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


def sick(
    what: str,
    says: str,
    cause: str,
    *,
    transformer: type = Transformer,
    training: type = Training,
    greedy: type = Greedy,
    **parts,
) -> Case:
    """The healthy patient but for the piece that is given here."""
    return Case(
        f"classic: {what}",
        says,
        cause,
        lambda: patient(transformer(**parts), training, greedy),
    )


# Sick: embeddings and positions


class NeverAdded(PositionalEncoding):
    def forward(self, x):
        x.add(self.pe[:, : x.size(1)])  # gives a sum that nobody takes
        return self.dropout(x)


class IntegerDivision(PositionalEncoding):
    def angles(self, position, even, d_model):
        return position / 10_000 ** (even // d_model)


class Precedence(PositionalEncoding):
    def angles(self, position, even, d_model):
        return position / 10_000.0**even / d_model


class Unscaled(Embeddings):
    def forward(self, ids):
        return self.table(ids)


POSITIONS = [
    sick(
        "positions never added",
        "The positions are computed, and their sum with the embeddings is thrown away.",
        "positions_missing",
        positions=NeverAdded,
    ),
    sick(
        "integer division in the sinusoids",
        "2i // d_model is 0: all columns of the positions have the same wavelength.",
        "positions_wrong",
        positions=IntegerDivision,
    ),
    sick(
        "precedence in the sinusoids",
        "The parenthesis around 2i / d_model is missing: nearly all columns are flat.",
        "positions_wrong",
        positions=Precedence,
    ),
    sick(
        "embeddings unscaled",
        "Embeddings are not multiplied by the root of d_model; the sinusoids are 14 "
        "times larger at d_model 384.",
        "embeddings_small",
        embeddings=Unscaled,
        d_model=384,
    ),
]


# Sick: inside attention


class SplitByView(MultiHeadAttention):
    def split(self, x):
        return x.view(x.size(0), N_HEADS, x.size(1), self.d_k)


class JoinByView(MultiHeadAttention):
    def join(self, x):
        batch, heads, length, d_k = x.shape
        return x.contiguous().view(batch, length, heads * d_k)


class NoScale(MultiHeadAttention):
    def scores(self, q, k):
        return torch.matmul(q, k.transpose(-2, -1))


class ScaleTwice(MultiHeadAttention):
    def scores(self, q, k):
        q = q / math.sqrt(self.d_k)
        return torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(self.d_k)


class SoftmaxOverQueries(MultiHeadAttention):
    def weights(self, scores, mask):
        scores = scores.masked_fill(mask == 0, torch.finfo(scores.dtype).min)
        return F.softmax(scores, dim=-2)


class MaskAfterSoftmax(MultiHeadAttention):
    def weights(self, scores, mask):
        return F.softmax(scores, dim=-1) * mask


class TinyPositive(MultiHeadAttention):
    def weights(self, scores, mask):
        return F.softmax(scores.masked_fill(mask == 0, 1e-9), dim=-1)


class TinyNegative(MultiHeadAttention):
    def weights(self, scores, mask):
        return F.softmax(scores.masked_fill(mask == 0, -1e-9), dim=-1)


class AlwaysDropout(MultiHeadAttention):
    def weights(self, scores, mask):
        return F.dropout(super().weights(scores, mask), p=DROPOUT)


ATTENTION = [
    sick(
        "heads split by view",
        "Heads are cut by view without a transpose: each mixes several positions.",
        "heads_mixed",
        attention=SplitByView,
    ),
    sick(
        "heads joined by view",
        "Heads are joined by view without the transpose back: positions are mixed.",
        "heads_mixed",
        attention=JoinByView,
    ),
    sick(
        "scale forgotten",
        "Scores are not divided by the root of d_k.",
        "scale_missing",
        attention=NoScale,
    ),
    sick(
        "scale applied twice",
        "The query is divided by the root of d_k, and the scores once more.",
        "scale_twice",
        attention=ScaleTwice,
    ),
    sick(
        "softmax over the queries",
        "Softmax runs over dim=-2: each key's weights sum to 1, not each query's.",
        "softmax_axis",
        attention=SoftmaxOverQueries,
    ),
    sick(
        "mask multiplied after softmax",
        "The mask multiplies the weights after softmax, so they do not sum to 1.",
        "mask_after_softmax",
        attention=MaskAfterSoftmax,
    ),
    sick(
        "masked scores 1e-9",
        "Masked scores are set to 1e-9, which is zero, and not to -1e9.",
        "mask_tiny",
        attention=TinyPositive,
    ),
    sick(
        "masked scores -1e-9",
        "Masked scores are set to -1e-9, which is zero, and not to -1e9.",
        "mask_tiny",
        attention=TinyNegative,
    ),
    sick(
        "dropout in eval",
        "F.dropout is called without training=self.training: it is active in eval().",
        "dropout_in_eval",
        attention=AlwaysDropout,
    ),
]


# Sick: masks


class CausalInverted(Transformer):
    def causal_mask(self, length):
        return torch.triu(torch.ones(length, length), diagonal=1) == 1


class CausalUnused(Transformer):
    def decode(self, memory, src, tgt):
        x, mask = self.tgt_embed(tgt), self.padding_mask(tgt, src)
        tgt_mask = self.padding_mask(tgt, tgt)
        tgt_mask & self.causal_mask(tgt.size(1))  # makes a third mask, assigned nowhere
        for layer in self.decoder:
            x = layer(x, memory, mask, tgt_mask)
        return x


class PaddingInverted(Transformer):
    def padding_mask(self, query, key):
        mask = (key == PAD)[:, None, None, :]
        return mask.expand(-1, -1, query.size(1), -1)


class PaddingOfQueries(Transformer):
    def padding_mask(self, query, key):
        mask = (query != PAD)[:, None, :, None]
        return mask.expand(-1, -1, -1, key.size(1))


class SeesTheNext(Transformer):
    def causal_mask(self, length):
        return torch.triu(torch.ones(length, length), diagonal=2) == 0


class CrossUnmasked(DecoderLayer):
    def forward(self, x, memory, mask, tgt_mask):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, tgt_mask)))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, memory, None)))
        return self.norm3(x + self.dropout(self.ff(x)))


MASKS = [
    sick(
        "causal mask inverted",
        "triu for tril: each position sees what comes after it, and not its past.",
        "mask_inverted",
        transformer=CausalInverted,
    ),
    sick(
        "causal mask off by one",
        "diagonal=2 for diagonal=1: each position sees the token that it must predict.",
        "mask_shifted",
        transformer=SeesTheNext,
    ),
    sick(
        "causal mask unused",
        "The causal mask is computed and never given to the decoder's layers.",
        "causal_mask_missing",
        transformer=CausalUnused,
    ),
    sick(
        "padding mask inverted",
        "== for !=: attention sees the padding and none of the words.",
        "mask_inverted",
        transformer=PaddingInverted,
    ),
    sick(
        "padding mask of the queries",
        "The padding mask lies along the queries: padded keys are seen.",
        "mask_axis",
        transformer=PaddingOfQueries,
    ),
    sick(
        "padding unmasked in cross-attention",
        "The source's padding mask is computed, and cross-attention gets None.",
        "padding_mask_missing",
        decoder_layer=CrossUnmasked,
    ),
]


# Sick: layers and how they are put together


class CrossToItself(DecoderLayer):
    def forward(self, x, memory, mask, tgt_mask):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, tgt_mask)))
        x = self.norm2(x + self.dropout(self.cross_attention(x, x, x, tgt_mask)))
        return self.norm3(x + self.dropout(self.ff(x)))


class NoResidualAttentionEncoder(EncoderLayer):
    def forward(self, x, mask):
        x = self.norm1(self.dropout(self.attention(x, x, x, mask)))
        return self.norm2(x + self.dropout(self.ff(x)))


class NoResidualAttentionDecoder(DecoderLayer):
    def forward(self, x, memory, mask, tgt_mask):
        x = self.norm1(self.dropout(self.self_attention(x, x, x, tgt_mask)))
        x = self.norm2(self.dropout(self.cross_attention(x, memory, memory, mask)))
        return self.norm3(x + self.dropout(self.ff(x)))


class NoResidualFeedForwardEncoder(EncoderLayer):
    def forward(self, x, mask):
        x = self.norm1(x + self.dropout(self.attention(x, x, x, mask)))
        return self.norm2(self.dropout(self.ff(x)))


class NoResidualFeedForwardDecoder(DecoderLayer):
    def forward(self, x, memory, mask, tgt_mask):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, tgt_mask)))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, memory, mask)))
        return self.norm3(self.dropout(self.ff(x)))


class NormOverPositions(LayerNorm):
    def forward(self, x):
        mean = x.mean(1, keepdim=True)
        variance = x.var(1, keepdim=True, unbiased=False)
        return self.gain * (x - mean) / torch.sqrt(variance + 1e-6) + self.bias


class NormOverAll(LayerNorm):
    def forward(self, x):
        mean = x.mean((1, 2), keepdim=True)
        variance = x.var((1, 2), keepdim=True, unbiased=False)
        return self.gain * (x - mean) / torch.sqrt(variance + 1e-6) + self.bias


class Swapped(Transformer):
    def forward(self, tgt, src):  # and is called with (src, tgt)
        return self.output(self.decode(self.encode(src), src, tgt))


class Detached(Transformer):
    def forward(self, src, tgt):
        memory = self.encode(src).detach()
        return self.output(self.decode(memory, src, tgt))


class PythonList(Transformer):
    def stack(self, layer):
        return [layer() for _ in range(N_LAYERS)]


class OneLayerTwice(Transformer):
    def stack(self, layer):
        return nn.ModuleList([layer()] * N_LAYERS)


class LargeStart(Transformer):
    def initialize(self):
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p, gain=100.0)


class LastNormsForgotten(PreNormTransformer):
    def forward(self, src, tgt):
        x = self.decode(self.encode(src), src, tgt)
        return F.log_softmax(self.output(x), dim=-1)


def swapped() -> Patient:
    """Its author brings no training step: there, the lengths would not fit."""
    model = Swapped()
    return Patient(model=model, vocab_size=VOCAB_SIZE, greedy=Greedy(model))


LAYERS = [
    sick(
        "cross-attention to itself",
        "Cross-attention takes keys and values from the decoder, not from the memory.",
        "memory_ignored",
        decoder_layer=CrossToItself,
    ),
    sick(
        "no residual around attention",
        "The input is not added to the output of attention.",
        "residual_missing",
        encoder_layer=NoResidualAttentionEncoder,
        decoder_layer=NoResidualAttentionDecoder,
    ),
    sick(
        "no residual around feed-forward",
        "The input is not added to the output of the feed-forward layer.",
        "residual_missing",
        encoder_layer=NoResidualFeedForwardEncoder,
        decoder_layer=NoResidualFeedForwardDecoder,
    ),
    sick(
        "norm over the positions",
        "LayerNorm takes mean and variance over the positions, dim=1.",
        "norm_axis",
        norm=NormOverPositions,
    ),
    sick(
        "norm over positions and features",
        "LayerNorm takes one mean and one variance over the whole sentence.",
        "norm_axis",
        norm=NormOverAll,
    ),
    Case(
        "classic: source and target swapped",
        "forward takes (tgt, src) and is called with (src, tgt).",
        "swapped",
        swapped,
    ),
    sick(
        "encoder detached",
        "The encoder's output is detached: no gradient reaches the encoder.",
        "encoder_detached",
        transformer=Detached,
    ),
    sick(
        "layers in a list",
        "Layers are in a Python list: their parameters are not the model's.",
        "unregistered",
        transformer=PythonList,
    ),
    sick(
        "[layer] * N",
        "nn.ModuleList([layer] * N) holds one layer N times.",
        "shared_layer",
        transformer=OneLayerTwice,
    ),
    sick(
        "initialization 100 times too large",
        "All matrices start with a gain of 100 in place of 1.",
        "init_large",
        transformer=LargeStart,
    ),
    sick(
        "last norms forgotten",
        "Pre-norm's last norms are made in the constructor and never called.",
        "unused_parameters",
        transformer=LastNormsForgotten,
        training=SmoothedTraining,
    ),
]


# Sick: labels and loss


class Unshifted(Training):
    def shift(self, tgt):
        return tgt, tgt


class ShiftedTwice(Training):
    def shift(self, tgt):
        tgt_in, labels = tgt[:, :-1], tgt[:, 1:]
        return tgt_in[:, :-1], labels[:, 1:]  # as if the labels were the inputs


class NoEndToken(Training):
    def shift(self, tgt):
        tgt = tgt.masked_fill(tgt == EOS, PAD)
        return tgt[:, :-1], tgt[:, 1:]


class PaddingCounts(Training):
    def loss(self, logits, labels):
        logits = logits.reshape(-1, logits.size(-1))
        return F.cross_entropy(logits, labels.reshape(-1), reduction="sum")


class SoftmaxFirst(Training):
    def loss(self, logits, labels):
        return super().loss(F.softmax(logits, dim=-1), labels)


class MeanOverPadding(SmoothedTraining):
    def count(self, batches):
        return sum(self.shift(tgt)[1].numel() for _, tgt in batches)


LABELS = [
    sick(
        "labels not shifted",
        "The decoder is given the very tokens that it must say.",
        "labels_not_shifted",
        training=Unshifted,
    ),
    sick(
        "labels shifted twice",
        "Labels are shifted a second time: each is the token after the next.",
        "labels_shifted_twice",
        training=ShiftedTwice,
    ),
    sick(
        "no end token in training",
        "The end token is cut from every target: the model never learns to stop.",
        "end_token_untrained",
        training=NoEndToken,
    ),
    sick(
        "padding in the loss",
        "Cross entropy lacks ignore_index: the model learns to say padding.",
        "padding_in_loss",
        training=PaddingCounts,
    ),
    sick(
        "softmax before cross entropy",
        "Cross entropy takes a softmax of what is one already.",
        "softmax_twice",
        training=SoftmaxFirst,
    ),
    sick(
        "mean over padding",
        "The summed loss is divided by all positions, with the padded ones.",
        "mean_over_padding",
        transformer=PreNormTransformer,
        training=MeanOverPadding,
    ),
]


# Sick: updates and decoding


class Undivided(Training):
    def backward(self, batches):
        total = 0.0
        for src, tgt in batches:
            tgt_in, labels = self.shift(tgt)
            n_labels = int((labels != PAD).sum())  # of this piece alone
            loss = self.loss(self.model(src, tgt_in), labels) / n_labels
            loss.backward()
            total += loss.item()
        return total


class ScheduleInTheLoop(Training):
    def step(self, batches):
        self.model.train()
        self.optimizer.zero_grad()
        total, n_labels = 0.0, self.count(batches)
        for i, (src, tgt) in enumerate(batches, start=1):
            tgt_in, labels = self.shift(tgt)
            loss = self.loss(self.model(src, tgt_in), labels) / n_labels
            loss.backward()
            total += loss.item()
            if i == len(batches):
                self.optimizer.step()
            self.schedule.step()
        return total


class ZeroedTooLate(Training):
    def step(self, batches):
        self.model.train()
        loss = self.backward(batches)
        self.optimizer.zero_grad()
        self.optimizer.step()
        self.schedule.step()
        return loss


class ZeroedInTheLoop(Training):
    def backward(self, batches):
        total, n_labels = 0.0, self.count(batches)
        for src, tgt in batches:
            tgt_in, labels = self.shift(tgt)
            loss = self.loss(self.model(src, tgt_in), labels) / n_labels
            self.optimizer.zero_grad()
            loss.backward()
            total += loss.item()
        return total


class NeverZeroed(Training):
    def step(self, batches):
        self.model.train()
        loss = self.backward(batches)
        self.optimizer.step()
        self.schedule.step()
        return loss


class RateZero(Training):
    def rate(self, step):
        return 1e-3 * min(1.0, step / WARMUP)  # 0 at step 0

    def step(self, batches):
        self.model.train()
        self.optimizer.zero_grad()
        loss = self.backward(batches)
        self.optimizer.step()  # and the schedule stays at step 0
        return loss


class StartsWithPadding(Greedy):
    def start(self, rows):
        return torch.zeros(rows, 1, dtype=torch.long)


class NeverStops(Greedy):
    @torch.no_grad()
    def __call__(self, src):
        self.model.eval()
        ys = self.start(src.size(0))
        for _ in range(src.size(1) + 20):
            next_word = self.model(src, ys)[:, -1].argmax(-1)
            ys = torch.cat([ys, next_word.unsqueeze(1)], dim=1)
        return ys[:, 1:]


class StopsAtTheFirst(Greedy):
    @torch.no_grad()
    def __call__(self, src):
        self.model.eval()
        ys = self.start(src.size(0))
        for _ in range(src.size(1) + 20):
            next_word = self.model(src, ys)[:, -1].argmax(-1)
            ys = torch.cat([ys, next_word.unsqueeze(1)], dim=1)
            if (next_word == EOS).any():
                break
        return ys[:, 1:]


UPDATES = [
    sick(
        "accumulation not divided",
        "Each micro-batch has its own mean, and their gradients are summed.",
        "accumulation_not_divided",
        training=Undivided,
    ),
    sick(
        "schedule advances with each micro-batch",
        "schedule.step() stands in the loop over micro-batches.",
        "schedule_per_microbatch",
        training=ScheduleInTheLoop,
    ),
    sick(
        "gradients zeroed too late",
        "zero_grad() stands between backward() and step(): no gradient is left.",
        "no_update",
        training=ZeroedTooLate,
    ),
    sick(
        "gradients zeroed in the loop",
        "zero_grad() stands in the loop over micro-batches: the last one alone counts.",
        "gradients_cleared",
        training=ZeroedInTheLoop,
    ),
    sick(
        "gradients never zeroed",
        "zero_grad() is not called: each update adds all gradients before it.",
        "gradients_kept",
        training=NeverZeroed,
    ),
    sick(
        "rate zero",
        "The rate rises from 0, but the schedule is never advanced.",
        "rate_zero",
        training=RateZero,
    ),
    sick(
        "decoding starts with padding",
        "Decoding starts from torch.zeros, which is padding; training starts with BOS.",
        "start_token",
        greedy=StartsWithPadding,
    ),
    sick(
        "decoding stops at the first end",
        "The batch ends when any row has its end token; the others are cut off.",
        "batch_ends_early",
        greedy=StopsAtTheFirst,
    ),
    sick(
        "decoding never stops",
        "Decoding goes on to its longest length, past the end token.",
        "end_token_ignored",
        greedy=NeverStops,
    ),
]

SICK = POSITIONS + ATTENTION + MASKS + LAYERS + LABELS + UPDATES
