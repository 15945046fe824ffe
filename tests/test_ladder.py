"""All rungs of the ladder climb the same hill: equal gradients, equal weights."""

import pytest
import torch
from torch.testing import assert_close

from annotated_transformer.config import TransformerConfig
from annotated_transformer.ladder import cut_into_batches, epoch, ladder, standing_on
from annotated_transformer.special import EOS
from annotated_transformer.transformer import Transformer

RUNGS = ladder()
TINY = TransformerConfig(
    vocab_size=31, d_model=12, d_ff=18, n_heads=3, n_layers=2, dropout=0, norm="pre"
)
EXACT = [name for name in RUNGS if name not in ("fast products", "length buckets")]


def pairs(number: int = 7):
    g = torch.Generator().manual_seed(0)

    def sentence(longest):
        length = int(torch.randint(1, longest, (), generator=g))
        return [*torch.randint(4, 31, (length,), generator=g).tolist(), EOS]

    return [(sentence(9), sentence(7)) for _ in range(number)]


def new_model() -> Transformer:
    torch.manual_seed(0)
    return Transformer(TINY)


@pytest.mark.parametrize("name", RUNGS)
def test_every_rung_gives_the_same_gradient(name):
    (batch,) = cut_into_batches(pairs(), 7, buckets=False)
    gradients = []
    for rung in (RUNGS["loop over positions"], RUNGS[name]):
        model = new_model()
        with standing_on(rung, model):
            rung.loss(model, batch).backward()
        gradients.append([p.grad for p in model.parameters()])
    if name in EXACT:
        assert_close(*gradients)
    else:  # fast products may round their factors to bfloat16
        one, other = (torch.cat([g.flatten() for g in gs]) for gs in gradients)
        assert torch.cosine_similarity(one, other, dim=0) > 0.999


@pytest.mark.parametrize("name", EXACT)
def test_an_epoch_ends_with_the_same_weights(name):
    ends = []
    for rung in (RUNGS["heads packed"], RUNGS[name]):
        model = new_model()
        epoch(rung, model, pairs(), 3)()
        ends.append(list(model.parameters()))
    assert_close(*ends, rtol=1e-3, atol=1e-4)


def test_buckets_hold_all_pairs_and_less_padding():
    plain, buckets = (cut_into_batches(pairs(40), 8, buckets=b) for b in (False, True))
    assert sum(len(b.src) for b in buckets) == 40
    assert sum(b.n_tokens for b in buckets) == sum(b.n_tokens for b in plain)
    assert sum(b.src.numel() for b in buckets) < sum(b.src.numel() for b in plain)


def test_the_model_is_itself_again_after_a_rung():
    model = new_model()
    with standing_on(RUNGS["loop over positions"], model):
        pass
    assert not any("attend" in vars(m) for m in model.modules())


def test_the_command_has_a_row_for_each_rung_and_one_in_bfloat16():
    from benchmarks.ladder import measure

    c = TransformerConfig(
        vocab_size=4_000, d_model=8, d_ff=8, n_heads=2, n_layers=1, dropout=0
    )
    rows = measure(c, 6, 3, rounds=1, device=torch.device("cpu"))
    assert [row["rung"] for row in rows] == [*RUNGS, "bfloat16"]
    assert rows[0]["times the loop"] == 1
    assert all(0 < row["of peak"] < 1 for row in rows)
