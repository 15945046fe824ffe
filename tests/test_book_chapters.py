"""Every chapter of the book in a real browser, without a network."""

import pytest
from visits import PageTests, documents

CHAPTERS = [name for name in documents() if name.startswith("notebooks/")]


@pytest.mark.parametrize("name", CHAPTERS)
class TestChapters(PageTests):
    pass


def test_chapters_have_math(seen):
    assert seen("notebooks/02_attention")["math"] > 50
