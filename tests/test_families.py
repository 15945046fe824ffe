"""One stack and a mask: what each family may see, and what a study asks of it."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from annotated_transformer.config import TransformerConfig
from annotated_transformer.families import (
    Classifier,
    DecoderOnly,
    EncoderOnly,
    OneStack,
)
from annotated_transformer.lessons import layer_pairs, shaken
from annotated_transformer.masks import causal_mask
from annotated_transformer.special import PAD
from annotated_transformer.studies import families, serial

FAMILIES = (DecoderOnly, EncoderOnly)


def small(family, **changes):
    torch.manual_seed(0)
    sizes = {"d_model": 6, "d_ff": 10, "n_heads": 3, "n_layers": 2, "dropout": 0.0}
    config = TransformerConfig(**{"vocab_size": 13, "norm": "pre", **sizes, **changes})
    with torch.no_grad():
        return shaken(family(config).eval())


def moved(model, position):
    """At which positions another token here changes the logits."""
    ids = torch.tensor([[1, 5, 6, 7, 2]])
    other = ids.clone()
    other[0, position] = 9
    return (model(ids) != model(other)).any(-1)[0].tolist()


@pytest.mark.parametrize("position", range(5))
def test_no_future_token_reaches_the_past_of_a_decoder_only_model(position):
    assert moved(small(DecoderOnly), position) == [i >= position for i in range(5)]


@pytest.mark.parametrize("position", range(5))
def test_every_token_reaches_both_sides_of_an_encoder_only_model(position):
    assert all(moved(small(EncoderOnly), position))


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_at_the_end_changes_nothing(family):
    ids = torch.tensor([[1, 5, 6, 7, 2], [1, 8, 3, 4, 2]])
    model = small(family)
    torch.testing.assert_close(model(F.pad(ids, (0, 3)))[:, :5], model(ids))


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_equals_pytorchs_encoder_with_copied_weights(family, norm):
    model = small(family, norm=norm)
    layer = nn.TransformerEncoderLayer(
        6, 3, 10, dropout=0.0, batch_first=True, norm_first=norm == "pre"
    )
    end = nn.LayerNorm(6) if norm == "pre" else nn.Identity()
    twin = nn.TransformerEncoder(layer, 2, end, enable_nested_tensor=False)
    with torch.no_grad():
        for ours, theirs in zip(model.stack.layers, twin.layers, strict=True):
            for a, b in layer_pairs(ours, theirs):
                b.copy_(a)
        for a, b in zip(model.stack.norm.parameters(), end.parameters(), strict=True):
            b.copy_(a)
    ids = torch.tensor([[1, 5, 6, 7, 2], [1, 8, 2, PAD, PAD]])
    x = model.positions(model.embeddings(ids))
    if family is DecoderOnly:
        found = twin(x, mask=~causal_mask(5))
    else:
        found = twin(x, src_key_padding_mask=ids == PAD)
    real = ids != PAD
    torch.testing.assert_close(model.features(ids)[real], found[real])


def test_a_stack_without_a_family_has_no_mask():
    with pytest.raises(NotImplementedError, match="take DecoderOnly or EncoderOnly"):
        small(OneStack)(torch.tensor([[1, 2]]))


def test_a_classifier_averages_real_tokens_and_begins_without_an_opinion():
    torch.manual_seed(0)
    model = Classifier(small(EncoderOnly), 4)
    ids = torch.tensor([[1, 5, 6, 2]])
    assert not model(ids).any()
    nn.init.normal_(model.output.weight)
    expected = model.output(model.reader.features(ids).mean(1))
    torch.testing.assert_close(model(ids), expected)
    torch.testing.assert_close(model(F.pad(ids, (0, 3))), expected)


def test_captions_differ_name_who_acts_and_hold_out_no_new_word():
    data = families.captions()
    texts = [data.text(row) for row in data.ids[:300].tolist()]
    assert len(set(texts)) == 300
    held_out = data.ids[families.TRAIN :]
    assert len(held_out) == families.HELD_OUT
    assert (held_out == 3).sum() <= 3  # <unk>
    rows = [(t, y) for t, y in zip(texts, data.labels.tolist(), strict=False)]
    for text, label in rows:
        if text.startswith(("a man is", "two girls are", "the woman is")):
            assert families.ACTORS[label] == "person"
        if text.startswith(("a dog is", "the cats are")):
            assert families.ACTORS[label] == "pet"
        if text.startswith(("a cow is", "the horses are")):
            assert families.ACTORS[label] == "farm"
    assert set(data.labels.tolist()) == {0, 1, 2}


def test_the_caption_that_begins_with_while_is_about_its_second_clause():
    data = families.captions()
    for row, label in zip(data.ids[:2000].tolist(), data.labels.tolist(), strict=False):
        first, _, second = data.text(row).partition(" , ")
        if first.startswith("while ") and second.split()[1] in ("dog", "cat", "monkey"):
            assert families.ACTORS[label] == "pet"


def test_hidden_words_are_masked_exchanged_and_kept_eight_one_one():
    data = families.captions()
    ids = data.ids[: families.TRAIN]
    inputs, labels = families.hide(
        ids, len(data.words), torch.Generator().manual_seed(5)
    )
    chosen, words = labels != PAD, ids > families.MASK
    assert not (chosen & ~words).any()
    assert (inputs == ids)[~chosen].all()
    assert torch.equal(labels[chosen], ids[chosen])
    assert chosen.sum().item() / words.sum().item() == pytest.approx(0.15, abs=0.01)
    masked = (inputs == families.MASK)[chosen].double().mean().item()
    kept = (inputs == ids)[chosen].double().mean().item()
    assert masked == pytest.approx(0.8, abs=0.01)
    assert kept == pytest.approx(0.1 * (1 + 1 / len(data.words)), abs=0.01)


def test_f1_and_accuracy_on_paper():
    table = torch.tensor([[6, 3], [1, 10]])
    assert families.accuracy(table) == pytest.approx(0.8)
    assert families.f1(table).tolist() == pytest.approx([12 / 16, 20 / 24])


def test_perplexity_is_the_exp_of_the_mean_loss_of_real_tokens():
    torch.manual_seed(0)
    model = DecoderOnly(families.config(len(families.captions().words))).eval()
    nn.init.zeros_(model.embeddings.weight)  # all tokens alike
    vocab = len(families.captions().words)
    assert families.perplexity(model) == pytest.approx(vocab, rel=1e-4)
    assert math.log(vocab) > 0


def test_the_rules_of_the_serial_tasks_step_by_step():
    g = torch.Generator().manual_seed(3)
    for name, task in serial.TASKS.items():
        ids, states = serial.questions(name, 7, 11, g)
        symbols = (ids - serial.SYMBOL).tolist()
        for row, found in zip(symbols, (states - serial.STATE).tolist(), strict=True):
            state, before, expected = 0, 0, []
            for symbol in row:
                if name == "cups":
                    a, b = serial.SWAPS[symbol]
                    state = {a: b, b: a}.get(state, state)
                elif name == "pairs":
                    state, before = (before + symbol) % 5, symbol
                else:
                    state = (state + symbol) % task.n_states
                expected.append(state)
            assert found == expected
        assert ids.max() < serial.VOCAB and ids.min() >= serial.SYMBOL > states.max()


def test_a_direct_answer_and_a_scratchpad_never_see_the_state_they_must_give():
    symbols, states = serial.questions("cups", 2, 5, torch.Generator().manual_seed(0))
    for kind in ("direct", "scratchpad"):
        torch.manual_seed(0)
        network = serial.build(kind, 1)
        other = states.clone()
        other[:, 3] = 1 + other[:, 3] % 5
        before, after = (
            serial.scores(network, kind, symbols, s) for s in (states, other)
        )
        assert torch.equal(before[:, :4], after[:, :4])


def test_what_a_model_writes_alone_is_what_it_scores_highest_given_its_own_states():
    symbols, _ = serial.questions("parity", 3, 5, torch.Generator().manual_seed(0))
    for kind in ("direct", "scratchpad", "gru"):
        torch.manual_seed(1)
        network = serial.build(kind, 1)
        written = serial.answers(network, kind, symbols)
        again = serial.scores(network, kind, symbols, written).argmax(-1)
        assert torch.equal(written, again)


def test_without_its_residual_attention_alone_carries_the_stream():
    torch.manual_seed(0)
    network = serial.build("scratchpad, no residual", 1)
    layer = network.stack.layers[0]
    nn.init.zeros_(layer.self_attention.output.weight)
    seen = network.features(torch.tensor([[1, 6, 7]]))
    assert torch.equal(seen[:, 0], seen[:, 2])  # nothing is left of the tokens
