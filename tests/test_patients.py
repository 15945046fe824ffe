"""The doctor's patients: they build and run, and the healthy ones learn."""

import pytest
import torch
import torch.nn.functional as F

from annotated_transformer.doctor.causes import CAUSES
from annotated_transformer.doctor.patient import Ids
from annotated_transformer.doctor.visit import Visit
from tests.patients.cases import Case, collect

# nn.Transformer's fast path in eval() packs padded batches, and says that it is new.
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")

HEALTHY, SICK = collect("HEALTHY"), collect("SICK")
LENGTHS = [(7, 3), (5, 6), (2, 4)]  # words of source and target in each row


def named(cases: list[Case]) -> list:
    """One test a case, under its name."""
    return [pytest.param(case, id=case.name) for case in cases if not case.slow]


def visit(case: Case, seed: int) -> Visit:
    """A visit of this case, whose weights come from this seed."""
    for package in case.needs:
        pytest.importorskip(package)
    torch.manual_seed(seed)
    return Visit(case.build())


def test_every_name_is_given_once():
    names = [case.name for case in HEALTHY + SICK]
    assert len(names) == len(set(names))


def test_healthy_ones_have_nothing_and_sick_ones_a_known_cause():
    assert {(case.says, case.cause) for case in HEALTHY} == {("", None)}
    for case in SICK:
        assert case.says and case.cause in CAUSES, case.name


@pytest.mark.parametrize("case", named(HEALTHY + SICK))
def test_each_runs_on_a_padded_batch(case):
    for seed in range(3):
        visited = visit(case, seed)
        *src, tgt = visited.sentences(LENGTHS)
        with torch.no_grad():
            logits = visited.logits(*src, tgt[:, :-1])
        assert logits.dim() == 3 and len(logits) == len(tgt)


def mean_loss(visited: Visit, batch: tuple[Ids, ...]) -> float:
    """Cross entropy over real labels, which is the same for log-probabilities."""
    *src, tgt = batch
    with torch.no_grad():
        logits = visited.logits(*src, tgt[:, :-1])
    pad = -100 if visited.patient.pad is None else visited.patient.pad
    return float(F.cross_entropy(logits.mT, tgt[:, 1:], ignore_index=pad))


@pytest.mark.parametrize("case", named(HEALTHY))
def test_healthy_ones_learn_one_batch(case):
    visited = visit(case, seed=0)
    train_step = visited.patient.train_step
    if train_step is None:
        pytest.skip("it comes without a training step")
    batch = visited.sentences(LENGTHS)
    before = after = mean_loss(visited, batch)
    for step in range(200):
        train_step([batch])
        if step % 20 == 19 and (after := mean_loss(visited, batch)) < before / 2:
            break
    assert after < before / 2


@pytest.mark.parametrize("case", named(HEALTHY))
def test_healthy_ones_update_once_from_several_pieces(case):
    visited = visit(case, seed=0)
    patient = visited.patient
    if patient.train_step is None or patient.optimizer is None:
        pytest.skip("it comes without a training step or an optimizer")
    updates = []
    patient.optimizer.register_step_post_hook(lambda *_: updates.append(1))
    patient.train_step([visited.sentences(LENGTHS), visited.sentences(LENGTHS[:1])])
    assert len(updates) == 1


@pytest.mark.parametrize("case", named(HEALTHY + SICK))
def test_greedy_gives_a_row_for_each_source(case):
    visited = visit(case, seed=0)
    if visited.patient.greedy is None or visited.patient.decoder_only:
        pytest.skip("it comes without a translation of its own")
    src, _ = visited.sentences(LENGTHS)
    assert len(visited.patient.greedy(src)) == len(src)
