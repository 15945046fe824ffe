"""The compact style's patients, each with one fault that somebody really made."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from annotated_transformer.doctor.patient import Patient
from tests.patients.cases import Case
from tests.patients.compact import (
    BOS,
    EOS,
    GPT,
    PAD,
    TEXTS,
    UNK,
    BeamSearch,
    Block,
    CausalSelfAttention,
    Characters,
    Config,
    CrossAttention,
    DecoderBlock,
    RMSNorm,
    RotarySelfAttention,
    RotaryTranslator,
    SelfAttention,
    Trainer,
    Translator,
    decoder,
    greedy,
    greedy_without_cache,
    reversals,
    rotate,
    swap,
    translator,
)


def sick(what: str, says: str, cause: str, build: Callable[[], Patient]) -> Case:
    """A patient of this style."""
    return Case(f"compact: {what}", says, cause, build)


def rotary(attention: type = RotarySelfAttention, **parts) -> Patient:
    """The rotary translator with this self-attention."""
    model = swap(RotaryTranslator(), RotarySelfAttention, attention)
    return translator(model, **{"search": greedy_without_cache} | parts)


def fused(attention: type) -> Patient:
    """The translator with this self-attention, in encoder and decoder."""
    return translator(swap(Translator(), SelfAttention, attention))


# Sick: the cache


class Restarted(Translator):
    def embed(self, ids, wpe, start=0):
        return super().embed(ids, wpe)  # start is left out


class RotaryRestarted(RotarySelfAttention):
    def project(self, x, start):
        return super().project(x, 0)


class OnlyTheFirstKey(Translator):
    def causal(self, new, old):
        # As is_causal=True does: one query, many keys, and it sees the first alone.
        return torch.ones(new, old + new, dtype=torch.bool).tril()


class UnmaskedSteps(Translator):
    def step(self, ids, state):
        return super().step(ids, replace(state, mask=torch.ones_like(state.mask)))


class CachesMixedUp(Translator):
    def step(self, ids, state):
        if state.length == 0:
            return super().step(ids, state)
        # Of the four tensors kept in each layer, cross-attention gets the first two.
        mixed = replace(state, cross=state.past, mask=state.mask[..., :1])
        logits, after = super().step(ids, mixed)
        return logits, replace(state, past=after.past)


class PastStays(Translator):
    def reorder(self, state, rows):
        moved = super().reorder(state, rows)
        # Only at the start, when each sentence becomes several beams, it moves.
        return replace(moved, past=state.past) if state.length else moved


class MemoryTiled(Translator):
    def encode(self, src, mask):
        self.memory = super().encode(src, mask)
        return self.memory

    def reorder(self, state, rows):
        times = -(-len(rows) // len(self.memory))
        memory = self.memory.repeat(times, 1, 1)[: len(rows)]  # whatever the rows are
        cross = [block.cross.keys_values(memory) for block in self.decoder]
        return replace(super().reorder(state, rows), cross=cross)


CACHES = [
    sick(
        "positions restart in the cache",
        "Each new token gets the position 0 when it is decoded alone.",
        "cache_positions",
        lambda: translator(Restarted(), search=greedy_without_cache),
    ),
    sick(
        "rotary positions restart in the cache",
        "Each new query and key is turned as if it stood at position 0.",
        "cache_positions",
        lambda: rotary(RotaryRestarted),
    ),
    sick(
        "is_causal with one query",
        "With one query and many keys, the causal mask leaves the first key alone.",
        "cache_wrong",
        lambda: translator(OnlyTheFirstKey(), search=greedy_without_cache),
    ),
    sick(
        "no padding mask in the cache",
        "Decoding with the cache looks at the source's padding.",
        "cache_wrong",
        lambda: translator(UnmaskedSteps(), search=greedy_without_cache),
    ),
    sick(
        "caches mixed up",
        "From the second token on, cross-attention reads self-attention's cache.",
        "cache_wrong",
        lambda: translator(CachesMixedUp(), search=greedy_without_cache),
    ),
    sick(
        "past not reordered",
        "Beams change places, and their keys and values stay where they were.",
        "cache_not_reordered",
        lambda: translator(PastStays()),
    ),
    sick(
        "memory tiled for the beams",
        "Cross-attention's keys are made again from the sources in their first order.",
        "cache_not_reordered",
        lambda: translator(MemoryTiled()),
    ),
]


# Sick: search


class ForgetsScores(BeamSearch):
    def extend(self, scores, log_probs):
        alive = torch.where(scores > -torch.inf, 0.0, scores)
        return super().extend(alive, log_probs)


class ForgetsHistories(BeamSearch):
    def follow(self, ids, state, rows):
        return ids, self.model.reorder(state, rows)


class ForgetsTheCache(BeamSearch):
    def follow(self, ids, state, rows):
        return ids[rows], state


class TiledRows(BeamSearch):
    def rows(self, n, k):
        return torch.arange(n).repeat(k)  # 0 1 2 0 1 2, and beams lie 0 0 1 1 2 2


class StartsWithEnd(BeamSearch):
    first = EOS


@torch.no_grad()
def first_position(model, src):
    """Greedy search that reads the logits of the first position."""
    model.eval()
    ids = src.new_full((len(src), 1), BOS)
    while ids.size(1) < src.size(1) + 20 and not (ids == EOS).any(1).all():
        best = model(src, ids)[:, 0].argmax(-1)
        ids = torch.cat([ids, best[:, None]], 1)
    return ids[:, 1:]


SEARCHES = [
    sick(
        "beams forget their scores",
        "Beams are ranked by their last token alone: log-probabilities do not add up.",
        "beam_wrong",
        lambda: translator(Translator(), beam=ForgetsScores),
    ),
    sick(
        "beams forget their histories",
        "A beam that continues another keeps its own beginning.",
        "beam_wrong",
        lambda: translator(Translator(), beam=ForgetsHistories),
    ),
    sick(
        "beams tiled",
        "Sources are repeated as a whole, while beams of a sentence lie side by side.",
        "beam_wrong",
        lambda: translator(Translator(), beam=TiledRows),
    ),
    sick(
        "beams begin with the end token",
        "Beam search begins with the end token, as fairseq does; greedy and training "
        "begin with the start token.",
        "beam_wrong",
        lambda: translator(Translator(), beam=StartsWithEnd),
    ),
    sick(
        "beams leave the cache behind",
        "Beam search never reorders its cache, which it does not show.",
        "cache_not_reordered",
        lambda: replace(translator(Translator(), beam=ForgetsTheCache), cache=None),
    ),
    sick(
        "greedy begins with the end token",
        "Greedy search begins with the end token, training with the start token.",
        "start_token",
        lambda: translator(Translator(), search=partial(greedy, first=EOS)),
    ),
    sick(
        "greedy reads the first position",
        "The next token is always taken from the logits of the first position.",
        "greedy_wrong",
        lambda: rotary(search=first_position),
    ),
]


# Sick: attention and masks


class SplitByReshape(CausalSelfAttention):
    def split(self, x):
        B, T, C = x.shape
        return x.reshape(B, self.n_head, T, C // self.n_head)


class JoinByReshape(RotarySelfAttention):
    def join(self, x):
        B, H, T, D = x.shape
        return x.reshape(B, T, H * D)


class ScaledQuery(SelfAttention):
    def attend(self, q, k, v, mask):
        return super().attend(q * q.size(-1) ** -0.5, k, v, mask)


class DropoutAlways(SelfAttention):
    def attend(self, q, k, v, mask):
        return F.scaled_dot_product_attention(q, k, v, mask, self.dropout)


class NoScale(RotarySelfAttention):
    def attend(self, q, k, v, mask):
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k)
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return torch.einsum("bhqk,bhkd->bhqd", scores.softmax(-1), v)


class SoftmaxOverQueries(RotarySelfAttention):
    def attend(self, q, k, v, mask):
        scores = torch.einsum("bhqd,bhkd->bhkq", q, k) * q.size(-1) ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask.mT, torch.finfo(scores.dtype).min)
        return torch.einsum("bhkq,bhkd->bhqd", scores.softmax(-1), v)


class RotatedByHead(RotarySelfAttention):
    def project(self, x, start):
        q, k, v = SelfAttention.project(self, x, start)
        q, k = (rotate(y.transpose(1, 2), start).transpose(1, 2) for y in (q, k))
        return [q, k, v]


class InvertedMask(Translator):
    def start(self, src):
        state = super().start(src)
        return replace(state, mask=~state.mask)

    def encode(self, src, mask):
        return super().encode(src, ~mask)  # True = padding, as nn.Transformer has it


class MaskOfNumbers(Translator):
    def start(self, src):
        state = super().start(src)
        return replace(state, mask=state.mask.float())

    def encode(self, src, mask):
        return super().encode(src, mask.float())


class CrossUnmasked(CrossAttention):
    def forward(self, x, cross, mask):
        return super().forward(x, cross, None)


ATTENTION = [
    sick(
        "is_causal forgotten",
        "The fused call of the decoder alone has no is_causal=True.",
        "causal_mask_missing",
        lambda: decoder(swap(GPT(), CausalSelfAttention, SelfAttention)),
    ),
    sick(
        "heads split by reshape",
        "reshape(B, H, T, D) mixes positions into heads.",
        "heads_mixed",
        lambda: decoder(swap(GPT(), CausalSelfAttention, SplitByReshape)),
    ),
    sick(
        "heads joined by reshape",
        "reshape(B, T, H * D) without the transpose mixes heads into positions.",
        "heads_mixed",
        lambda: rotary(JoinByReshape),
    ),
    sick(
        "query scaled before the fused call",
        "F.scaled_dot_product_attention scales, too.",
        "scale_twice",
        lambda: fused(ScaledQuery),
    ),
    sick(
        "einsum without scale",
        "Scores of einsum are not divided by the root of d_k.",
        "scale_missing",
        lambda: rotary(NoScale),
    ),
    sick(
        "einsum with keys before queries",
        "The scores are (key, query), and softmax(-1) runs over the queries.",
        "softmax_axis",
        lambda: rotary(SoftmaxOverQueries),
    ),
    sick(
        "rotary positions along the heads",
        "Queries and keys are turned before the transpose: by head, not by position.",
        "positions_missing",
        lambda: rotary(RotatedByHead),
    ),
    sick(
        "padding mask inverted",
        "The fused call gets True for padding, where True means may look.",
        "mask_inverted",
        lambda: translator(InvertedMask()),
    ),
    sick(
        "padding mask of numbers",
        "The fused call adds a float mask: 1 and 0 hide nothing.",
        "padding_mask_missing",
        lambda: translator(MaskOfNumbers()),
    ),
    sick(
        "cross-attention unmasked",
        "The encoder masks the source's padding, cross-attention looks at it.",
        "padding_mask_missing",
        lambda: translator(swap(Translator(), CrossAttention, CrossUnmasked)),
    ),
    sick(
        "dropout of the fused call in eval",
        "The fused call gets dropout_p in eval(), too.",
        "dropout_in_eval",
        lambda: fused(DropoutAlways),
    ),
]


# Sick: layers and the whole


class PythonList(Translator):
    def stack(self, block):
        return [block() for _ in range(self.config.n_layer)]


class OneBlock(Translator):
    def stack(self, block):
        return nn.ModuleList([block()] * self.config.n_layer)


class NoResidual(Block):
    def forward(self, x, mask=None):
        x = x + self.drop(self.attention(self.norm_1(x), mask)[0])
        return self.drop(self.mlp(self.norm_2(x)))


class NormOverPositions(RMSNorm):
    def forward(self, x):
        return self.gain * x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)


class ContextForgotten(DecoderBlock):
    def forward(self, x, causal, past, cross=None, mask=None, context=None):
        y, past = self.attention(self.norm_1(x), causal, past)
        x = x + self.drop(y)
        if context is not None:  # it is optional, and the caller never gives it
            x = x + self.drop(self.cross(self.norm_2(x), context, mask))
        return x + self.drop(self.mlp(self.norm_3(x))), past


class NoPositions(Translator):
    def embed(self, ids, wpe, start=0):
        return self.drop(self.wte(ids))  # wpe is made, and never asked


class PositionsOfRows(GPT):
    def forward(self, ids):
        position = torch.arange(ids.size(0), device=ids.device)[:, None]
        x = self.drop(self.wte(ids) + self.wpe(position))
        return self.lm_head(self.norm(self.blocks(x)))


class Detached(Translator):
    @torch.no_grad()  # it was written for decoding
    def encode(self, src, mask):
        return super().encode(src, mask)


class OutputTooSmall(Translator):
    def __init__(self):
        super().__init__()
        c = self.config  # padding is never an output, so one column less
        self.lm_head = nn.Linear(c.n_embd, c.vocab_size - 1, bias=False)


class Probabilities(GPT):
    def forward(self, ids):
        return super().forward(ids).softmax(-1)


LAYERS = [
    sick(
        "blocks in a Python list",
        "Both stacks are lists, which no optimizer looks into.",
        "unregistered",
        lambda: translator(PythonList()),
    ),
    sick(
        "one block, n times",
        "[block] * n repeats one block in each stack.",
        "shared_layer",
        lambda: translator(OneBlock()),
    ),
    sick(
        "no residual around the MLP",
        "The encoder's blocks return what the MLP gives, without the sum before it.",
        "residual_missing",
        lambda: translator(swap(Translator(), Block, NoResidual)),
    ),
    sick(
        "RMSNorm over positions",
        "mean(1) runs over the positions, later ones included.",
        "norm_axis",
        lambda: decoder(swap(GPT(), RMSNorm, NormOverPositions)),
    ),
    sick(
        "context forgotten",
        "Cross-attention is skipped without a context, and nobody gives it one.",
        "memory_ignored",
        lambda: translator(swap(Translator(), DecoderBlock, ContextForgotten)),
    ),
    sick(
        "learned positions never added",
        "The embeddings of positions are made and never used.",
        "positions_missing",
        lambda: translator(NoPositions()),
    ),
    sick(
        "positions of rows",
        "arange(ids.size(0)) counts the rows of the batch: each row has one position.",
        "batch_axis",
        lambda: decoder(PositionsOfRows()),
    ),
    sick(
        "encoder without gradients",
        "encode() is under no_grad, as it is used in decoding: it learns nothing.",
        "encoder_detached",
        lambda: translator(Detached()),
    ),
    sick(
        "initialized 100 times too large",
        "The standard deviation is 2, not 0.02.",
        "init_large",
        lambda: translator(Translator(Config(std=2.0))),
    ),
    sick(
        "output without padding",
        "The output layer has 96 columns, the vocabulary 97 tokens.",
        "vocab_size",
        lambda: translator(OutputTooSmall()),
    ),
    sick(
        "probabilities into cross entropy",
        "The model ends in softmax, and cross_entropy applies another.",
        "softmax_twice",
        lambda: decoder(Probabilities()),
    ),
]


# Sick: labels and updates


class Unshifted(Trainer):
    def shift(self, tgt):
        return tgt[:, :-1], tgt[:, :-1]


class ShiftedTwice(Trainer):
    def loss(self, logits, labels):
        return super().loss(logits[:, :-1], labels[:, 1:])  # labels came shifted


class PaddingInLoss(Trainer):
    def loss(self, logits, labels):
        logits, labels = logits.flatten(0, 1), labels.flatten()
        return F.cross_entropy(logits, labels, reduction="sum")


class EndIsPadding(Trainer):
    pad = EOS


class MeanOfMeans(Trainer):
    def backward(self, loss, labels, pieces):
        (loss / (labels != PAD).sum() / len(pieces)).backward()


class Undivided(Trainer):
    def backward(self, loss, labels, pieces):
        (loss / (labels != PAD).sum()).backward()


class ScheduleEachPiece(Trainer):
    def backward(self, loss, labels, pieces):
        super().backward(loss, labels, pieces)
        self.done += 1
        if self.done == len(pieces):
            self.optimizer.step()
        self.scheduler.step()

    def begin(self):
        super().begin()
        self.done = 0

    def update(self):
        pass  # all is done in the loop


class NamesFilteredOut(Trainer):
    def groups(self):
        decay, plain = [], []
        for name, parameter in self.model.named_parameters():
            if name.endswith("proj.weight") or "mlp" in name:
                decay.append(parameter)
            elif name.endswith(("gain", "bias")):
                plain.append(parameter)
        return [{"params": decay}, {"params": plain, "weight_decay": 0.0}]


class RateInWholeNumbers(Trainer):
    def rate(self, step):
        return min(1, step // 4_000)


TRAINING = [
    sick(
        "labels not shifted",
        "Input and labels are both tgt[:, :-1].",
        "labels_not_shifted",
        lambda: translator(Translator(), Unshifted),
    ),
    sick(
        "labels shifted twice",
        "The data is shifted, and so does the loss, as Hugging Face's models do.",
        "labels_shifted_twice",
        lambda: decoder(GPT(), ShiftedTwice),
    ),
    sick(
        "padding in the loss",
        "cross_entropy has no ignore_index.",
        "padding_in_loss",
        lambda: translator(Translator(), PaddingInLoss),
    ),
    sick(
        "padding is the end token",
        "pad = eos, and the loss ignores padding: the end token is never learned.",
        "end_token_untrained",
        lambda: replace(decoder(GPT(), EndIsPadding), pad=EOS),
    ),
    sick(
        "accumulation not divided",
        "Each micro-batch adds the gradient of its own mean.",
        "accumulation_not_divided",
        lambda: decoder(GPT(), Undivided),
    ),
    sick(
        "schedule in the loop",
        "LambdaLR advances with each micro-batch.",
        "schedule_per_microbatch",
        lambda: translator(Translator(), ScheduleEachPiece),
    ),
    sick(
        "names filtered out",
        "Parameter groups go by name: qkv, q, kv and embeddings are in none.",
        "optimizer_incomplete",
        lambda: translator(Translator(), NamesFilteredOut),
    ),
    sick(
        "rate in whole numbers",
        "step // warmup is 0 for all of the warmup.",
        "rate_zero",
        lambda: translator(Translator(), RateInWholeNumbers),
    ),
]


# Sick: text


class Ascii(Characters):
    """Characters beyond ASCII are dropped."""

    def encode(self, text):
        return super().encode(text.encode("ascii", "ignore").decode())


class Words(Characters):
    """The words of the first text; all others are unknown."""

    def __init__(self, texts):
        self.itos = ["<pad>", "<s>", "</s>", "<unk>", *sorted(set(texts[0].split()))]
        self.stoi = {token: i for i, token in enumerate(self.itos)}

    def encode(self, text):
        return super().encode(text.split())

    def decode(self, ids):
        return " ".join(self.itos[i] for i in ids)


def reader(tokenizer: type[Characters]) -> Patient:
    """A model with a tokenizer, and nothing else."""
    tokens = {"tokenizer": tokenizer(TEXTS), "texts": TEXTS, "unk": UNK}
    return Patient(model=Translator(), vocab_size=97, bos=BOS, **tokens)


def without_end() -> Patient:
    """A model with a batch of its data, whose targets have lost their end."""
    src, tgt = reversals()
    tgt = tgt.masked_fill(tgt == EOS, PAD)[:, :-1]
    return Patient(model=Translator(), vocab_size=97, batch=(src, tgt))


TEXT = [
    sick(
        "tokenizer drops umlauts",
        "The text is made ASCII first: ä, ö, ü and ß are gone.",
        "tokenizer_lossy",
        lambda: reader(Ascii),
    ),
    sick(
        "vocabulary of one sentence",
        "The vocabulary knows the words of the first text only.",
        "unknown_words",
        lambda: reader(Words),
    ),
    sick(
        "batch without end tokens",
        "Targets of the batch have no end token.",
        "end_token_untrained",
        without_end,
    ),
]

SICK = CACHES + SEARCHES + ATTENTION + LAYERS + TRAINING + TEXT

NOTED = [
    sick(
        "mean of means",
        "Each micro-batch is divided by its own tokens, then by their number.",
        "mean_of_means",
        lambda: translator(Translator(), MeanOfMeans),
    ),
]
