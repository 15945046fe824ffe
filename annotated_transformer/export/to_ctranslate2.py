"""CTranslate2: the weights under the names of its own Transformer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn

from annotated_transformer.attention import MultiHeadAttention
from annotated_transformer.config import TransformerConfig
from annotated_transformer.decoding import EXTRA_LENGTH
from annotated_transformer.errors import InputError
from annotated_transformer.export.to_onnx import positions
from annotated_transformer.special import PAD, SPECIALS
from annotated_transformer.tokenizers import Tokenizer
from annotated_transformer.translator import Translator

ACTIVATIONS = {"relu": "RELU", "gelu": "GELU", "silu": "SWISH", "tanh": "Tanh"}
Search = Callable[[Any, Tensor], list[list[int]]]


def write(translator: Translator, folder: Path, quantization: str) -> None:
    """Write model.bin, its settings and its vocabulary."""
    model, tokenizer = translator.model, translator.tokenizer
    spec = specification(model.config)
    copy_embeddings(spec, model)
    for theirs, ours in (spec.encoder, model.encoder), (spec.decoder, model.decoder):
        for layer, our_layer in zip(theirs.layer, ours.layers, strict=True):
            copy_layer(layer, our_layer)
        if model.config.norm == "pre":
            copy_norm(theirs.layer_norm, ours.norm)
    source, target = vocabularies(tokenizer)
    spec.register_source_vocabulary(source)
    spec.register_target_vocabulary(target)
    _, bos, eos, unk = SPECIALS
    spec.config.bos_token = spec.config.decoder_start_token = bos
    spec.config.eos_token, spec.config.unk_token = eos, unk
    spec.config.layer_norm_epsilon = 1e-5
    spec.validate()
    spec.optimize(quantization)
    spec.save(str(folder))


def vocabularies(tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """The pieces of both sides, by id."""
    source, target = tokenizer.source_vocab_size, tokenizer.target_vocab_size
    return tokenizer.source_pieces(range(source)), tokenizer.target_pieces(
        range(target)
    )


def specification(c: TransformerConfig) -> Any:
    """An empty model of these sizes. Raises InputError for what CTranslate2 lacks."""
    from ctranslate2.specs import Activation, TransformerSpec

    if c.activation not in ACTIVATIONS:
        raise InputError(f"CTranslate2 has no activation {c.activation!r}: use onnx")
    if not c.key_size == c.value_size == c.d_model / c.n_heads:
        raise InputError(
            f"CTranslate2 has heads of d_model / n_heads ({c.d_model / c.n_heads:g}) "
            f"alone, and d_k is {c.key_size}, d_v {c.value_size}: use onnx"
        )
    return TransformerSpec.from_config(
        c.n_layers,
        c.n_heads,
        pre_norm=c.norm == "pre",
        activation=getattr(Activation, ACTIVATIONS[c.activation]),
    )


def copy_embeddings(spec: Any, model: Any) -> None:
    """Embeddings, scaled as in §3.4, positions, and the tied output."""
    for side, ours in (
        (spec.encoder, model.src_embeddings),
        (spec.decoder, model.tgt_embeddings),
    ):
        embeddings = side.embeddings
        if isinstance(embeddings, list):  # the encoder's may be several
            embeddings = embeddings[0]
        embeddings.weight = ours.weight.detach()
        embeddings.multiply_by_sqrt_depth = True
        side.scale_embeddings = True
        side.position_encodings.encodings = positions(model)
    spec.decoder.projection.weight = model.tgt_embeddings.weight.detach()


def copy_layer(theirs: Any, ours: Any) -> None:
    """The parts of a layer, each with the norm that belongs to it."""
    attentions = [(theirs.self_attention, ours.self_attention)]
    if hasattr(ours, "cross_attention"):
        attentions.append((theirs.attention, ours.cross_attention))
    for spec, attention in attentions:
        copy_attention(spec, attention)
    for spec, linear in (
        (theirs.ffn.linear_0, ours.feed_forward.widen),
        (theirs.ffn.linear_1, ours.feed_forward.narrow),
    ):
        spec.weight, spec.bias = linear.weight.detach(), linear.bias.detach()
    parts = [*(spec for spec, _ in attentions), theirs.ffn]
    for part, residual in zip(parts, ours.residuals, strict=True):
        copy_norm(part.layer_norm, residual.norm)


def copy_attention(spec: Any, attention: MultiHeadAttention) -> None:
    """Q, K and V packed for self-attention; Q alone, then K and V, to a memory."""
    packed, n_query = attention.query_key_value.weight.detach(), attention.sizes[0]
    parts = [packed]
    if len(spec.linear) == 3:
        parts = [packed[:n_query], packed[n_query:]]
    parts = [*parts, attention.output.weight.detach()]
    for linear, weight in zip(spec.linear, parts, strict=True):
        linear.weight = weight.contiguous()


def copy_norm(spec: Any, norm: nn.Module) -> None:
    """Gain and bias. Raises InputError for another norm than the paper's."""
    if not isinstance(norm, nn.LayerNorm):
        raise InputError(
            f"this export has LayerNorm, not {type(norm).__name__}: use onnx"
        )
    spec.gamma, spec.beta = norm.weight.detach(), norm.bias.detach()


def search_with(
    folder: Path,
    translator: Translator,
    *,
    beam_size: int = 1,
    alpha: float = 0.6,
    patience: float = 1,
    threads: int = 1,
) -> Search:
    """A search by CTranslate2, for `Translator.translate(sentences, search=...)`.

    It takes the place of model and search. Its length penalty is length ** alpha, and
    it stops when patience times beam_size hypotheses have ended, though a longer one
    could still win.
    """
    import ctranslate2

    engine = ctranslate2.Translator(
        str(folder), compute_type="default", inter_threads=1, intra_threads=threads
    )
    sides = vocabularies(translator.tokenizer)
    ids_of = {piece: i for i, piece in enumerate(sides[1])}
    pad, bos, *_ = SPECIALS

    def search(model: Any, src: Int[Tensor, "batch src"]) -> list[list[int]]:
        results = engine.translate_batch(
            [[sides[0][i] for i in row if i != PAD] for row in src.tolist()],
            beam_size=beam_size,
            length_penalty=alpha,
            patience=patience,
            suppress_sequences=[[pad], [bos]],
            max_decoding_length=src.size(1) + EXTRA_LENGTH,
        )
        return [[ids_of[piece] for piece in r.hypotheses[0]] for r in results]

    return search
