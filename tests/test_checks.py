"""Checks as a learner alone uses them: short answers, in words, always an answer."""

import re

import nbformat
import pytest
import torch

from annotated_transformer import checks
from annotated_transformer.checks import check_attention, check_causal_mask, common
from annotated_transformer.errors import InputError
from tools.wrong_answers import ROOT

MOVED = sorted(ROOT.glob("annotated_transformer/checks/chapter_*.py"))


def test_a_check_says_not_done_yet_correct_or_what_is_wrong():
    assert check_causal_mask(None) == "not done yet"
    assert check_causal_mask(lambda n: None) == "not done yet"
    right = check_causal_mask(lambda n: torch.ones(n, n).bool().tril())
    assert right == "correct"
    wrong = check_causal_mask(lambda n: torch.ones(n, n).bool().triu())
    assert wrong == "reversed: it sees the future, and not its past"


def test_a_part_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(InputError, match="'maks': choose from average, mask, nowhere"):
        check_attention(lambda *_: None, "maks")


def test_an_answer_that_never_ends_is_stopped(monkeypatch):
    def forever(length):
        while True:
            pass

    monkeypatch.setattr(common, "SECONDS", 0.2)
    found = check_causal_mask(forever)
    assert found == "no answer after 0.2 seconds: does your loop end?"


def test_an_error_in_the_answer_comes_through_with_its_traceback():
    with pytest.raises(ZeroDivisionError):
        check_causal_mask(lambda n: 1 / 0)


def test_a_check_gives_copies_and_leaves_no_trace(capsys):
    def careless(query, key, value, mask):
        import warnings

        warnings.warn("noise", stacklevel=1)
        torch.set_grad_enabled(False)
        query.zero_()
        return query

    state = torch.get_rng_state()
    assert check_attention(careless) == check_attention(careless)
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    assert capsys.readouterr().err == ""


def test_grade_raises_what_was_found_and_asks_about_copied_numbers():
    common.grade("correct")
    with pytest.raises(common.NotCorrect, match="^off by one$"):
        common.grade("off by one")
    with pytest.raises(common.NotCorrect, match="fresh numbers. off by one. Is some"):
        common.grade("off by one", fresh=True)


@pytest.mark.parametrize("module", MOVED, ids=lambda path: path.stem)
def test_a_chapter_imports_its_checks_and_the_package_exports_them(module):
    (path,) = ROOT.glob(f"notebooks/{module.stem[-2:]}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    imported = re.findall(r"^from annotated_transformer.checks import (.*)", code, re.M)
    assert set(imported) <= set(checks.__all__)
    asked = [cell.source for cell in cells if "check" in cell.metadata.get("tags", [])]
    assert len(asked) >= 3
    names = [re.findall(r"check_\w+", source)[0] for source in asked]
    assert set(names) == set(imported)


def test_every_name_that_is_exported_exists():
    for name in checks.__all__:
        assert callable(getattr(checks, name))
    assert checks.__all__ == sorted(set(checks.__all__))
