"""The whole model beside PyTorch's (chapter 08)."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from annotated_transformer.lessons.claims import seeded
from annotated_transformer.masks import causal_mask
from annotated_transformer.special import PAD
from annotated_transformer.transformer import Transformer


@torch.no_grad()
def shaken(model: nn.Module, *, by: float = 0.1, seed: int = 0) -> nn.Module:
    """The same model, each weight moved a little: no gain is 1, and no bias 0."""
    g = seeded(seed)
    for parameter in model.parameters():
        parameter.add_(by * torch.randn(parameter.shape, generator=g))
    return model


Twins = Iterator[tuple[Tensor, Tensor]]


def layer_pairs(ours: Any, theirs: Any) -> Twins:
    """The weights of one of our layers, each with its namesake in one of PyTorch's."""
    attentions = {"self_attention": "self_attn"}
    if hasattr(ours, "cross_attention"):  # a notebook's own DecoderLayer, too
        attentions["cross_attention"] = "multihead_attn"
    for our_name, their_name in attentions.items():
        a, b = getattr(ours, our_name), getattr(theirs, their_name)
        yield a.query_key_value.weight, b.in_proj_weight
        yield a.output.weight, b.out_proj.weight
    modules: list[tuple[Any, Any]] = [
        (ours.feed_forward.widen, theirs.linear1),
        (ours.feed_forward.narrow, theirs.linear2),
    ]
    for i, residual in enumerate(ours.residuals, 1):
        modules.append((residual.norm, getattr(theirs, f"norm{i}")))
    for a, b in modules:
        yield from zip(a.parameters(), b.parameters(), strict=True)


def weight_pairs(model: Transformer, twin: nn.Transformer) -> Twins:
    """All weights of our two stacks, each with its namesake in PyTorch's model."""
    for ours, theirs in ((model.encoder, twin.encoder), (model.decoder, twin.decoder)):
        for a, b in zip(ours.layers, theirs.layers, strict=True):
            yield from layer_pairs(a, b)
        if model.config.norm == "pre":
            norms = ours.norm.parameters(), theirs.norm.parameters()
            yield from zip(*norms, strict=True)


@torch.no_grad()
def torch_twin(
    model: Transformer, *, final_norms: bool | None = None
) -> nn.Transformer:
    """PyTorch's `nn.Transformer` with copies of our weights, in `eval()`.

    `final_norms` says whether a norm follows each stack: as in our model, if not given
    (PyTorch's own default is True). Its biases in the attention are 0, since we have
    none.
    """
    c = model.config
    sizes: dict[str, Any] = {
        "d_model": c.d_model,
        "nhead": c.n_heads,
        "dim_feedforward": c.d_ff,
        "dropout": 0.0,
        "batch_first": True,
        "norm_first": c.norm == "pre",
    }
    normed = c.norm == "pre" if final_norms is None else final_norms
    norms = [nn.LayerNorm(c.d_model) if normed else nn.Identity() for _ in range(2)]
    twin = nn.Transformer(
        **sizes,
        custom_encoder=nn.TransformerEncoder(
            nn.TransformerEncoderLayer(**sizes),
            c.n_layers,
            norms[0],
            enable_nested_tensor=False,
        ),
        custom_decoder=nn.TransformerDecoder(
            nn.TransformerDecoderLayer(**sizes), c.n_layers, norms[1]
        ),
    )
    twin = twin.to(model.tgt_embeddings.weight.dtype).eval()
    for name, parameter in twin.named_parameters():
        if name.endswith(("in_proj_bias", "out_proj.bias")):
            parameter.zero_()
    for ours, theirs in weight_pairs(model, twin):
        theirs.copy_(ours)
    return twin


def twin_features(
    twin: nn.Transformer,
    model: Transformer,
    src: Int[Tensor, "batch src"],
    tgt: Int[Tensor, "batch tgt"],
) -> Float[Tensor, "batch tgt d_model"]:
    """What PyTorch's two stacks make of our embeddings: compare `model.features`.

    Its masks are turned around: True means "may not look".
    """
    features: Tensor = twin(
        model.embed(model.src_embeddings, src),
        model.embed(model.tgt_embeddings, tgt),
        tgt_mask=~causal_mask(tgt.size(1)),
        src_key_padding_mask=src == PAD,
        memory_key_padding_mask=src == PAD,
        tgt_key_padding_mask=tgt == PAD,  # ours needs none: padding comes last
    )
    return features
