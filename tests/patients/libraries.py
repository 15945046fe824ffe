"""Healthy patients from libraries, ours among them, used as their users use them."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from annotated_transformer.batches import Batch
from annotated_transformer.config import BASE, TransformerConfig
from annotated_transformer.doctor.adapters import as_patient
from annotated_transformer.doctor.patient import Patient
from annotated_transformer.objectives import Objective
from annotated_transformer.special import BOS, EOS, PAD
from annotated_transformer.training import adam, set_rate, train_step
from annotated_transformer.transformer import Transformer
from tests.patients.cases import Case
from tests.patients.compact import greedy_without_cache

SIZES = TransformerConfig(
    vocab_size=97, d_model=64, d_ff=128, n_heads=4, n_layers=2, max_length=128
)
Pieces = list[tuple[Tensor, ...]]


def count(pieces: Pieces, pad: int = PAD) -> int:
    """The labels in all pieces that are no padding."""
    return sum(int((piece[-1][:, 1:] != pad).sum()) for piece in pieces)


def ours(config: TransformerConfig) -> Patient:
    """Our model, trained as `training.train` does it."""
    model = Transformer(config)
    objective, optimizer = Objective(model, smoothing=0.1), adam(model)
    set_rate(optimizer, 1e-3)

    def step(pieces: Pieces) -> None:
        objective.train()
        batches = [Batch(*piece) for piece in pieces]
        train_step(objective, optimizer, batches, n_tokens=count(pieces))

    return as_patient(model, train_step=step, optimizer=optimizer)


def peer(name: str) -> Patient:
    """One of the systems that the benchmark compares; its loss is its user's own."""
    from benchmarks import peers

    model = getattr(peers, name)(SIZES)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98))

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        options: dict[str, Any] = {"ignore_index": PAD, "label_smoothing": 0.1}
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), **options)

    def step(pieces: Pieces) -> None:
        model.train()
        optimizer.zero_grad()
        for src, tgt in pieces:
            part = count([(src, tgt)]) / count(pieces)
            (loss(model(src, tgt[:, :-1]), tgt[:, 1:]) * part).backward()
        optimizer.step()

    return as_patient(
        model,
        loss=loss,
        train_step=step,
        optimizer=optimizer,
        greedy=partial(greedy_without_cache, model),
    )


def hugging_face(
    model: nn.Module, losses: Callable[[nn.Module, tuple[Tensor, ...]], Tensor]
) -> Patient:
    """A model of Hugging Face's with its own `generate`; `losses` is a piece's mean."""
    patient = as_patient(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(pieces: Pieces) -> None:
        model.train()
        optimizer.zero_grad()
        n_tokens = count(pieces, patient.pad)
        for piece in pieces:
            part = count([piece], patient.pad) / n_tokens
            (losses(model, piece) * part).backward()
        optimizer.step()

    def search(src: Tensor, beam_size: int = 1) -> Tensor:
        mask = (src != patient.pad).long()
        options = {"max_new_tokens": src.size(1) + 20, "do_sample": False}
        return model.eval().generate(
            src, attention_mask=mask, num_beams=beam_size, **options
        )

    decoding = {} if patient.decoder_only else {"greedy": search, "beam": search}
    return replace(patient, train_step=step, optimizer=optimizer, **decoding)


def loss_inside(model: nn.Module, piece: tuple[Tensor, ...]) -> Tensor:
    """The model shifts the labels right, to get the decoder's input."""
    src, tgt = piece
    pad = model.config.pad_token_id
    labels = tgt[:, 1:].masked_fill(tgt[:, 1:] == pad, -100)
    return model(src, (src != pad).long(), labels=labels).loss


def loss_outside(model: nn.Module, piece: tuple[Tensor, ...]) -> Tensor:
    """The caller shifts, and takes the loss of the logits."""
    src, tgt = piece
    pad = model.config.pad_token_id
    logits = model(src, (src != pad).long(), decoder_input_ids=tgt[:, :-1]).logits
    labels = tgt[:, 1:].flatten()
    return F.cross_entropy(logits.flatten(0, 1), labels, ignore_index=pad)


def loss_of_ids(model: nn.Module, piece: tuple[Tensor, ...]) -> Tensor:
    """A decoder alone shifts its labels left, against its own input."""
    (ids,) = piece
    pad = model.config.pad_token_id
    labels = ids.masked_fill(ids == pad, -100)
    return model(ids, attention_mask=(ids != pad).long(), labels=labels).loss


def both_sides() -> dict[str, int]:
    """Sizes that Marian and Bart name alike."""
    sides = ("encoder", "decoder")
    layer = {"layers": 2, "attention_heads": 4, "ffn_dim": 128}
    return {f"{side}_{name}": size for side in sides for name, size in layer.items()}


def marian() -> Patient:
    """Marian begins with the padding token, by its default; its positions are waves."""
    from transformers import MarianConfig, MarianMTModel

    config = MarianConfig(
        **{"vocab_size": 97, "d_model": 64, "max_position_embeddings": 128},
        **{"pad_token_id": 96, "decoder_start_token_id": 96, "eos_token_id": 0},
        forced_eos_token_id=None,
        scale_embedding=True,
        **both_sides(),
    )
    return hugging_face(MarianMTModel(config), loss_inside)


def bart() -> Patient:
    """Bart begins with the end token; its positions are learned."""
    from transformers import BartConfig, BartForConditionalGeneration

    config = BartConfig(
        **{"vocab_size": 97, "d_model": 64, "max_position_embeddings": 128},
        **{"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2},
        **{"decoder_start_token_id": 2, "forced_eos_token_id": None},
        **both_sides(),
    )
    return hugging_face(BartForConditionalGeneration(config), loss_outside)


def t5() -> Patient:
    """T5 begins with the padding token; its positions are biases of attention."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        **{"vocab_size": 97, "d_model": 64, "d_kv": 16, "d_ff": 128},
        **{"num_heads": 4, "num_layers": 2},
        **{"pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": 1},
    )
    return hugging_face(T5ForConditionalGeneration(config), loss_outside)


def gpt2() -> Patient:
    """GPT-2 is a decoder alone; a padding token is added to its vocabulary."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        **{"vocab_size": 97, "n_embd": 64, "n_layer": 2, "n_head": 4},
        **{"n_inner": 128, "n_positions": 128},
        **{"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS},
    )
    return hugging_face(GPT2LMHeadModel(config), loss_of_ids)


def healthy(name: str, build: Callable[[], Patient], *needs: str) -> Case:
    """A case that nothing is wrong with."""
    return Case(f"libraries: {name}", "", None, build, needs=needs)


TRANSFORMERS, X = "transformers", "x_transformers"
HEALTHY = [
    healthy("ours, post-norm", lambda: ours(SIZES)),
    healthy("ours, pre-norm", lambda: ours(replace(SIZES, norm="pre"))),
    healthy(
        "ours, learned positions", lambda: ours(replace(SIZES, positions="learned"))
    ),
    replace(healthy("ours, base", lambda: ours(BASE)), slow=True),
    healthy("torch.nn.Transformer", lambda: peer("TorchTransformer")),
    healthy("Marian of the benchmark", lambda: peer("Marian"), TRANSFORMERS),
    healthy("x-transformers", lambda: peer("XTransformers"), X),
    healthy("Hugging Face Marian", marian, TRANSFORMERS),
    healthy("Hugging Face Bart", bart, TRANSFORMERS),
    healthy("Hugging Face T5", t5, TRANSFORMERS),
    healthy("Hugging Face GPT-2", gpt2, TRANSFORMERS),
]
