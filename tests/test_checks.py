"""Checks as a learner alone uses them: short answers, in words, always an answer."""

import re
import subprocess
import sys

import nbformat
import numpy as np
import pytest
import torch
from trees import CHAPTER, DEEPER, small_course

from annotated_transformer import checks
from annotated_transformer.checks import (
    check_attention,
    check_causal_mask,
    check_layer_norm,
    common,
)
from annotated_transformer.errors import InputError
from tools import lanes
from tools.wrong_answers import ROOT

IMPORTED = r"^from annotated_transformer.checks import (.*)"
MOVED = sorted(ROOT.glob("annotated_transformer/checks/exercises/chapter_*.py"))


def test_a_check_says_not_done_yet_correct_or_what_is_wrong():
    assert check_causal_mask(None) == "not done yet"
    assert check_causal_mask(lambda n: None) == "not done yet"
    right = check_causal_mask(lambda n: torch.ones(n, n).bool().tril())
    assert right == "correct"
    wrong = check_causal_mask(lambda n: torch.ones(n, n).bool().triu())
    assert wrong == "reversed: it sees the future, and not its past"


def test_an_eps_that_is_an_argument_must_be_used_and_need_not_be_one():
    def norm(x, gain, bias, eps=1e-5):
        return torch.nn.functional.layer_norm(x, x.shape[-1:], gain, bias, eps)

    assert check_layer_norm(norm) == "correct"
    assert check_layer_norm(lambda x, gain, bias: norm(x, gain, bias)) == "correct"
    ignored = check_layer_norm(lambda x, gain, bias, eps=1e-5: norm(x, gain, bias))
    assert ignored == "eps is an argument: called with 0.01, yours takes another one"


def test_a_part_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(InputError, match="'maks': choose from average, mask, nowhere"):
        check_attention(lambda *_: None, "maks")


def test_a_word_that_has_no_sentence_is_named_with_those_that_have():
    with pytest.raises(InputError, match="no case 'sit': choose from take, wearing"):
        checks.check_guess("sit", "Boden")


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


def test_a_stub_is_not_done_yet_and_what_pytorch_can_not_do_is_an_error():
    def stub(length):
        raise NotImplementedError

    assert check_causal_mask(stub) == "not done yet"
    with pytest.raises(NotImplementedError, match="not implemented for 'Float'"):
        check_causal_mask(lambda n: torch.ones(n, n) & torch.ones(n, n))


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


def right_attention(query, key, value, mask):
    scores = query @ key.mT / query.size(-1) ** 0.5
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return weights.masked_fill(~mask, 0.0) @ value


def in_place(query, key, value, mask):
    query *= 2
    return right_attention(query / 2, key, value, mask)


def switched_off(*case):
    torch.set_grad_enabled(False)
    return right_attention(*case)


def by_numpy(query, key, value, mask):
    scores = torch.from_numpy(query.numpy() @ key.mT.numpy()) / query.size(-1) ** 0.5
    return right_attention(scores, torch.eye(key.size(1)), value, mask)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (in_place, "changes query, which is the caller's"),
        (switched_off, "gradients are switched off for good"),
        (lambda *case: right_attention(*case).detach(), "no gradient comes through"),
        (lambda q, k, *rest: right_attention(q.detach(), k, *rest), "for q comes"),
    ],
)
def test_a_bad_habit_costs_the_first_part_and_no_other(answer, said):
    assert said in check_attention(answer)
    assert said in check_attention(answer, "average")
    assert check_attention(answer, "mask") == "correct"
    assert check_attention(answer, "nowhere") == "correct"
    assert torch.is_grad_enabled()


def test_a_bad_habit_that_shows_late_costs_the_part_in_which_it_shows():
    def late(query, key, value, mask):
        if not mask.any(-1).all():  # a query that may look nowhere
            value.mul_(1.0).add_(1).sub_(1).zero_()
            return torch.zeros(*query.shape[:2], value.size(-1))
        return right_attention(query, key, value, mask)

    assert check_attention(late, "average") == "correct"
    assert check_attention(late, "mask") == "correct"
    assert "changes value" in check_attention(late, "nowhere")


def test_a_bad_habit_does_not_hide_wrong_numbers_from_later_parts():
    def wrong(query, key, value, mask):
        query *= 2
        return right_attention(query, key, value, mask)

    assert "changes query" in check_attention(wrong, "average")
    assert "changes query" not in check_attention(wrong, "mask")


def test_numpy_on_the_way_is_named():
    def softmax(scores):
        e = np.exp(scores.numpy() - scores.numpy().max(-1, keepdims=True))
        return torch.from_numpy(e / e.sum(-1, keepdims=True))

    assert "through NumPy" in checks.check_softmax(softmax)


def test_an_argument_that_a_call_uses_up_is_made_anew():
    answer = common.Answer(lambda numbers: sum(numbers))
    numbers = common.Fresh(lambda: iter([1, 2, 3]))
    assert [answer(numbers), common.ask(answer, numbers)] == [6, 6]


def test_the_case_that_differs_is_named():
    with pytest.raises(common.Mistake, match="for n = 2 it should be 4, not 5: square"):
        common.compare([1, 5], [1, 4], hint="square", cases=["n = 1", "n = 2"])


def test_a_check_that_draws_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    checks.check_tie(lambda model: None)
    assert torch.equal(torch.get_rng_state(), state)


def test_grade_raises_what_was_found_and_asks_about_copied_numbers():
    common.grade("correct")
    with pytest.raises(common.NotCorrect, match="^off by one$"):
        common.grade("off by one")
    with pytest.raises(common.NotCorrect, match="fresh numbers. off by one. Is some"):
        common.grade("off by one", fresh=True)


def test_a_factor_that_is_all_that_differs_is_named():
    right = torch.randn(2, 3, generator=common.seeded(0))

    def said(answer):
        with pytest.raises(common.Mistake) as found:
            common.compare(answer, right, hint="Eq. 1")
        return str(found.value)

    assert ", as all numbers are 3 times what they should be: Eq. 1" in said(3 * right)
    assert ", as all numbers are -1 times what" in said(-right)
    unlike = [right + 1, right * 0, right.abs(), right / 0, right.T, right[0]]
    for other in (*unlike, right * 1.001):
        assert "times" not in said(other)


@pytest.mark.parametrize("module", MOVED, ids=lambda path: path.stem)
def test_a_chapter_imports_its_checks_and_the_package_exports_them(module):
    total = 0
    for path in notebooks_of(module.stem[-2:]):
        cells = nbformat.read(path, as_version=4).cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        lines = re.findall(IMPORTED, code, re.MULTILINE)
        imported = [name for line in lines for name in line.split(", ")]
        assert set(imported) <= set(checks.__all__)
        tagged = [cell for cell in cells if "check" in cell.metadata.get("tags", [])]
        names = [re.findall(r"check_\w+", cell.source)[0] for cell in tagged]
        assert set(names) == set(imported)
        total += len(tagged)
    assert total >= 3


def notebooks_of(number, root=ROOT):
    """A chapter and what goes deeper: their exercises share one module of checks."""
    paths = lanes.core(root) + lanes.deeper(root)
    return [path for path in paths if lanes.number(path) == number]


def test_exercises_may_stand_in_what_goes_deeper(tmp_path):
    found = notebooks_of("04", small_course(tmp_path))
    assert [lanes.name(path) for path in found] == [CHAPTER, DEEPER]


def test_every_name_that_is_exported_exists():
    for name in checks.__all__:
        assert callable(getattr(checks, name))
    assert checks.__all__ == sorted(set(checks.__all__))


def test_the_model_is_loaded_by_the_first_check_that_asks_it():
    code = """
from annotated_transformer.checks import check_swap
from annotated_transformer.checks.exercises.chapter_00 import pretrained
print(pretrained.cache_info().currsize, check_swap("Die Katze."))
print(pretrained.cache_info().currsize)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"0 five words are needed.*\n0\n", done.stdout)
