"""The systems that the benchmark compares do the same work."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from annotated_transformer.config import TransformerConfig
from annotated_transformer.decoding import EXTRA_LENGTH, length_limits
from annotated_transformer.objectives import Objective
from annotated_transformer.special import PAD
from annotated_transformer.speed import random_batch
from annotated_transformer.transformer import Transformer
from benchmarks.__main__ import NEEDED, SIZES, markdown
from benchmarks.decoders import copy_weights, decoders
from benchmarks.measure import training_memory
from benchmarks.peers import MARIAN, OURS, PEERS, TORCH, TorchTransformer, peer_loss

pytestmark = [
    pytest.mark.skipif(
        not all(map(find_spec, NEEDED)),
        reason=f'needs {", ".join(NEEDED)}: pip install -e ".[bench]"',
    ),
    # x-transformers
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]
TINY = TransformerConfig(
    vocab_size=61, d_model=16, d_ff=32, n_heads=2, n_layers=3, max_length=20, dropout=0
)
OTHERS = [name for name in PEERS if name != OURS]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@torch.no_grad()
def copy_to_torch(ours: Transformer, theirs: TorchTransformer) -> None:
    theirs.embeddings.weight.copy_(ours.src_embeddings.weight)
    for side, our_side in (
        (theirs.transformer.encoder, ours.encoder),
        (theirs.transformer.decoder, ours.decoder),
    ):
        for layer, our_layer in zip(side.layers, our_side.layers, strict=True):
            pairs = [(layer.self_attn, our_layer.self_attention)]
            if our_side is ours.decoder:
                pairs.append((layer.multihead_attn, our_layer.cross_attention))
            for attention, our_attention in pairs:
                attention.in_proj_weight.copy_(our_attention.query_key_value.weight)
                attention.out_proj.weight.copy_(our_attention.output.weight)
            layer.linear1.load_state_dict(our_layer.feed_forward.widen.state_dict())
            layer.linear2.load_state_dict(our_layer.feed_forward.narrow.state_dict())


def ids_with_padding() -> tuple[Tensor, Tensor]:
    batch = random_batch(TINY, 3, 7)
    batch.src[0, 5:] = PAD
    return batch.src, batch.tgt_in


@pytest.mark.parametrize("name", OTHERS)
def test_sizes_are_equal_within_one_percent(name):
    assert count(PEERS[name](SIZES)) == pytest.approx(
        count(Transformer(SIZES)), rel=0.01
    )


@pytest.mark.parametrize(
    ("name", "copy"), [(MARIAN, copy_weights), (TORCH, copy_to_torch)]
)
def test_equal_weights_give_equal_logits_and_losses(name, copy):
    ours, theirs = Transformer(TINY), PEERS[name](TINY)
    copy(ours, theirs)
    src, tgt = ids_with_padding()
    # nn.Transformer ends in one more norm on each side, which hardly changes anything.
    assert_close(theirs(src, tgt), ours(src, tgt), atol=1e-3, rtol=1e-3)
    batch = random_batch(TINY, 3, 7)
    # They spread the smoothing over padding as well: one of 61 tokens.
    assert_close(
        peer_loss(theirs, batch), Objective(ours, 0.1)(batch), rtol=0.01, atol=0
    )


@pytest.mark.parametrize("name", PEERS)
def test_no_peer_sees_padding_or_the_future(name):
    model = PEERS[name](TINY).eval()
    src, tgt = ids_with_padding()
    logits = model(src, tgt)
    changed = tgt.clone()
    changed[:, 4:] = 9
    assert_close(model(src, changed)[:, :4], logits[:, :4])
    assert not torch.allclose(model(src, changed)[:, 4:], logits[:, 4:])
    assert_close(model(src[:1, :5], tgt[:1]), logits[:1], atol=1e-4, rtol=1e-4)


def test_every_decoder_writes_the_same_tokens():
    systems = decoders(TINY, random_batch(TINY, 5, 7).src, new_tokens=11)
    for beam_size in (1, 3):
        outputs = {name: decode(beam_size) for name, decode in systems.items()}
        assert [len(ids) for ids in outputs["CTranslate2 int8"]] == [11] * 5  # rounds
        assert len({token for ids in outputs["ours"] for token in ids}) > 3
        del outputs["CTranslate2 int8"]
        assert all(ids == outputs["ours"] for ids in outputs.values())
    assert length_limits(torch.ones(1, 7).long()).item() == 7 + EXTRA_LENGTH  # put back


def test_memory_is_that_of_one_training():
    c = replace(TINY, vocab_size=40_000)
    mib = training_memory(OURS, c, (2, 3))
    weights = 40_000 * 16 * 4 / 2**20
    assert 4 * weights < mib < 40 * weights  # with gradients and Adam's two averages


def test_tables_are_markdown():
    table = markdown("T", [{"system": "a", "speed": 1234.5, "ratio": 1.2345}])
    assert table.splitlines()[2:] == [
        "| system | speed | ratio |",
        "| --- | --- | --- |",
        "| a | 1,234 | 1.23 |",
    ]
