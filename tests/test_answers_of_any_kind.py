"""Whatever an answer is, a check says so in words: no bare error of the check's own."""

import inspect

import numpy as np
import pytest
import torch

from annotated_transformer import checks
from annotated_transformer.errors import InputError
from tests.test_exercises import CHAPTERS

KINDS = {
    "a text": "x",
    "a number": 3,
    "NaN": float("nan"),
    "an empty list": [],
    "a dict": {"a": 1},
    "a tensor of one number": torch.tensor(1.0),
    "a matrix": torch.arange(15.0).view(3, 5),
    "an array": np.ones((3, 5)),
    "two things that are missing": (None, None),
    "a thing of its own": object(),
}
CHECKS = [name for name in checks.__all__ if name.startswith("check_")]
by_check = pytest.mark.parametrize("name", CHECKS)
FIRST = {}  # the first right answer to each exercise
for chapter in CHAPTERS:
    for row in chapter.RIGHT:
        FIRST.setdefault(*row)


def said(name, *answers):
    """What the check says, which is one short line; or the choice that it offers."""
    try:
        found = getattr(checks, name)(*answers)
    except InputError as error:
        found = str(error)
    assert isinstance(found, str)
    assert len(found) < 300 and "\n" not in found
    return found


def how_many(name):
    """How many answers a check takes."""
    parameters = inspect.signature(getattr(checks, name)).parameters.values()
    return sum(p.default is p.empty for p in parameters)


@by_check
def test_a_function_that_answers_another_kind_reads_so(name):
    for value in KINDS.values():
        said(name, *[lambda *_, value=value, **__: value] * how_many(name))


@by_check
def test_an_answer_that_is_no_function_reads_so(name):
    for value in KINDS.values():
        said(name, *[value] * how_many(name))
    if name in FIRST and inspect.isfunction(FIRST[name]):
        assert "give the check your function itself, not a str" in said(name, "x")


def spoiled(answer, value, calls):
    """The answer with another kind in each place: a number, or the second result."""
    if isinstance(answer, dict):
        for key, old in answer.items():
            yield {**answer, key: value}
            if isinstance(old, list | tuple):
                yield {**answer, key: [value, *old[1:]]}
    elif isinstance(answer, list):
        yield [value, *answer[1:]]
    elif inspect.isfunction(answer):

        def later(*arguments, **options):
            calls.append(1)
            return answer(*arguments, **options) if len(calls) < 2 else value

        yield later
    else:
        yield value


@pytest.mark.parametrize("name", FIRST)
def test_a_right_answer_that_is_of_another_kind_in_one_place_reads_so(name):
    right = FIRST[name] if isinstance(FIRST[name], tuple) else (FIRST[name],)
    for value in KINDS.values():
        for i, part in enumerate(right):
            calls = []  # a function that is asked once has no second result
            for wrong in spoiled(part, value, calls):
                found = said(name, *right[:i], wrong, *right[i + 1 :])
                assert found != "correct" or len(calls) == 1


def test_an_error_in_the_learners_own_lines_still_has_its_traceback():
    def forgets(layer, x, mask):
        return layer.self_attention(x, mask=mask) + None

    with pytest.raises(TypeError):
        checks.check_encoder(forgets)
    with pytest.raises(RuntimeError, match="at least 2 dimensions"):
        checks.check_sees_hidden(lambda attention: torch.linalg.det(torch.ones(1)))


def test_an_error_that_shows_no_line_of_the_learners_is_told_in_words():
    said_of_one = checks.check_encoder(lambda x: x)
    assert said_of_one.startswith("called by the check, it raises TypeError: ")
    assert said_of_one.endswith("takes 1 positional argument but 3 were given")
    assert "only integer tensors" in checks.check_softmax(bytes)
