"""The same weights, decoded by us, by Hugging Face's `generate` and by CTranslate2.

The end token can never win, so every system writes as many tokens as it is allowed to;
because the weights are equal, all write the same ones.
"""

import tempfile
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from annotated_transformer import decoding
from annotated_transformer.config import TransformerConfig
from annotated_transformer.devices import fast_path
from annotated_transformer.special import BOS, EOS, PAD
from annotated_transformer.transformer import Transformer
from benchmarks.peers import Marian

Decode = Callable[[int], list[list[int]]]  # beam size (1 is greedy) to output ids


class Endless(Transformer):
    """Our model, unable to end a sentence."""

    def logits(self, features: Tensor) -> Tensor:
        logits = super().logits(features)
        logits[..., EOS] = -torch.inf
        return logits


@torch.no_grad()
def copy_weights(ours: Transformer, marian: Marian) -> None:
    """Give Marian our weights; the biases that only it has are zero from the start."""
    model = marian.model.model
    model.shared.weight.copy_(ours.src_embeddings.weight)
    sides: list[tuple[Any, Any]]
    sides = [(model.encoder, ours.encoder), (model.decoder, ours.decoder)]
    for side, our_side in sides:
        side.embed_positions.weight.copy_(ours.positions.table)
        for layer, our_layer in zip(side.layers, our_side.layers, strict=True):
            attentions = [(layer.self_attn, our_layer.self_attention)]
            if side is model.decoder:
                attentions.append((layer.encoder_attn, our_layer.cross_attention))
            for theirs, attention in attentions:
                packed = attention.query_key_value.weight.split(attention.sizes)
                for letter, weight in zip("qkv", packed, strict=True):
                    getattr(theirs, f"{letter}_proj").weight.copy_(weight)
                theirs.out_proj.weight.copy_(attention.output.weight)
            layer.fc1.load_state_dict(our_layer.feed_forward.widen.state_dict())
            layer.fc2.load_state_dict(our_layer.feed_forward.narrow.state_dict())
            norms = [m for m in layer.children() if isinstance(m, nn.LayerNorm)]
            for norm, residual in zip(norms, our_layer.residuals, strict=True):
                norm.load_state_dict(residual.norm.state_dict())


def our_decoder(model: Transformer, src: Tensor, new_tokens: int) -> Decode:
    """Greedy or beam search as `Translator` runs it, for `new_tokens` tokens."""

    @fast_path(model)
    def decode(beam_size: int) -> list[list[int]]:
        with patch.object(decoding, "EXTRA_LENGTH", new_tokens - src.size(1)):
            if beam_size == 1:
                return decoding.greedy_search(model, src)
            return decoding.beam_search(model, src, beam_size=beam_size)

    return decode


def generate_decoder(marian: Marian, src: Tensor, new_tokens: int) -> Decode:
    """`generate`, with its cache."""
    model: Any = marian.model

    def decode(beam_size: int) -> list[list[int]]:
        ids: Tensor = model.generate(
            src,
            attention_mask=(src != PAD).long(),
            num_beams=beam_size,
            max_new_tokens=new_tokens,
            do_sample=False,
        )
        return ids[:, 1:].tolist()

    return decode


def ctranslate2_decoder(
    marian: Marian, src: Tensor, new_tokens: int, compute_type: str
) -> Decode:
    """CTranslate2, a C++ engine, with the weights of the same Marian."""
    import ctranslate2
    from ctranslate2.converters.transformers import BartLoader

    # Marian's own loader would drop a padding token that this vocabulary lacks.
    loader, config = BartLoader(), marian.model.config
    config.normalize_before = config.normalize_embedding = False
    spec = loader.get_model_spec(marian.model)
    loader.set_vocabulary(spec, [str(i) for i in range(config.vocab_size)])
    spec.config.bos_token = spec.config.decoder_start_token = str(BOS)
    spec.config.eos_token, spec.config.unk_token = str(EOS), str(PAD)
    spec.validate()
    spec.optimize()
    with tempfile.TemporaryDirectory() as folder:
        spec.save(folder)
        translator = ctranslate2.Translator(
            folder, compute_type=compute_type, inter_threads=1, intra_threads=1
        )
    sentences = [[str(token) for token in ids] for ids in src.tolist()]

    def decode(beam_size: int) -> list[list[int]]:
        results = translator.translate_batch(
            sentences, beam_size=beam_size, max_decoding_length=new_tokens
        )
        return [[int(token) for token in r.hypotheses[0]] for r in results]

    return decode


def decoders(c: TransformerConfig, src: Tensor, new_tokens: int) -> dict[str, Decode]:
    """Every system, by name, with the same random weights."""
    ours, marian = Endless(c).eval(), Marian(c).eval()
    # Without random signs, the tied output would make each sentence repeat one word.
    last: Any = ours.decoder.layers[-1]
    nn.init.normal_(last.residuals[-1].norm.weight)
    copy_weights(ours, marian)
    marian.model.final_logits_bias[:, [PAD, BOS, EOS]] = -1e9
    eager = Marian(c, "eager").eval()
    eager.load_state_dict(marian.state_dict())
    return {
        "ours": our_decoder(ours, src, new_tokens),
        "generate": generate_decoder(marian, src, new_tokens),
        "generate, eager": generate_decoder(eager, src, new_tokens),
        "CTranslate2 float32": ctranslate2_decoder(marian, src, new_tokens, "float32"),
        "CTranslate2 int8": ctranslate2_decoder(marian, src, new_tokens, "int8"),
    }
