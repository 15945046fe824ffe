"""ONNX: the encoder and one step of the decoder as two graphs of any batch and length.

`encoder.onnx` turns a batch of source ids into each decoder layer's keys and values of
the source. `step.onnx` takes the last token of each beam with the keys and values so
far, and gives the next token's logits with the keys and values that have grown by one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.export import Dim

from annotated_transformer.attention import MultiHeadAttention
from annotated_transformer.cache import CachedCrossAttention, CachedSelfAttention
from annotated_transformer.decoding import EXTRA_LENGTH
from annotated_transformer.layers import LearnedPositions, sinusoids
from annotated_transformer.masks import padding_mask
from annotated_transformer.transformer import Decoder, DecoderLayer, Transformer
from annotated_transformer.translator import Translator

ENCODER, STEP = "encoder.onnx", "step.onnx"

Keys = Float[Tensor, "layers batch heads length d_k"]
Values = Float[Tensor, "layers batch heads length d_v"]


class GivenSelfAttention(CachedSelfAttention):
    """Self-attention whose past is given, and read again one position longer."""

    def __init__(self, attention: MultiHeadAttention, key: Tensor, value: Tensor):
        super().__init__(attention, capacity=0)
        self.key, self.value = key, value

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append the new keys and values, without memory reserved for more."""
        assert self.key is not None and self.value is not None
        self.key = torch.cat([self.key, key], 2)
        self.value = torch.cat([self.value, value], 2)
        return self.key, self.value


class GivenCrossAttention(CachedCrossAttention):
    """Attention to keys and values that are given."""

    def __init__(self, attention: MultiHeadAttention, key: Tensor, value: Tensor):
        nn.Module.__init__(self)
        self.attention, self.key, self.value = attention, key, value


class Reader(nn.Module):
    """The encoder, and the projections of its output that every step looks at."""

    def __init__(self, model: Transformer):
        super().__init__()
        self.model = model

    def forward(self, src: Int[Tensor, "batch src"]) -> tuple[Keys, Values]:
        """Keys and values of the source for each decoder layer."""
        memory = self.model.encode(src)
        layers: Iterable[Any] = self.model.decoder.layers
        given = [CachedCrossAttention(la.cross_attention, memory) for la in layers]
        return stacked(given)


class Writer(nn.Module):
    """One step of the decoder, which remembers nothing: its past comes in and leaves.

    `past` says which keys, the new ones included, are a beam's own.
    """

    def __init__(self, model: Transformer):
        super().__init__()
        self.model = model
        self.register_buffer("table", positions(model))
        self.table: Tensor

    def forward(
        self,
        ids: Int[Tensor, "batch beam"],
        position: Int[Tensor, ""],
        past: Bool[Tensor, "batch beam key"],
        src: Int[Tensor, "batch src"],
        src_keys: Keys,
        src_values: Values,
        keys: Keys,
        values: Values,
    ) -> tuple[Float[Tensor, "batch beam vocab"], Keys, Values]:
        """Logits of the next tokens, and all keys and values with the new ones."""
        layers: Sequence[Any] = list(self.model.decoder.layers)
        own = [
            GivenSelfAttention(layer.self_attention, keys[i], values[i])
            for i, layer in enumerate(layers)
        ]
        given = [
            DecoderLayer(
                own[i],
                GivenCrossAttention(layer.cross_attention, src_keys[i], src_values[i]),
                layer.feed_forward,
                layer.residuals,
            )
            for i, layer in enumerate(layers)
        ]
        decoder = Decoder(given, self.model.decoder.norm)  # the same weights
        x = self.model.tgt_embeddings(ids) + self.table[position]
        features = decoder(x, x, padding_mask(src), past[:, None])
        return self.model.logits(features), *stacked(own)


def stacked(attentions: Sequence[Any]) -> tuple[Keys, Values]:
    """The keys and values of all layers, each as one tensor."""
    keys, values = [a.key for a in attentions], [a.value for a in attentions]
    return torch.stack(keys), torch.stack(values)


def positions(model: Transformer) -> Float[Tensor, "length d_model"]:
    """What is added at each position: as many as input and output may need."""
    c = model.config
    if isinstance(model.positions, LearnedPositions):
        return model.positions.table.detach()
    return sinusoids(c.max_length + EXTRA_LENGTH, c.d_model)


def write(translator: Translator, folder: Path, quantization: str) -> None:
    """Write both graphs, with the weights inside."""
    model = translator.model
    c = model.config
    batch, beam, src, old = (Dim.DYNAMIC,) * 4
    ids = torch.ones(2, 7, dtype=torch.int64)
    save(
        Reader(model),
        {"src": (ids, (batch, src))},
        ("src_keys", "src_values"),
        folder / ENCODER,
    )
    stack = (c.n_layers, 2, c.n_heads)
    any_stack, growing = (None, batch, None, src, None), (None, batch, None, old, None)
    save(
        Writer(model),
        {
            "ids": (ids[:, :3], (batch, beam)),
            "position": (torch.tensor(5), ()),
            "past": (torch.ones(2, 3, 8, dtype=torch.bool), (batch, beam, Dim.DYNAMIC)),
            "src": (ids, (batch, src)),
            "src_keys": (torch.ones(*stack, 7, c.key_size), any_stack),
            "src_values": (torch.ones(*stack, 7, c.value_size), any_stack),
            "keys": (torch.ones(*stack, 5, c.key_size), growing),
            "values": (torch.ones(*stack, 5, c.value_size), growing),
        },
        ("logits", "new_keys", "new_values"),
        folder / STEP,
    )
    if quantization == "int8":
        for name in (ENCODER, STEP):
            quantize(folder / name)


def save(
    module: nn.Module, inputs: dict[str, tuple], outputs: Sequence[str], path: Path
) -> None:
    """Trace a module with example inputs, and write its graph."""
    program = torch.onnx.export(
        module,
        tuple(example for example, _ in inputs.values()),
        dynamo=True,
        verbose=False,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_shapes=tuple(shape for _, shape in inputs.values()),
    )
    assert program is not None
    program.save(path, external_data=False)


def quantize(path: Path) -> None:
    """Keep the weights as int8, one scale for each output; activations as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = path.with_suffix(".float32")
    path.rename(whole)
    quantize_dynamic(whole, path, per_channel=True, weight_type=QuantType.QInt8)
    whole.unlink()


@dataclass
class OnnxCache:
    """What a search keeps from step to step, as `DecoderCache`."""

    src: Any
    src_keys: Any
    src_values: Any
    keys: Any
    values: Any
    step: int = 0

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Go on with these sentences of the batch only."""
        index = rows.numpy()
        self.src = self.src[index]
        for name in ("src_keys", "src_values", "keys", "values"):
            setattr(self, name, getattr(self, name)[:, index])


class OnnxModel:
    """An exported model, for the searches of `decoding`, which know no other runtime.

    `beam_search(OnnxModel(folder), src)` is `beam_search(model, src)`.
    """

    def __init__(self, folder: Path | str, *, threads: int = 1):
        from onnxruntime import InferenceSession, SessionOptions

        options = SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.reader, self.writer = (
            InferenceSession(
                Path(folder) / name, options, providers=["CPUExecutionProvider"]
            )
            for name in (ENCODER, STEP)
        )

    def eval(self) -> "OnnxModel":
        """An exported model has no dropout."""
        return self

    def start(self, src: Int[Tensor, "batch src"], capacity: int) -> OnnxCache:
        """Encode the source."""
        ids = src.numpy()
        src_keys, src_values = self.reader.run(None, {"src": ids})
        return OnnxCache(
            ids, src_keys, src_values, src_keys[:, :, :, :0], src_values[:, :, :, :0]
        )

    def step(
        self,
        ids: Int[Tensor, "batch beam"],
        cache: OnnxCache,
        tgt_mask: Bool[Tensor, "batch 1 beam key"] | None = None,
    ) -> Float[Tensor, "batch beam vocab"]:
        """Logits after one more token in each beam."""
        if tgt_mask is None:
            tgt_mask = torch.ones(*ids.shape, cache.step + 1, dtype=torch.bool)[:, None]
        given = {
            "ids": ids.numpy(),
            "position": torch.tensor(cache.step).numpy(),
            "past": tgt_mask[:, 0].numpy(),
            "src": cache.src,
            "src_keys": cache.src_keys,
            "src_values": cache.src_values,
            "keys": cache.keys,
            "values": cache.values,
        }
        logits, cache.keys, cache.values = self.writer.run(None, given)
        cache.step += 1
        return torch.from_numpy(logits)
