"""The report in words and as JSON: worst first, both numbers, nothing hostile."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from annotated_transformer.doctor.causes import CAUSES
from annotated_transformer.doctor.report import Report, Result, chapter_title

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def result(name="heads", kind="finding", says="3 pieces count 3.0 times", **more):
    return Result(examination=name, kind=kind, says=says, **more)


@pytest.fixture
def sick():
    """Two findings, the worse one last; a note, and what was healthy and skipped."""
    return Report(
        [
            result("the loss", says="a symptom", causes=["init_large"], weight=10),
            result("masks", "healthy", "nothing leaks"),
            result("greedy search", "skipped", "give greedy=..."),
            result("rows", "note", "rows are long", measured="41", expected="below 30"),
            result(
                "accumulation",
                measured="3.0 times",
                expected="1.0 times",
                causes=["accumulation_not_divided", "mean_of_means", "init_large"],
                weight=60,
            ),
        ],
        {"floor": 0.5},
    )


def test_the_verdict_comes_first_then_a_line_for_each_finding_worst_first(sick):
    first, second, third, *_ = str(sick).splitlines()
    assert first == "Not healthy: 2 findings. Begin with the first."
    assert second == "  1. 3 pieces count 3.0 times"
    assert third == "  2. A symptom"


def test_details_hold_both_numbers_and_the_causes_with_their_chapters(sick):
    text = sick.text()
    assert "measured  3.0 times" in text and "expected  1.0 times" in text
    for name in ("accumulation_not_divided", "mean_of_means", "init_large"):
        assert CAUSES[name].title in text and CAUSES[name].confirm in text
    order = [text.index(CAUSES[name].title) for name in sick.findings[0].causes]
    assert order == sorted(order)
    assert "chapter 09, Training loop" in text


def test_notes_healthy_and_skipped_close_the_report(sick):
    text = sick.text()
    assert "rows are long (measured: 41; expected: below 30)" in text
    *_, healthy, _, skipped = text.splitlines()
    assert healthy == "Healthy: masks."
    assert skipped == "Skipped: greedy search (give greedy=...)."


def test_causes_are_each_findings_first_and_then_the_rest(sick):
    assert [cause.name for cause in sick.causes] == [
        *("accumulation_not_divided", "init_large", "mean_of_means")
    ]


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        ([], "Nothing examined."),
        ([result(kind="skipped")], "Nothing examined."),
        ([result(kind="healthy")], "Healthy: 1 examination found nothing wrong."),
        ([result(kind="healthy")] * 2, "Healthy: 2 examinations found nothing wrong."),
        ([result(), result(kind="note")], "Not healthy: 1 finding."),
    ],
)
def test_the_verdict(results, verdict):
    assert Report(results, {}).verdict == verdict


def test_lines_fit_a_terminal_and_control_characters_do_not_reach_it():
    hostile = "\x1b[2J\x07 name\nof \u202e a file " + "very " * 40 + "x" * 100
    causes = list(CAUSES)
    report = Report(
        [
            result(hostile, kind, hostile, measured=hostile, causes=causes)
            for kind in ("finding", "note", "healthy", "skipped")
        ],
        {},
    )
    text = report.text()
    assert max(map(len, text.splitlines())) <= 88
    assert all(c.isprintable() or c == "\n" for c in text)


def test_json_is_strict_whatever_the_facts_are():
    facts = {
        "nan": math.nan,
        "inf": np.array([1.0, -math.inf]),
        "tensor": torch.tensor([[1.5, math.nan]]),
        1: {"set": {2}, "device": torch.device("cpu"), "shape": torch.Size([2, 3])},
        "number": np.float32(0.5),
    }
    report = Report([result(measured="inf", weight=math.inf)], facts)

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    value = json.loads(report.to_json(), parse_constant=refuse)
    assert value["facts"] == {
        "nan": None,
        "inf": [1.0, None],
        "tensor": [[1.5, None]],
        "1": {"set": [2], "device": "cpu", "shape": [2, 3]},
        "number": 0.5,
    }
    assert value["findings"][0]["says"] == "3 pieces count 3.0 times"


def test_json_holds_verdict_findings_causes_and_results(sick):
    value = json.loads(sick.to_json())
    assert value["verdict"] == sick.verdict and value["healthy"] is False
    assert [row["weight"] for row in value["findings"]] == [60, 10]
    assert value["causes"][0]["name"] == "accumulation_not_divided"
    assert len(value["results"]) == 5 and value["facts"] == {"floor": 0.5}


def test_each_cause_names_a_chapter_that_exists():
    for cause in CAUSES.values():
        assert (NOTEBOOKS / f"{cause.chapter}.ipynb").is_file(), cause
    assert chapter_title("03_masks") == "chapter 03, Masks"
