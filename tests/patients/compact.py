"""Patients in the manner of nanoGPT: fused calls, pre-norm, GELU, a cache, beams.

A translator (`Translator`) that decodes token by token, one with rotary positions and
einsum (`swap` puts them in), and a decoder alone (`GPT`). Sick ones subclass a part.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from annotated_transformer.doctor.patient import Cache, Patient
from tests.patients.cases import Case

PAD, BOS, EOS, UNK = range(4)
KeysValues = tuple[Tensor, Tensor]  # (B, H, T, D) each


@dataclass
class Config:
    vocab_size: int = 97
    n_layer: int = 2
    n_head: int = 4
    n_embd: int = 64
    block_size: int = 128
    dropout: float = 0.1
    std: float = 0.02


class RMSNorm(nn.Module):
    def __init__(self, n_embd: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(n_embd))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Attention(nn.Module):
    """What self- and cross-attention have in common. Masks: True = may look."""

    def __init__(self, c: Config):
        super().__init__()
        self.n_head, self.dropout = c.n_head, c.dropout
        self.proj = nn.Linear(c.n_embd, c.n_embd, bias=False)

    def split(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        return x.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)

    def join(self, x: Tensor) -> Tensor:
        B, H, T, D = x.shape
        return x.transpose(1, 2).reshape(B, T, H * D)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, mask, dropout)


class SelfAttention(Attention):
    def __init__(self, c: Config):
        super().__init__(c)
        self.qkv = nn.Linear(c.n_embd, 3 * c.n_embd, bias=False)

    def project(self, x: Tensor, start: int) -> list[Tensor]:
        return [self.split(part) for part in self.qkv(x).chunk(3, -1)]

    def forward(
        self, x: Tensor, mask: Tensor | None, past: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues]:
        q, k, v = self.project(x, past[0].size(2) if past else 0)
        if past:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        return self.proj(self.join(self.attend(q, k, v, mask))), (k, v)


class CausalSelfAttention(SelfAttention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True
        )


class CrossAttention(Attention):
    def __init__(self, c: Config):
        super().__init__(c)
        self.q = nn.Linear(c.n_embd, c.n_embd, bias=False)
        self.kv = nn.Linear(c.n_embd, 2 * c.n_embd, bias=False)

    def keys_values(self, memory: Tensor) -> KeysValues:
        k, v = self.kv(memory).chunk(2, -1)
        return self.split(k), self.split(v)

    def forward(self, x: Tensor, cross: KeysValues, mask: Tensor) -> Tensor:
        return self.proj(self.join(self.attend(self.split(self.q(x)), *cross, mask)))


def mlp(c: Config) -> nn.Module:
    return nn.Sequential(
        nn.Linear(c.n_embd, 4 * c.n_embd), nn.GELU(), nn.Linear(4 * c.n_embd, c.n_embd)
    )


class Block(nn.Module):
    """An encoder's layer, or a GPT's, as its attention is."""

    def __init__(self, c: Config, attention: SelfAttention):
        super().__init__()
        self.norm_1, self.norm_2 = RMSNorm(c.n_embd), RMSNorm(c.n_embd)
        self.attention, self.mlp = attention, mlp(c)
        self.drop = nn.Dropout(c.dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.drop(self.attention(self.norm_1(x), mask)[0])
        return x + self.drop(self.mlp(self.norm_2(x)))


class DecoderBlock(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.norm_1, self.norm_2, self.norm_3 = (RMSNorm(c.n_embd) for _ in range(3))
        self.attention, self.cross = SelfAttention(c), CrossAttention(c)
        self.mlp, self.drop = mlp(c), nn.Dropout(c.dropout)

    def forward(
        self,
        x: Tensor,
        causal: Tensor,
        past: KeysValues,
        cross: KeysValues,
        mask: Tensor,
    ) -> tuple[Tensor, KeysValues]:
        y, past = self.attention(self.norm_1(x), causal, past)
        x = x + self.drop(y)
        x = x + self.drop(self.cross(self.norm_2(x), cross, mask))
        return x + self.drop(self.mlp(self.norm_3(x))), past


def init_weights(module: nn.Module, std: float) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


@dataclass
class State:
    """What decoding keeps, a layer each: keys and values of the source, and so far."""

    cross: list[KeysValues]
    past: list[KeysValues]
    mask: Tensor  # (B, 1, 1, S), the source's

    @property
    def length(self) -> int:
        return self.past[0][0].size(2)


class Translator(nn.Module):
    def __init__(self, c: Config | None = None):
        super().__init__()
        self.config = c = c or Config()
        self.wte = nn.Embedding(c.vocab_size, c.n_embd)
        self.wpe_src = nn.Embedding(c.block_size, c.n_embd)
        self.wpe_tgt = nn.Embedding(c.block_size, c.n_embd)
        self.drop = nn.Dropout(c.dropout)
        self.encoder = self.stack(lambda: Block(c, SelfAttention(c)))
        self.decoder = self.stack(lambda: DecoderBlock(c))
        self.norm_src, self.norm_tgt = RMSNorm(c.n_embd), RMSNorm(c.n_embd)
        self.lm_head = nn.Linear(c.n_embd, c.vocab_size, bias=False)
        self.lm_head.weight = self.wte.weight
        self.apply(partial(init_weights, std=c.std))

    def stack(self, block: Callable[[], nn.Module]) -> nn.ModuleList:
        return nn.ModuleList(block() for _ in range(self.config.n_layer))

    def embed(self, ids: Tensor, wpe: nn.Embedding, start: int = 0) -> Tensor:
        position = torch.arange(start, start + ids.size(1), device=ids.device)
        return self.drop(self.wte(ids) + wpe(position))

    def encode(self, src: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(src, self.wpe_src)
        for block in self.encoder:
            x = block(x, mask)
        return self.norm_src(x)

    def start(self, src: Tensor) -> State:
        """What is known before the first target token."""
        mask = (src != PAD)[:, None, None]
        memory = self.encode(src, mask)
        cross = [block.cross.keys_values(memory) for block in self.decoder]
        return State(cross, [(k[:, :, :0], v[:, :, :0]) for k, v in cross], mask)

    def causal(self, new: int, old: int) -> Tensor:
        """What new positions may look at: (new, old + new)."""
        return torch.ones(new, old + new, dtype=torch.bool).tril(old)

    def decode(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits after each of the new tokens (B, new, V), and the state after all."""
        causal = self.causal(ids.size(1), state.length).to(ids.device)
        x, past = self.embed(ids, self.wpe_tgt, state.length), []
        for i, block in enumerate(self.decoder):
            x, kv = block(x, causal, state.past[i], state.cross[i], state.mask)
            past.append(kv)
        return self.lm_head(self.norm_tgt(x)), replace(state, past=past)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        return self.decode(tgt, self.start(src))[0]

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """One token for each row: logits (B, V) of the next."""
        logits, state = self.decode(ids[:, None], state)
        return logits[:, -1], state

    def reorder(self, state: State, rows: Tensor) -> State:
        return State(
            [(k[rows], v[rows]) for k, v in state.cross],
            [(k[rows], v[rows]) for k, v in state.past],
            state.mask[rows],
        )


def rotate(x: Tensor, start: int) -> Tensor:
    """Rotary positions: turn each pair of features (B, H, T, D) by its position."""
    half = torch.arange(0, x.size(-1), 2, device=x.device) / x.size(-1)
    position = torch.arange(start, start + x.size(-2), device=x.device)
    angle = torch.einsum("t,d->td", position.float(), 10_000**-half)
    cos, sin, even, odd = angle.cos(), angle.sin(), x[..., ::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1).flatten(-2)


def einsum_attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * q.size(-1) ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.einsum("bhqk,bhkd->bhqd", scores.softmax(-1), v)


class RotarySelfAttention(SelfAttention):
    attend = staticmethod(einsum_attend)

    def project(self, x: Tensor, start: int) -> list[Tensor]:
        q, k, v = super().project(x, start)
        return [rotate(q, start), rotate(k, start), v]


class EinsumCrossAttention(CrossAttention):
    attend = staticmethod(einsum_attend)


class RotaryTranslator(Translator):
    def __init__(self, c: Config | None = None):
        super().__init__(c)
        self.wpe_src = self.wpe_tgt = None  # positions are in attention
        swap(self, SelfAttention, RotarySelfAttention)
        swap(self, CrossAttention, EinsumCrossAttention)

    def embed(self, ids: Tensor, wpe: None, start: int = 0) -> Tensor:
        return self.drop(self.wte(ids))


class GPT(nn.Module):
    def __init__(self, c: Config | None = None):
        super().__init__()
        c = c or Config()
        self.wte = nn.Embedding(c.vocab_size, c.n_embd)
        self.wpe = nn.Embedding(c.block_size, c.n_embd)
        self.drop = nn.Dropout(c.dropout)
        blocks = [Block(c, CausalSelfAttention(c)) for _ in range(c.n_layer)]
        self.blocks, self.norm = nn.Sequential(*blocks), RMSNorm(c.n_embd)
        self.lm_head = nn.Linear(c.n_embd, c.vocab_size, bias=False)
        self.lm_head.weight = self.wte.weight
        self.apply(partial(init_weights, std=c.std))

    def forward(self, ids: Tensor) -> Tensor:
        position = torch.arange(ids.size(1), device=ids.device)
        x = self.drop(self.wte(ids) + self.wpe(position))
        return self.lm_head(self.norm(self.blocks(x)))


class Trainer:
    """AdamW with weight decay for matrices only, warmup and cosine, accumulation."""

    pad = PAD

    def __init__(self, model: nn.Module):
        self.model = model
        self.optimizer = torch.optim.AdamW(self.groups(), lr=3e-3, betas=(0.9, 0.95))
        self.scheduler = LambdaLR(self.optimizer, self.rate)

    def groups(self) -> list[dict]:
        parameters = list(self.model.parameters())
        return [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]

    def rate(self, step: int) -> float:
        decay = 0.1 + 0.45 * (1 + math.cos(math.pi * min(1, step / 2_000)))
        return min(1, (step + 1) / 20) * decay

    def shift(self, tgt: Tensor) -> tuple[Tensor, Tensor]:
        return tgt[:, :-1], tgt[:, 1:]

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Summed: `step` divides by the tokens of the whole batch."""
        return F.cross_entropy(
            logits.flatten(0, 1),
            labels.flatten(),
            ignore_index=self.pad,
            reduction="sum",
        )

    def begin(self) -> None:
        self.model.train()
        self.optimizer.zero_grad()

    def backward(self, loss: Tensor, labels: Tensor, pieces: list) -> None:
        n_tokens = sum((piece[-1][:, 1:] != self.pad).sum() for piece in pieces)
        (loss / n_tokens).backward()

    def update(self) -> None:
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.scheduler.step()

    def step(self, pieces: list[tuple[Tensor, ...]]) -> None:
        """One update from micro-batches (src, tgt), or (ids,)."""
        self.begin()
        for *src, tgt in pieces:
            ids, labels = self.shift(tgt)
            loss = self.loss(self.model(*src, ids), labels)
            self.backward(loss, labels, pieces)
        self.update()


@torch.no_grad()
def greedy(model: Translator, src: Tensor, first: int = BOS) -> Tensor:
    """The likeliest tokens, by the cache; padding follows the end token."""
    model.eval()
    state, ids = model.start(src), src.new_full((len(src), 1), first)
    for _ in range(src.size(1) + 20):
        logits, state = model.step(ids[:, -1], state)
        done = (ids[:, 1:] == EOS).any(1)
        ids = torch.cat([ids, logits.argmax(-1).masked_fill(done, PAD)[:, None]], 1)
        if (ids[:, 1:] == EOS).any(1).all():
            break
    return ids[:, 1:]


@torch.no_grad()
def greedy_without_cache(model: nn.Module, src: Tensor) -> Tensor:
    """The same, with the whole prefix each time."""
    model.eval()
    ids = src.new_full((len(src), 1), BOS)
    while ids.size(1) < src.size(1) + 20 and not (ids == EOS).any(1).all():
        best = model(src, ids)[:, -1].argmax(-1)
        best = best.masked_fill((ids == EOS).any(1), PAD)
        ids = torch.cat([ids, best[:, None]], 1)
    return ids[:, 1:]


class BeamSearch:
    """The likeliest of the endings found, by log-probability a token."""

    first = BOS

    def __init__(self, model: Translator):
        self.model = model

    def rows(self, n: int, k: int) -> Tensor:
        """Which sentence each beam belongs to."""
        return torch.arange(n).repeat_interleave(k)

    def extend(self, scores: Tensor, log_probs: Tensor) -> tuple[Tensor, ...]:
        """The best of (n, k, V): their scores, beams and tokens, (n, k) each."""
        k, V = log_probs.shape[1:]
        scores, index = (scores[..., None] + log_probs).flatten(1).topk(k)
        return scores, index // V, index % V

    def follow(self, ids: Tensor, state: State, rows: Tensor) -> tuple[Tensor, State]:
        """Go on with these beams."""
        return ids[rows], self.model.reorder(state, rows)

    @torch.no_grad()
    def __call__(self, src: Tensor, beam_size: int) -> Tensor:
        self.model.eval()
        n, k = len(src), beam_size
        rows = self.rows(n, k).to(src.device)
        state = self.model.reorder(self.model.start(src), rows)
        ids = src.new_full((n * k, 1), self.first)
        scores = torch.full((n, k), -torch.inf, device=src.device)
        scores[:, 0] = 0.0  # all beams begin alike
        for _ in range(src.size(1) + 20):
            logits, state = self.model.step(ids[:, -1], state)
            done = (ids[:, 1:] == EOS).any(1)
            log_probs = logits.log_softmax(-1)
            log_probs[done] = -torch.inf
            log_probs[done, PAD] = 0.0  # it ended, and costs no more
            scores, beam, best = self.extend(scores, log_probs.view(n, k, -1))
            rows = (beam + k * torch.arange(n, device=src.device)[:, None]).flatten()
            ids, state = self.follow(ids, state, rows)
            ids = torch.cat([ids, best.view(-1, 1)], 1)
            if (ids[:, 1:] == EOS).any(1).all():
                break
        ids = ids[:, 1:].view(n, k, -1)
        winner = (scores / (ids != PAD).sum(-1)).argmax(-1)
        return ids[torch.arange(n, device=src.device), winner]


TEXTS = (
    "Ein Mann, der einen roten Hut trägt, spielt Gitarre.",
    "Zwei Hunde laufen über die grüne Wiese.",
    "Drei Mädchen kaufen 24 Äpfel auf dem Markt.",
    "Ein Hund schläft auf einer Straße in Köln.",
)


class Characters:
    """Every character of the texts is a token."""

    def __init__(self, texts: tuple[str, ...]):
        self.itos = ["<pad>", "<s>", "</s>", "<unk>", *sorted(set("".join(texts)))]
        self.stoi = {token: i for i, token in enumerate(self.itos)}

    def encode(self, text: str) -> list[int]:
        return [self.stoi.get(character, UNK) for character in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(self.itos[i] for i in ids)


def reversals() -> tuple[Tensor, Tensor]:
    """A batch of sentences and the same backwards: padded, begun, ended."""
    lengths, words = (3, 7, 4, 6), torch.arange(UNK + 1, UNK + 29).view(4, 7)
    src, tgt = torch.full((4, 8), PAD), torch.full((4, 9), PAD)
    for i, n in enumerate(lengths):
        src[i, : n + 1] = torch.tensor([*words[i, :n], EOS])
        tgt[i, : n + 2] = torch.tensor([BOS, *words[i, :n].flip(0), EOS])
    return src, tgt


def swap(model: nn.Module, healthy: type, other: type) -> nn.Module:
    """The same weights, with another class for all parts of one class."""
    for part in model.modules():
        if type(part) is healthy:
            part.__class__ = other
    return model


def translator(
    model: nn.Module,
    trainer: type[Trainer] = Trainer,
    search: Callable[..., Tensor] = greedy,
    beam: type[BeamSearch] = BeamSearch,
) -> Patient:
    """A patient with everything given."""
    training = trainer(model)
    return Patient(
        model=model,
        vocab_size=97,
        unk=UNK,
        loss=training.loss,
        train_step=training.step,
        optimizer=training.optimizer,
        greedy=partial(search, model),
        beam=beam(model),
        cache=Cache(start=model.start, step=model.step, reorder=model.reorder),
        batch=reversals(),
        tokenizer=Characters(TEXTS),
        texts=TEXTS,
    )


def decoder(model: nn.Module, trainer: type[Trainer] = Trainer) -> Patient:
    """A decoder alone, and its training."""
    training = trainer(model)
    return Patient(
        model=model,
        vocab_size=97,
        decoder_only=True,
        loss=training.loss,
        train_step=training.step,
        optimizer=training.optimizer,
    )


HEALTHY = [
    Case("compact: cache and beams", "", None, lambda: translator(Translator())),
    Case(
        "compact: rotary and einsum",
        "",
        None,
        lambda: translator(RotaryTranslator(), search=greedy_without_cache),
    ),
    Case("compact: decoder only", "", None, lambda: decoder(GPT())),
]
