"""Submissions whose cells were copied, split or stripped, mended before grading."""

from copy import deepcopy

import nbformat
import pytest
from nbgrader.preprocessors import ClearSolutions

from annotated_transformer.checks.repair import HIDDEN, named, repaired
from tools.wrong_answers import SOURCES

SET = {path.stem: path for path in SOURCES}


def model_of(stem):
    """The problem set as released, but for its hidden tests."""
    notebook = nbformat.read(SET[stem], as_version=4)
    step = ClearSolutions(code_stub={"python": "# your code\n..."})
    return step.preprocess(notebook, {})[0].cells


def perfect(stem):
    """What a student hands in who solved everything."""
    cells = nbformat.read(SET[stem], as_version=4).cells
    for cell in cells:
        cell.source = HIDDEN.sub("", cell.source)
        cell.id = cell.get("id", "x")
    return cells


def at(cells, name):
    """Where the cell of this name is."""
    return next(
        i for i, cell in enumerate(cells) if named(cell).get("grade_id") == name
    )


def answers(cells):
    """The texts by name; each name must be there once."""
    names = [named(cell)["grade_id"] for cell in cells if named(cell)]
    assert len(names) == len(set(names))
    return {named(c)["grade_id"]: c.source.strip() for c in cells if named(c)}


def mended(cells, stem="ps1_model"):
    """The answers after the repair, in the order of the model, and the notes."""
    model = model_of(stem)
    cells, notes = repaired(deepcopy(cells), model)
    for cell in cells:
        if named(cell):
            assert named(cell) == named(model[at(model, named(cell)["grade_id"])])
    return answers(cells), notes


RIGHT = {stem: answers(perfect(stem)) for stem in SET}


@pytest.mark.parametrize("stem", SET)
def test_a_whole_submission_stays_as_it_is(stem):
    assert mended(perfect(stem), stem) == (RIGHT[stem], [])


@pytest.mark.parametrize("name", ["masks", "attention_mask", "experiment_root_reading"])
@pytest.mark.parametrize("place", [1, 5])
def test_a_copied_cell_is_dropped(name, place):
    cells = perfect("ps1_model")
    i = at(cells, name)
    cells.insert(min(i + place, len(cells)), deepcopy(cells[i]))
    assert mended(cells) == (
        RIGHT["ps1_model"],
        [f"Copies of the cell `{name}` were dropped: keep each cell once."],
    )


@pytest.mark.parametrize("place", [-1, 1])
def test_an_empty_copy_of_an_answer_does_not_win(place):
    cells = perfect("ps1_model")
    i = at(cells, "masks")
    model = model_of("ps1_model")
    cells.insert(i + max(place, 0), deepcopy(model[at(model, "masks")]))
    assert mended(cells)[0] == RIGHT["ps1_model"]


@pytest.mark.parametrize("line", range(1, 12))
@pytest.mark.parametrize("labeled", [True, False])
def test_a_split_answer_is_joined_wherever_it_was_split(line, labeled):
    cells = perfect("ps1_model")
    i = at(cells, "masks")
    lines = cells[i].source.splitlines()
    rest = deepcopy(cells[i])
    cells[i].source = "\n".join(lines[:line])
    rest.source = "\n".join(lines[line:])
    if not labeled:  # as Colab does
        rest.metadata.pop("nbgrader")
    cells.insert(i + 1, rest)
    found, notes = repaired(deepcopy(cells), model_of("ps1_model"))
    before = "\n".join(c.source for c in found[: at(found, "masks_padding")])
    assert "".join(RIGHT["ps1_model"]["masks"].split()) in "".join(before.split())
    assert len(answers(found)) == len(RIGHT["ps1_model"])
    if labeled:
        assert notes and "`masks` stood in 2 cells. They were joined" in notes[0]


@pytest.mark.parametrize("stem", SET)
def test_dropped_metadata_come_back(stem):
    cells = perfect(stem)
    for cell in cells:
        cell.metadata.clear()
    found, notes = mended(cells, stem)
    assert found == RIGHT[stem]
    (note,) = notes
    assert note.startswith("Your notebook came without the labels of these cells: `")


def test_dropped_metadata_of_split_and_edited_cells_come_back():
    cells = perfect("ps1_model")
    i = at(cells, "masks")
    first, *rest = cells[i].source.partition("\n\n\n")
    cells[i].source = first
    cells.insert(i + 1, nbformat.v4.new_code_cell("".join(rest).strip()))
    cells[at(cells, "heads_split")].source += "\nprint('mine')"
    for cell in cells:
        cell.metadata.clear()
    found, notes = mended(cells)
    assert found["masks"].split() == RIGHT["ps1_model"]["masks"].split()
    assert set(found) == set(RIGHT["ps1_model"])
    assert any("`masks` stood in 2 cells" in note for note in notes)


def test_an_answer_that_is_gone_is_named_and_costs_itself_alone():
    cells = perfect("ps1_model")
    del cells[at(cells, "attention")]
    found, notes = mended(cells)
    assert {n for n, text in found.items() if text != RIGHT["ps1_model"][n]} == {
        "attention"
    }
    assert "# your code" in found["attention"]
    (note,) = notes
    assert note.startswith("No answer was found for `attention`")


def test_deleted_tests_come_back_at_their_place():
    cells = [
        c
        for c in perfect("ps1_model")
        if not named(c).get("grade_id", "").startswith("norm")
    ]
    found, notes = repaired(cells, model_of("ps1_model"))
    names = [named(cell)["grade_id"] for cell in found if named(cell)]
    assert names == list(RIGHT["ps1_model"])
    assert len(notes) == 1


@pytest.mark.parametrize(
    "odd",
    [
        {"grade_id": "mine", "solution": True, "schema_version": 99},
        {"grade_id": 7},
        {"solution": True},
        "text",
        None,
        [],
    ],
)
def test_odd_metadata_harm_nobody(odd):
    cells = perfect("ps1_model")
    cells[1].metadata["nbgrader"] = odd
    cells[at(cells, "masks")].metadata["nbgrader"]["schema_version"] = 99
    assert mended(cells) == (RIGHT["ps1_model"], [])
