"""The patients of chapter 18: one fault each, which the doctor finds, no page tells."""

import json

import pytest
import torch
from trees import ROOT

from annotated_transformer.doctor import examine, ward
from annotated_transformer.doctor.causes import CAUSES
from annotated_transformer.errors import InputError

SICK = range(1, len(ward.BEDS))


def test_patient_0_is_healthy():
    assert examine(ward.patient(0)).healthy


@pytest.mark.parametrize("number", SICK)
def test_the_doctor_names_the_fault_of_a_patient_first(number):
    report = examine(ward.patient(number))
    assert report.causes[0].name == ward.BEDS[number].cause, str(report)


def test_all_faults_differ_and_have_a_measurement():
    faults = [(bed.cause, bed.look) for bed in ward.BEDS[1:]]
    assert len({cause for cause, _ in faults}) == len(faults) == 7
    assert {cause for cause, _ in faults} <= set(CAUSES)
    assert all(look for _, look in faults)


@pytest.mark.parametrize("number", SICK)
def test_a_wrong_diagnosis_gets_a_measurement_and_never_the_answer(number):
    right = ward.BEDS[number].cause
    assert ward.diagnose(number, right) == "right"
    assert ward.diagnose(number, None) == "not done yet"
    for wrong in set(CAUSES) - {right}:
        said = ward.diagnose(number, wrong)
        assert ward.BEDS[number].look in said
        assert right not in said


def test_a_misspelled_cause_is_told():
    assert ward.diagnose(2, "causal_mask").endswith("did you mean causal_mask_missing?")
    assert ward.diagnose(2, "flu") == "no cause is called flu"


def test_other_numbers_are_refused():
    with pytest.raises(InputError, match="no patient 8: take 0 to 7"):
        ward.patient(8)
    for number in (0, 8):
        with pytest.raises(InputError, match=f"patient {number} is not sick"):
            ward.diagnose(number, "flu")


def test_the_seed_decides_the_weights_and_nothing_else_is_drawn():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    same, again, other = (ward.patient(1, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    weights = [torch.cat([p.flatten() for p in x.module.parameters()]) for x in
               (same, again, other)]  # fmt: skip
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_chapter_does_not_give_the_six_answers_away():
    path = ROOT / "notebooks" / "18_when_training_goes_wrong.ipynb"
    text = json.dumps(json.loads(path.read_text("utf-8"))["cells"])
    for number in range(1, 7):
        assert ward.BEDS[number].cause not in text
