"""Prepared copies of the notebooks: the same cells, with anchors, citations, charts.

Code, text and numbers stay as they are. What only a page can have is added: links
to the paper's parts, citations, live charts; numbers of figures and equations, boxes
and links in the text are the Sphinx extension's work.
"""

import html
import re
from collections.abc import Mapping

import nbformat
from nbformat import NotebookNode

from annotated_transformer.plots import VEGA_LITE
from tools import sync
from tools.book.course import DEPARTS, Chapter, Course, as_json, label

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
MODEL_CARD = "annotated_transformer/pretrained/README.md"
OTHER_FILE = re.compile(r"\[([^\]]+)\]\(\.\./((?!book/|notebooks/)[^)#]+)\)")
IN_THE_PAPER = re.compile(r"^(\| \*\*In the paper\*\* \|.*\|)$", re.MULTILINE)
ARXIV = re.compile(r"\]\(https?://arxiv\.org/(?:abs|pdf)/(\d{4}\.\d{4,5})[^)]*\)")


def paper_parts(course: Course, chapter: Chapter) -> list[str]:
    """The parts of the paper that have a cell in this chapter, in the paper's order."""
    return [
        part["where"]
        for part in course.paper_map
        if any(cell.startswith(chapter.path.stem) for cell in part.get("cells", []))
    ]


def linked_cells(course: Course) -> set[str]:
    """The cells that other pages point at."""
    cells = {cell for part in course.paper_map for cell in part.get("cells", [])}
    cells |= {cell for row in course.departures for cell in row.get("boxes", [])}
    for chapter in course.chapters:
        cells |= {f"{chapter.path.stem}#{cell}" for *_, cell in chapter.definitions}
    return cells


def cite(text: str, keys: Mapping[str, str]) -> str:
    """The text with a citation after each link to a paper that the bibliography has."""

    def add(match: re.Match[str]) -> str:
        key = keys.get(match[1])
        return match[0] + (f" {{cite}}`{key}`" if key else "")

    return ARXIV.sub(add, text)


def links_out(text: str, address: str | None) -> str:
    """The text with its links to files of the repository that are not pages.

    The model card is a page of the book. Any other file is linked where it is public.
    """
    text = text.replace(f"](../{MODEL_CARD})", "](../book/model_card.md)")

    def elsewhere(match: re.Match[str]) -> str:
        words, path = match.groups()
        return f"[{words}]({address}/blob/main/{path})" if address else words

    return OTHER_FILE.sub(elsewhere, text)


def chart(spec: dict, png_alt: str) -> str:
    """An Altair chart that the page's own scripts draw."""
    words = html.escape(png_alt or spec.get("description", "Chart"), quote=True)
    return (
        f'<div class="chart" role="group" aria-label="{words}" tabindex="0">'
        f'<script type="application/json">{as_json(spec)}</script></div>'
    )


def frame(source: str, course: Course, chapter: Chapter) -> str:
    """The title cell with a row that leads back to the paper, without the badge."""
    source = sync.BADGE.sub("", source)
    parts = paper_parts(course, chapter)
    links = ", ".join(f"[{part}](#paper-{label(part)})" for part in parts)
    row = f"| **Line by line** | {links} |"
    return IN_THE_PAPER.sub(lambda m: f"{m[1]}\n{row}", source) if parts else source


def prepare(
    course: Course, chapter: Chapter, keys: Mapping[str, str], linked: set[str]
) -> NotebookNode:
    """One notebook as the book needs it. The original is not touched."""
    notebook: NotebookNode = nbformat.from_dict(chapter.notebook)
    for i, cell in enumerate(notebook.cells):
        tags = set(cell.metadata.get("tags", []))
        address = f"{chapter.path.stem}#{cell.id}"
        if cell.cell_type == "markdown":
            text = frame(cell.source, course, chapter) if i == 0 else cell.source
            text = cite(links_out(text, course.address), keys)
            if DEPARTS.search(text):
                anchor = chapter.box_anchor(cell.id)
                text = DEPARTS.sub(rf"({anchor})=\n\g<0>", text, count=1)
            if address in linked and i:
                text = f"({chapter.anchor(cell.id)})=\n{text}"
            cell.source = text
            continue
        if "colab" in tags:
            tags.add("remove-cell")
        if "solution" in tags:
            tags.discard("hide-cell")  # the whole solution is folded, in one piece
        if "hide-output" in tags:
            tags ^= {"hide-output", "predicted"}  # folded with its picture's caption
        cell.metadata.tags = sorted(tags)
        if address in linked:
            cell.metadata.anchor = chapter.anchor(cell.id)
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        for output in cell.outputs:
            if VEGA_LITE in output.get("data", {}):
                spec = dict(output.data[VEGA_LITE])
                spec["$schema"] = SCHEMA  # of the version that the pages load
                output.data = {"text/html": chart(spec, alt)}
    return notebook
