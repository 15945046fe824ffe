"""Minimum-risk training: what is drawn, what it is charged, and that it learns."""

import pytest
import torch

from annotated_transformer import runs
from annotated_transformer.batches import collate
from annotated_transformer.config import TrainingConfig
from annotated_transformer.decoding import sample
from annotated_transformer.errors import InputError
from annotated_transformer.objectives import ConsistentObjective, Objective
from annotated_transformer.risk import (
    DRAWS,
    Draws,
    RiskObjective,
    bleu_reward,
    rewarded,
)
from annotated_transformer.special import EOS, PAD
from annotated_transformer.tokenizers import SubwordTokenizer
from annotated_transformer.training import adam, cut, train_step
from tests.test_runs import PAIRS, SHORT, recipe, run_once, write
from tests.test_training import new_model, random_pairs


def share_of_fives(ids, reference):
    return sum(i == 5 for i in ids) / max(1, len(ids))


def risky(model, *, risk=2.0, reward=share_of_fives):
    return RiskObjective(model, 0.1, risk, reward)


def test_a_draw_leads_by_its_reward_over_the_mean_of_the_others():
    rewards = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0.5] * 6])
    draws = Draws([([5, EOS], [6, EOS])] * 2 * DRAWS, rewards, torch.device("cpu"))
    others = (rewards.sum(-1, keepdim=True) - rewards) / (DRAWS - 1)
    torch.testing.assert_close(draws.lead, rewards - others)
    assert (draws.lead[1] == 0).all()


def test_the_log_probability_of_a_draw_is_that_of_its_tokens():
    model, pairs = new_model().eval(), random_pairs(DRAWS)
    together = risky(model).log_probs(collate(pairs))
    for pair, found in zip(pairs, together[0], strict=True):
        batch = collate([pair])
        says = model(batch.src, batch.tgt_in)[0]
        says[:, PAD] = -torch.inf
        each = says.log_softmax(-1).gather(-1, batch.labels.T)
        torch.testing.assert_close(found, each.sum())


def test_the_charge_is_the_lead_times_the_log_probability():
    batch, model = collate(random_pairs(4)), new_model(dropout=0.5).train()
    objective = risky(model)
    torch.manual_seed(3)
    loss = objective(batch)
    assert model.training
    torch.manual_seed(3)  # the same dropout, and the same draws
    plain = Objective(model, 0.1)(batch)
    model.eval()
    rows = batch.src.repeat_interleave(DRAWS, 0)
    outputs = sample(model, rows)
    rewards = torch.tensor([share_of_fives(o, None) for o in outputs]).view(4, DRAWS)
    others = (rewards.sum(-1, keepdim=True) - rewards) / (DRAWS - 1)
    drawn = collate(
        [(s, [*o, EOS]) for s, o in zip(rows.tolist(), outputs, strict=True)]
    )
    log_probs = objective.log_probs(drawn)
    charge = ((rewards - others) * log_probs).sum() / DRAWS
    assert charge.abs() > 0.01
    torch.testing.assert_close(loss, plain - 2 * charge)


def test_what_is_rewarded_becomes_likelier():
    pairs, model = random_pairs(16), new_model().train()
    objective, optimizer = risky(model, risk=40.0), adam(model)
    optimizer.param_groups[0]["lr"] = 0.01

    def reward():
        torch.manual_seed(0)
        outputs = sample(model, collate(pairs).src.repeat(20, 1))
        return sum(share_of_fives(o, None) for o in outputs) / len(outputs)

    before = reward()
    torch.manual_seed(1)
    for _ in range(25):
        model.train()
        n_tokens = sum(len(tgt) for _, tgt in pairs)
        train_step(objective, optimizer, cut(pairs, 2), n_tokens=n_tokens)
    assert reward() > before + 0.2


def test_blanks_and_validation_are_not_translated():
    model = new_model().train()

    def never(ids, reference):
        raise AssertionError

    objective = risky(model, reward=never)
    assert objective(cut(random_pairs(1), 2)[1]).item() == 0
    model.eval()
    batch = collate(random_pairs(5))
    plain = Objective(model, 0.1).eval()(batch)
    assert objective.eval()(batch).item() == plain.item()


def test_the_reward_is_the_bleu_of_the_decoded_text():
    tokenizer = SubwordTokenizer.train(PAIRS, vocab_size=150)
    reward, english = bleu_reward(tokenizer), [pair[1] for pair in PAIRS[:2]]
    first, second = map(tokenizer.encode_target, english)
    assert reward(first[:-1], first) == pytest.approx(1)
    assert reward(first[:-1], [*first, PAD]) == pytest.approx(1)  # padding is no text
    assert 0 <= reward(second[:-1], first) < 1
    assert reward([], first) == 0


def test_the_settings_choose_the_objective():
    tokenizer = SubwordTokenizer.train(PAIRS, vocab_size=150)
    kinds = {
        kind: type(rewarded(tokenizer)(new_model(), TrainingConfig(**changes)))
        for kind, changes in {
            Objective: {},
            ConsistentObjective: {"consistency": 5.0},
            RiskObjective: {"risk": 40.0},
        }.items()
    }
    assert all(kind is found for kind, found in kinds.items())
    with pytest.raises(InputError, match="two objectives"):
        TrainingConfig(consistency=5.0, risk=40.0)


def test_a_run_of_risk_is_the_same_every_time(tmp_path):
    corpus = write(tmp_path / "pairs.tsv", PAIRS[:100])
    config = vars(SHORT) | {"risk": 5.0, "steps": 2, "batch_tokens": 200}
    chosen = recipe(corpus)
    chosen = type(chosen)(**vars(chosen) | {"training": TrainingConfig(**config)})
    first, second = (
        run_once(tmp_path / name, chosen)[-1]["loss"] for name in ("first", "second")
    )
    assert first == second
    assert runs.recipe_of(tmp_path / "first").training.risk == 5.0
