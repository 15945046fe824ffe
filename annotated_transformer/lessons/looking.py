"""Where heads look, and models with heads changed (chapter 17)."""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from annotated_transformer.attention import MultiHeadAttention
from annotated_transformer.batches import Batch
from annotated_transformer.recording import record_attention
from annotated_transformer.special import BOS, EOS, PAD, UNK
from annotated_transformer.transformer import Transformer
from annotated_transformer.translator import Translator

Head = tuple[str, int, int]  # kind, layer, head
Span = tuple[str, list[int]]  # a word, and the positions of its pieces
Maps = dict[str, Tensor]  # by kind, each (layer, head, query, key)
ATTENTIONS = {  # the names of the modules, by kind; each has a number for the layer
    "encoder": "encoder.layers.{}.self_attention",
    "decoder": "decoder.layers.{}.self_attention",
    "cross": "decoder.layers.{}.cross_attention",
}


@torch.no_grad()
def watch(model: Transformer, source: Sequence[int], output: Sequence[int]) -> Maps:
    """Every map of one translation, by kind, each (layer, head, query, key)."""
    with record_attention(model) as maps:
        model(torch.tensor([source]), torch.tensor([[BOS, *output]]))
    layers = range(model.config.n_layers)
    return {
        kind: torch.stack([maps[name.format(n)][0] for n in layers])
        for kind, name in ATTENTIONS.items()
    }


def all_heads(model: Transformer) -> list[Head]:
    """Every attention head of a model: encoder, decoder, then cross-attention."""
    n, h = model.config.n_layers, model.config.n_heads
    return list(product(ATTENTIONS, range(n), range(h)))


def edited(
    model: Transformer,
    heads: Iterable[Head],
    edit: Callable[[MultiHeadAttention, int], None],
) -> Transformer:
    """A copy in which `edit(attention, head)` has changed each of these heads."""
    copy = deepcopy(model)
    for kind, layer, head in heads:
        edit(copy.get_submodule(ATTENTIONS[kind].format(layer)), head)  # type: ignore
    return copy


@torch.no_grad()
def off(attention: MultiHeadAttention, head: int) -> None:
    """Silence a head: zero its columns of W^O, by which alone it is heard."""
    own = slice(head * attention.d_v, (head + 1) * attention.d_v)
    attention.output.weight[:, own] = 0


@torch.no_grad()
def flat(attention: MultiHeadAttention, head: int) -> None:
    """Let a head look everywhere alike: no queries, so all its scores are 0."""
    own = slice(head * attention.d_k, (head + 1) * attention.d_k)
    attention.query_key_value.weight[own] = 0  # W^Q comes first


def words(pieces: Sequence[str]) -> list[Span]:
    """The words that pieces make up; punctuation and the end token count as words."""
    spans: list[Span] = []
    for position, piece in enumerate(pieces):
        new = piece.startswith("▁") or not piece[0].isalnum()
        if new or not spans:
            spans.append((piece.strip("▁"), [position]))
        else:
            word, positions = spans[-1]
            spans[-1] = (word + piece, [*positions, position])
    return spans


def looks(
    weights: Float[Tensor, "*maps query key"],
    rows: Sequence[Span],
    columns: Sequence[Span],
) -> Float[Tensor, "*maps word word"]:
    """A map from word to word: sums over a column's pieces, means over a row's."""
    weights = torch.stack([weights[..., r, :].mean(-2) for _, r in rows], -2)
    return torch.stack([weights[..., c].sum(-1) for _, c in columns], -1)


def encoder_words(
    translator: Translator, sentence: str, model: Transformer | None = None
) -> tuple[list[str], Float[Tensor, "head word word"]]:
    """A sentence's words, and where each encoder head looks, from word to word.

    The heads of layer 0 come first. Another model may look at the same pieces.
    """
    model = model or translator.model
    ids = translator.encode(sentence)
    spans = words(translator.tokenizer.source_pieces(ids))
    with torch.no_grad(), record_attention(model) as maps:
        model.encode(torch.tensor([ids]))
    names = map(ATTENTIONS["encoder"].format, range(model.config.n_layers))
    weights = torch.cat([maps[name][0] for name in names])
    return [word for word, _ in spans], looks(weights, spans, spans)


@torch.inference_mode()
def sentence_losses(
    model: Transformer, batch: Batch
) -> tuple[Float[Tensor, " sentence"], Int[Tensor, " sentence"]]:
    """Each sentence's loss in nats, summed over its tokens, and how many these are."""
    real = batch.labels != PAD
    logits = model.logits(model.features(batch.src, batch.tgt_in)[real])
    values = F.cross_entropy(logits, batch.labels[real], reduction="none")
    losses = torch.zeros(real.shape).masked_scatter(real, values).sum(1)
    return losses.clone(), real.sum(1)


def untrained(model: Transformer, *, seeds: Iterable[int] = range(3)) -> list[Any]:
    """Models of the same sizes, in eval(), with fresh random weights."""
    found = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            found.append(Transformer(model.config).eval())
    return found


def written_log_probs(
    model: Transformer,
    memory: Float[Tensor, "variant src d_model"],
    src_mask: Bool[Tensor, "#variant 1 1 src"],
    output: Sequence[int],
) -> Float[Tensor, "variant token"]:
    """The log-probability of each written token, the end token too."""
    read = torch.tensor([[BOS, *output]]).expand(len(memory), -1)
    logits = model.logits(model.decode(read, memory, src_mask))
    labels = torch.tensor([*output, EOS])
    return logits.log_softmax(-1)[:, torch.arange(len(labels)), labels]


@torch.no_grad()
def effects(
    model: Transformer, source: Sequence[int], output: Sequence[int]
) -> dict[str, Float[Tensor, "token source"]]:
    """By how much each written token's log-probability falls without a source token.

    Four ways of being without it: without the word at the input; without it at its own
    position of the memory alone; at all the others; or without looking there.
    """
    n, diagonal = len(source), torch.eye(len(source), dtype=torch.bool)
    ids = torch.tensor(source).expand(n, -1)  # variant i will lack token i
    whole, erased = model.encode(ids), model.encode(ids.masked_fill(diagonal, UNK))
    memories = {
        "word": erased,
        "own position": torch.where(diagonal[..., None], erased, whole),
        "other positions": torch.where(diagonal[..., None], whole, erased),
        "blocked": whole,
    }
    free, hidden = torch.ones(1, 1, 1, n).bool(), ~diagonal[:, None, None]
    before = written_log_probs(model, whole[:1], free, output)
    found = {}
    for name, memory in memories.items():
        mask = hidden if name == "blocked" else free
        found[name] = (before - written_log_probs(model, memory, mask, output)).T
    return found
