"""Decoding by cache and in batches equals decoding by hand, one step at a time."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from annotated_transformer import decoding
from annotated_transformer.cache import DecoderCache
from annotated_transformer.config import TransformerConfig
from annotated_transformer.decoding import (
    EXTRA_LENGTH,
    beam_search,
    greedy_search,
    keep_top_k,
    keep_top_p,
    length_limits,
    length_penalty,
    sample,
)
from annotated_transformer.errors import InputError
from annotated_transformer.special import BOS, EOS, PAD, UNK
from annotated_transformer.transformer import Transformer

VOCAB = 11
few = settings(max_examples=12, deadline=None, derandomize=True)


@pytest.fixture(autouse=True, scope="module")
def short_outputs():
    """Limits of input length + 6, so that decoding by hand is quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "EXTRA_LENGTH", 6)
        yield


class Wild(Transformer):
    """Untrained models repeat one token: here small differences turn choices."""

    def logits(self, features: Tensor) -> Tensor:
        return super().logits(2 * (20 * features).sin())


def untrained(seed: int, kind: type[Transformer] = Wild, **sizes) -> Transformer:
    """A model whose choices vary and which says EOS now and then.

    Double precision: two roads to one number then never differ enough to turn a choice.
    """
    torch.manual_seed(seed)
    sizes = {"vocab_size": VOCAB, "d_model": 12, "d_ff": 7, "n_heads": 3} | sizes
    return kind(TransformerConfig(n_layers=2, max_length=40, **sizes)).double()


def sources(seed: int, lengths: list[int]) -> Tensor:
    """Random sentences that end with EOS, padded."""
    generator = torch.Generator().manual_seed(seed)
    src = torch.randint(UNK, VOCAB, (len(lengths), max(lengths)), generator=generator)
    for row, length in zip(src, lengths, strict=True):
        row[length - 1], row[length:] = EOS, PAD
    return src


LENGTHS = [3, 7, 2, 5, 1]
kinds = pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"norm": "pre", "positions": "learned"},
        {"tgt_vocab_size": 13, "d_k": 5, "d_v": 2},
    ],
    ids=["paper", "pre-norm, learned", "two vocabularies"],
)


# By hand: no cache, no batch


Beginning = tuple[float, list[int]]  # its log-probability, and its tokens


@torch.no_grad()
def next_log_probs(
    model: Transformer, src: Tensor, beginnings: list[list[int]]
) -> Tensor:
    """Log-probabilities after beginnings of one length, by the whole model."""
    model.eval()
    tgt = torch.tensor([[BOS, *ids] for ids in beginnings])
    logits = model(src[src != PAD].expand(len(tgt), -1), tgt)[:, -1]
    logits[:, [PAD, BOS]] = -torch.inf
    return logits.log_softmax(-1)


def limit_of(src: Tensor) -> int:
    return int((src != PAD).sum()) + decoding.EXTRA_LENGTH


def greedy_by_hand(model: Transformer, src: Tensor) -> list[int]:
    ids: list[int] = []
    while len(ids) < limit_of(src):
        token = int(next_log_probs(model, src, [ids]).argmax())
        if token == EOS:
            break
        ids.append(token)
    return ids


def beam_by_hand(
    model: Transformer, src: Tensor, beam_size: int, alpha: float
) -> list[int]:
    """The rule of `beam_search` with lists. It goes on while any beginning is open."""
    beam: list[Beginning] = [(0.0, [])]
    ended: list[Beginning] = []
    while beam:
        log_probs = next_log_probs(model, src, [ids for _, ids in beam]).tolist()
        options = [
            (score + log_prob, [*ids, token])
            for (score, ids), row in zip(beam, log_probs, strict=True)
            for token, log_prob in enumerate(row)
            if log_prob > -math.inf
        ]
        beam = []
        for score, ids in sorted(options, reverse=True)[:beam_size]:
            if ids[-1] == EOS or len(ids) == limit_of(src):
                ended.append((score / ((5 + len(ids)) / 6) ** alpha, ids))
            else:
                beam.append((score, ids))
    return [token for token in max(ended)[1] if token != EOS]


def best_of_all(model: Transformer, src: Tensor, alpha: float) -> list[int]:
    """The best of every output there is: for few tokens and a low limit."""
    return beam_by_hand(model, src, model.config.vocab_size ** limit_of(src), alpha)


# Greedy


@kinds
@pytest.mark.parametrize("seed", range(3))
def test_greedy_with_cache_and_batch_equals_greedy_by_hand(sizes, seed):
    model, src = untrained(seed, **sizes), sources(seed, LENGTHS)
    outputs = greedy_search(model, src)
    assert outputs == [greedy_by_hand(model, row) for row in src]
    assert outputs == [greedy_search(model, row[None, row != PAD])[0] for row in src]


def test_the_models_of_these_tests_end_and_vary():
    cut_off, distinct = [], []
    for seed in range(10):
        src = sources(seed, LENGTHS)
        for row, output in zip(src, greedy_search(untrained(seed), src), strict=True):
            cut_off.append(len(output) == limit_of(row))
            distinct.append(len(set(output)))
    assert 0.2 < sum(cut_off) / len(cut_off) < 0.8  # the others ended
    assert sum(distinct) / len(distinct) > 3


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5), seed=st.integers(0, 99)
)
@few
def test_greedy_equals_greedy_by_hand_in_any_batch(lengths, seed):
    model, src = untrained(seed), sources(seed, lengths)
    expected = [greedy_by_hand(model, row) for row in src]
    assert greedy_search(model, src) == expected


# Beam search


@kinds
@pytest.mark.parametrize("seed", range(2))
def test_beam_with_cache_and_batch_equals_beam_by_hand(sizes, seed):
    model, src = untrained(seed, **sizes), sources(seed, LENGTHS)
    outputs = beam_search(model, src, beam_size=3)
    assert outputs == [beam_by_hand(model, row, 3, 0.6) for row in src]
    alone = [beam_search(model, row[None, row != PAD], beam_size=3)[0] for row in src]
    assert outputs == alone


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    beam_size=st.integers(1, 5),
    alpha=st.sampled_from([0.0, 0.6, 1.0, 2.0]),
    seed=st.integers(0, 99),
)
@few
def test_beam_equals_beam_by_hand_in_any_batch(lengths, beam_size, alpha, seed):
    model, src = untrained(seed), sources(seed, lengths)
    expected = [beam_by_hand(model, row, beam_size, alpha) for row in src]
    assert beam_search(model, src, beam_size=beam_size, alpha=alpha) == expected


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    alpha=st.sampled_from([0.0, 0.6, 2.0]),
    seed=st.integers(0, 99),
)
@few
def test_a_beam_of_one_is_greedy(lengths, alpha, seed):
    model, src = untrained(seed), sources(seed, lengths)
    greedy = greedy_search(model, src)
    assert beam_search(model, src, beam_size=1, alpha=alpha) == greedy


def test_a_beam_wide_enough_finds_the_best_of_all_outputs(monkeypatch):
    monkeypatch.setattr(decoding, "EXTRA_LENGTH", 3)
    src = torch.tensor([[EOS]])  # so 4 tokens at most, each one of UNK, 4 and EOS
    found: dict[float, list] = {}
    for alpha, seed in itertools.product([0.0, 0.6, 1.0, 3.0], range(6)):
        model = untrained(seed, vocab_size=5)
        expected = best_of_all(model, src[0], alpha)
        # At most 8 beginnings are open at a time, each with 3 ways to go on.
        assert beam_search(model, src, beam_size=24, alpha=alpha) == [expected]
        greedy = greedy_search(model, src)[0]
        found.setdefault(alpha, []).append((expected, greedy))
    assert any(best != greedy for best, greedy in found[0.6])  # the search is needed
    assert found[0.0] != found[3.0]  # and so is the penalty


def test_length_penalty_on_paper():
    assert length_penalty(1, 0.6) == 1.0
    assert length_penalty(7, 1.0) == 2.0
    assert length_penalty(7, 0.0) == 1.0
    assert_close(
        length_penalty(torch.tensor([1, 7, 19]), 0.5), torch.tensor([1, 2, 4]) ** 0.5
    )


# What ends an output


class Endless(Wild):
    """A model that never says EOS."""

    def logits(self, features: Tensor) -> Tensor:
        logits = super().logits(features)
        logits[..., EOS] = -torch.inf
        return logits


class Silent(Wild):
    """A model that says EOS at once."""

    def logits(self, features: Tensor) -> Tensor:
        logits = super().logits(features)
        logits[..., EOS] = 1e3
        return logits


SEARCHES = {
    "greedy": greedy_search,
    "beam": lambda model, src: beam_search(model, src, beam_size=3),
    "sample": sample,
}
each_search = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES.keys())


@each_search
def test_outputs_stop_at_input_length_plus_50(monkeypatch, search):
    assert EXTRA_LENGTH == 50
    monkeypatch.setattr(decoding, "EXTRA_LENGTH", EXTRA_LENGTH)
    src = sources(0, [3, 7, 2])
    assert length_limits(src).tolist() == [53, 57, 52]
    outputs = search(untrained(0, Endless), src)
    assert [len(output) for output in outputs] == [53, 57, 52]


@each_search
def test_outputs_stop_at_the_end_token(search):
    model = untrained(0, Silent)
    assert search(model, sources(0, LENGTHS)) == [[]] * len(LENGTHS)


class Eager(Wild):
    """A model that would always say padding or the start token, if it were let."""

    def logits(self, features: Tensor) -> Tensor:
        logits = super().logits(features)
        logits[..., [PAD, BOS]] = 1e3
        return logits


@each_search
def test_special_tokens_are_never_in_an_output(search):
    torch.manual_seed(0)
    models = [untrained(seed, Eager) for seed in range(5)]
    outputs = [output for m in models for output in search(m, sources(0, LENGTHS))]
    seen = {token for output in outputs for token in output}
    assert not seen & {PAD, BOS, EOS}
    assert len(seen) > 3


@each_search
def test_decoding_puts_the_model_in_eval(search):
    model = untrained(0, dropout=0.5).train()
    src = sources(0, LENGTHS)
    torch.manual_seed(1)
    first = search(model, src)
    assert not model.training
    torch.manual_seed(1)
    assert search(model, src) == first


@pytest.mark.parametrize("search", [greedy_search, beam_search])
def test_sentences_that_have_ended_leave_the_batch(monkeypatch, search):
    sizes = []
    keep = DecoderCache.keep

    def watched(cache, rows):
        sizes.append((len(cache.src_mask), len(rows)))
        keep(cache, rows)

    monkeypatch.setattr(DecoderCache, "keep", watched)
    src = sources(0, [1, 2, 3, 4, 5, 6, 7])  # so the limits differ as well
    search(untrained(3, Endless), src)
    assert sizes[0][0] == 7
    assert all(0 < after <= 0.8 * before for before, after in sizes)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(sizes))
    assert len(sizes) >= 3


# Sampling


@pytest.mark.parametrize(
    "options", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-3}]
)
@pytest.mark.parametrize("seed", range(3))
def test_sampling_without_choice_is_greedy(options, seed):
    model, src = untrained(seed), sources(seed, LENGTHS)
    torch.manual_seed(seed)
    assert sample(model, src, **options) == greedy_search(model, src)


def test_a_generator_decides_every_draw():
    model, src = untrained(0), sources(0, LENGTHS)

    def draw(seed):
        return sample(model, src, generator=torch.Generator().manual_seed(seed))

    torch.manual_seed(0)
    first = draw(0)
    torch.manual_seed(1)  # the global state is not asked
    assert draw(0) == first
    assert draw(1) != first


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 2.0},
        {"temperature": 0.5},
        {"top_k": 3},
        {"top_p": 0.9},
        {"temperature": 2.0, "top_k": 5, "top_p": 0.8},
    ],
)
def test_draws_are_as_frequent_as_their_probabilities(monkeypatch, options):
    monkeypatch.setattr(decoding, "EXTRA_LENGTH", 0)
    model, n = untrained(1), 4_000
    generator = torch.Generator().manual_seed(0)
    src = torch.tensor([[EOS]]).expand(n, 1)  # so one token each, or none for EOS
    outputs = sample(model, src, generator=generator, **options)
    drawn = torch.tensor([output[0] if output else EOS for output in outputs])
    counts = drawn.bincount(minlength=VOCAB)

    scores = next_log_probs(model, src[0], [[]])[0] / options.get("temperature", 1.0)
    by_rank = scores.softmax(-1).sort(descending=True)
    kept = options.get("top_k", VOCAB)
    probs = by_rank.values[:kept] / by_rank.values[:kept].sum()
    nucleus = 1
    while probs[:nucleus].sum() < options.get("top_p", 0.0):
        nucleus += 1
    if "top_p" in options:
        probs = probs[:nucleus] / probs[:nucleus].sum()
    expected = torch.zeros(VOCAB).double()
    expected[by_rank.indices[: len(probs)]] = n * probs

    assert counts[expected == 0].sum() == 0
    possible = expected > 0
    assert possible.sum() > 1
    chi_square = ((counts - expected) ** 2 / expected)[possible].sum()
    assert chi_square < 35  # with 8 degrees of freedom, 1 in 30,000 is above


PROBS = torch.tensor([[0.15, 0.5, 0.05, 0.3], [0.3, 0.05, 0.5, 0.15]])


@pytest.mark.parametrize(("p", "n_kept"), [(0.4, 1), (0.6, 2), (0.9, 3), (1.0, 4)])
def test_top_p_keeps_the_fewest_that_add_up(p, n_kept):
    kept = keep_top_p(PROBS.log(), p)
    best = PROBS.argsort(descending=True)[:, :n_kept]
    expected = torch.full_like(PROBS, -torch.inf)
    assert_close(kept, expected.scatter(1, best, PROBS.log().gather(1, best)))


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7])
def test_top_k_keeps_k(k):
    kept = keep_top_k(PROBS.log(), k)
    best = PROBS.argsort(descending=True)[:, :k]
    expected = torch.full_like(PROBS, -torch.inf)
    assert_close(kept, expected.scatter(1, best, PROBS.log().gather(1, best)))


# Bad input


@pytest.mark.parametrize(
    ("search", "options", "message"),
    [
        (sample, {"temperature": 0.0}, "temperature should be greater .*, not 0.0"),
        (sample, {"temperature": -1.0}, "temperature should be greater .*, not -1.0"),
        (sample, {"temperature": math.nan}, "temperature should be .*, not nan"),
        (sample, {"temperature": math.inf}, "temperature should be .*, not inf"),
        (sample, {"top_k": 0}, "top_k should be greater .* 1, not 0"),
        (sample, {"top_p": 0.0}, "top_p should be greater than 0, not 0.0"),
        (sample, {"top_p": 1.5}, "top_p should be less than or equal to 1, not 1.5"),
        (beam_search, {"beam_size": 0}, "beam_size should be .* 1, not 0"),
        (beam_search, {"beam_size": 4_000}, "beam_size should be .*256, not 4000"),
        (beam_search, {"alpha": 4_000.0}, "alpha should be .* 10, not 4000.0"),
        (beam_search, {"alpha": -0.5}, "alpha should be .* 0, not -0.5"),
    ],
)
def test_options_that_leave_nothing_to_do_are_refused(search, options, message):
    with pytest.raises(InputError, match=message):
        search(untrained(0), sources(0, LENGTHS), **options)
