"""What the notebooks share does what it says."""

import torch

from annotated_transformer.config import TINY
from annotated_transformer.lessons import (
    Sorter,
    check,
    influence,
    refuted,
    seeded,
    spread,
)


def test_a_claim_is_printed_with_its_truth(capsys):
    check(torch.tensor(True), "two is even")
    check(False, "three is even")
    assert capsys.readouterr().out == "ok   two is even\nFAIL three is even\n"


def test_what_should_fall_is_refuted_and_what_does_not_fall_is_loud(capsys):
    refuted(torch.tensor(False), "three is even")
    refuted(True, "two is even")
    out = capsys.readouterr().out.splitlines()
    assert out == ["refuted, as expected: three is even", "NOT REFUTED: two is even"]


def test_seeded_numbers_are_the_same_every_time():
    first, second = (torch.rand(3, generator=seeded(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(3, generator=seeded(8)))


def test_influence_is_zero_exactly_where_nothing_flows():
    x = torch.randn(4, 3, generator=seeded(0))
    flows = influence(lambda x: x.cumsum(0) * 2, x)  # each position sees its past
    assert torch.equal(flows, 2 * torch.ones(4, 4).tril())


def test_a_sorter_gives_logits_for_each_position():
    digits = torch.randint(4, 14, (2, 6), generator=seeded(0))
    model = Sorter(TINY, norm="post", n_layers=1)
    assert model(digits).shape == (2, 6, TINY.vocab_size)
    assert len(model.encoder.layers) == 1


def test_a_spread_is_mean_and_range():
    assert spread([0.5, 0.25, 0.75], digits=3) == "0.500 (0.250 to 0.750)"
