"""The doctor finds nothing in healthy models, and names the fault of sick ones."""

import re
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from annotated_transformer.doctor import Patient, examine
from annotated_transformer.doctor.loading import examined
from annotated_transformer.doctor.report import NOTE, SKIPPED
from tests.patients.cases import collect
from tools import clinic, doctor_page

ROOT = Path(__file__).parents[1]
HEALTHY, SICK, NOTED = map(collect, ("HEALTHY", "SICK", "NOTED"))
FIRST = {case.cause: case for case in reversed(SICK)}  # one patient for each cause

NAMED_ELSEWHERE = {"model", "vocab_size", "src_vocab_size", "decoder_only"}

# x-transformers
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def chosen(case, request):
    """Skip what only a long run examines, and what is not installed."""
    if not all(map(find_spec, case.needs)):
        pytest.skip(f'needs {", ".join(case.needs)}: pip install -e ".[bench]"')
    extra = case.slow or (case.cause and case is not FIRST[case.cause])
    if extra and not request.config.getoption("--all-patients"):
        pytest.skip("only with --all-patients")


def report_on(case, seed=3):
    """The report on a patient, none of whose examinations broke down."""
    torch.manual_seed(seed)
    report = examine(case.build())
    down = "could not be examined"
    broken = [r.says for r in report.results if down in r.says]
    assert not broken
    return report


@pytest.mark.parametrize("case", HEALTHY, ids=lambda case: case.name)
def test_a_healthy_model_has_no_finding(case, request):
    chosen(case, request)
    report = report_on(case)
    assert report.healthy, str(report)
    assert [r for r in report.results if r.kind != SKIPPED]


@pytest.mark.parametrize("case", SICK, ids=lambda case: case.name)
def test_the_true_cause_is_among_the_first_two(case, request):
    chosen(case, request)
    report = report_on(case)
    assert case.cause in [cause.name for cause in report.causes[:2]], str(report)


@pytest.mark.parametrize("case", NOTED, ids=lambda case: case.name)
def test_what_is_worth_a_note_is_no_finding(case):
    report = report_on(case)
    assert report.healthy, str(report)
    noted = [name for note in report.of_kind(NOTE) for name in note.causes]
    assert case.cause in noted


@pytest.mark.parametrize("newcomer", clinic.newcomers(), ids=lambda it: it.name)
def test_files_by_others_are_judged_rightly(newcomer, request):
    if not request.config.getoption("--all-patients"):
        pytest.skip("only with --all-patients")
    assert clinic.now(newcomer, newcomer.report()) in ("named", "healthy")


def test_every_cause_has_a_patient():
    from annotated_transformer.doctor.causes import CAUSES

    assert {case.cause for case in [*SICK, *NOTED]} == set(CAUSES)
    assert len(SICK) >= 40 and len(HEALTHY) >= 8


def test_the_page_of_patients_lists_them_all():
    page = (ROOT / "book" / "patients.md").read_text("utf-8")
    rows = [line.split(" | ")[0] for line in page.splitlines() if line[:2] == "| "]
    names = {clinic.in_a_cell(case.name) for case in [*HEALTHY, *SICK]}
    names |= {newcomer.name for newcomer in clinic.newcomers()}
    assert {row.removeprefix("| ") for row in rows} >= names
    counts = [int(n) for n in re.findall(r"(\d+) (?:healthy models|sick ones)", page)]
    assert counts == [len(HEALTHY), len(SICK)]


def without_numbers(text):
    return re.sub(r"\d+(\.\d+)?", "#", text)


def test_the_doctor_s_page_prints_what_the_command_prints():
    page = doctor_page.PAGE.read_text("utf-8")
    found = doctor_page.PRINTED.search(page)
    assert without_numbers(found[0]) == without_numbers(doctor_page.printed())


def test_the_example_of_the_page_is_healthy_with_its_mask():
    report = examined(str(ROOT / "book" / "doctor" / "my_model.py") + ":build", None)
    assert report.healthy, str(report)


def test_the_page_names_every_part_and_every_examination():
    page = doctor_page.PAGE.read_text("utf-8").lower()
    parts = [part.name for part in fields(Patient) if part.name not in NAMED_ELSEWHERE]
    assert [name for name in parts if f"`{name}`" not in page] == []
    report = report_on(HEALTHY[0])
    names = {result.examination.split(",")[0] for result in report.results}
    assert [name for name in names if name.lower() not in page.replace("`", "")] == []
