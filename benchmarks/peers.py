"""The same model four times: ours, PyTorch's, Hugging Face's and x-transformers'.

Each maps source and target ids to logits, with the same sizes and one matrix for both
embeddings and the output. Dropout is where the paper has it, on the sum of the
embeddings and on each sub-layer's output (§5.4), if a peer lets its user choose;
`nn.Transformer` has it on attention weights and inside feed-forward layers as well.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from annotated_transformer.batches import Batch
from annotated_transformer.config import TransformerConfig
from annotated_transformer.devices import fast_path
from annotated_transformer.layers import SinusoidalPositions
from annotated_transformer.objectives import Objective
from annotated_transformer.special import BOS, EOS, PAD
from annotated_transformer.training import adam, train_step
from annotated_transformer.transformer import Transformer


class TorchTransformer(nn.Module):
    """`nn.Transformer` with the embeddings and the output that it leaves out."""

    def __init__(self, c: TransformerConfig):
        super().__init__()
        self.embeddings = nn.Embedding(c.vocab_size, c.d_model)
        nn.init.normal_(self.embeddings.weight, std=c.d_model**-0.5)
        self.positions = SinusoidalPositions(c.max_length, c.d_model)
        self.dropout = nn.Dropout(c.dropout)
        sizes = (c.d_model, c.n_heads, c.n_layers, c.n_layers, c.d_ff)
        self.transformer = nn.Transformer(*sizes, c.dropout, batch_first=True)

    def embed(self, ids: Tensor) -> Tensor:
        scale = math.sqrt(self.embeddings.embedding_dim)
        return self.dropout(self.positions(self.embeddings(ids) * scale))

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        future = torch.ones(tgt.size(1), tgt.size(1), dtype=torch.bool).triu(1)
        features = self.transformer(
            self.embed(src),
            self.embed(tgt),
            tgt_mask=future,
            tgt_is_causal=True,
            src_key_padding_mask=src == PAD,
            memory_key_padding_mask=src == PAD,
        )
        return F.linear(features, self.embeddings.weight)


class Marian(nn.Module):
    """Hugging Face's `MarianMTModel`, built from settings: nothing is downloaded."""

    def __init__(self, c: TransformerConfig, attention: str = "sdpa"):
        super().__init__()
        from transformers import MarianConfig, MarianMTModel

        half = {"layers": c.n_layers, "attention_heads": c.n_heads, "ffn_dim": c.d_ff}
        more: dict[str, Any] = {"attn_implementation": attention}
        more |= {f"{h}_{k}": v for h in ("encoder", "decoder") for k, v in half.items()}
        config = MarianConfig(
            vocab_size=c.vocab_size,
            d_model=c.d_model,
            max_position_embeddings=c.max_length,
            dropout=c.dropout,
            activation_function="relu",
            scale_embedding=True,
            init_std=c.d_model**-0.5,
            pad_token_id=PAD,
            eos_token_id=EOS,
            decoder_start_token_id=BOS,
            forced_eos_token_id=None,
            **more,
        )
        self.model = MarianMTModel(config)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        output = self.model(src, src != PAD, decoder_input_ids=tgt, use_cache=False)
        return output.logits


class XTransformers(nn.Module):
    """An encoder and a decoder of x-transformers, with one matrix for all."""

    def __init__(self, c: TransformerConfig, attention: str = "flash"):
        super().__init__()
        from x_transformers import Decoder, Encoder, TransformerWrapper

        layers = {
            "dim": c.d_model,
            "depth": c.n_layers,
            "heads": c.n_heads,
            "pre_norm": False,
            "attn_dim_head": c.d_model // c.n_heads,
            "attn_flash": attention == "flash",
            "attn_sublayer_dropout": c.dropout,
            "ff_mult": c.d_ff // c.d_model,
            "ff_custom_activation": nn.ReLU(),
            "ff_sublayer_dropout": c.dropout,
            "verbose": False,
        }
        wrapper = {
            "num_tokens": c.vocab_size,
            "max_seq_len": c.max_length,
            "scaled_sinu_pos_emb": True,
            "emb_dropout": c.dropout,
        }
        self.encoder = TransformerWrapper(
            **wrapper, return_only_embed=True, attn_layers=Encoder(**layers)
        )
        self.decoder = TransformerWrapper(
            **wrapper,
            token_emb=self.encoder.token_emb,
            tie_embedding=True,
            attn_layers=Decoder(**layers, cross_attend=True),
        )

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        memory = self.encoder(src, mask=src != PAD)
        return self.decoder(tgt, context=memory, context_mask=src != PAD)


OURS, TORCH = "ours", "torch.nn.Transformer"
MARIAN, X_TRANSFORMERS = "Hugging Face Marian", "x-transformers"
PEERS: dict[str, Callable[..., nn.Module]] = {
    OURS: Transformer,
    TORCH: TorchTransformer,
    MARIAN: Marian,
    X_TRANSFORMERS: XTransformers,
}


def peer_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The label-smoothed loss as most write it: logits, then cross entropy; summed."""
    logits = model(batch.src, batch.tgt_in).flatten(0, 1)
    return F.cross_entropy(
        logits,
        batch.labels.flatten(),
        ignore_index=PAD,
        label_smoothing=0.1,
        reduction="sum",
    )


def training_step(model: nn.Module, batch: Batch) -> Callable[[], object]:
    """One whole update: ours as `train` does it, the others' as users write it."""
    optimizer = adam(model.train())
    optimizer.param_groups[0]["lr"] = 1e-4
    n_tokens = batch.n_tokens
    if isinstance(model, Transformer):
        objective = Objective(model, 0.1)
        return fast_path(model)(
            lambda: train_step(objective, optimizer, [batch], n_tokens=n_tokens)
        )

    def step() -> float:
        optimizer.zero_grad()
        loss = peer_loss(model, batch) / n_tokens
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
