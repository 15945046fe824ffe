"""Prepared copies of the notebooks: the same cells, with anchors, citations, charts.

Code, text and numbers stay as they are. What only a page can have is added: links
to the paper's parts, citations, live charts; numbers of figures and equations, boxes
and links in the text are the Sphinx extension's work.
"""

import html
import re
from collections.abc import Mapping
from posixpath import dirname, join, normpath, relpath

import nbformat
from nbformat import NotebookNode

from annotated_transformer.plots import VEGA_LITE
from tools import sync
from tools.book.course import DEPARTS, Chapter, Course, as_json, label

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
MODEL_CARD = "annotated_transformer/pretrained/README.md"
UPWARD = re.compile(r"\[([^\]]+)\]\((\.\./[^)#]+)\)")
IN_THE_PAPER = re.compile(r"^(\| \*\*In the paper\*\* \|.*\|)$", re.MULTILINE)
ARXIV = re.compile(r"\]\(https?://arxiv\.org/(?:abs|pdf)/(\d{4}\.\d{4,5})[^)]*\)")


def paper_parts(course: Course, chapter: Chapter) -> list[str]:
    """The parts of the paper that have a cell in a notebook, in the paper's order."""
    return [
        part["where"]
        for part in course.paper_map
        if any(c.partition("#")[0] == chapter.name for c in part.get("cells", []))
    ]


def linked_cells(course: Course) -> set[str]:
    """The cells that other pages point at."""
    cells = {cell for part in course.paper_map for cell in part.get("cells", [])}
    cells |= {cell for row in course.departures for cell in row.get("boxes", [])}
    for chapter in course.notebooks:
        cells |= {f"{chapter.name}#{cell}" for *_, cell in chapter.definitions}
    return cells


def cite(text: str, keys: Mapping[str, str]) -> str:
    """The text with a citation after each link to a paper that the bibliography has."""

    def add(match: re.Match[str]) -> str:
        key = keys.get(match[1])
        return match[0] + (f" {{cite}}`{key}`" if key else "")

    return ARXIV.sub(add, text)


def links_out(text: str, address: str | None, folder: str = "notebooks") -> str:
    """The text with its links to files of the repository that are not pages.

    The model card is a page of the book. Any other file is linked where it is public.
    `folder` is where the text stands, and where its links start.
    """

    def link(match: re.Match[str]) -> str:
        words, target = match.groups()
        path = normpath(join(folder, target))
        if path == MODEL_CARD:
            return f"[{words}]({relpath('book/model_card.md', folder)})"
        if path.startswith(("book/", "notebooks/")):
            return match[0]
        return f"[{words}]({address}/blob/main/{path})" if address else words

    return UPWARD.sub(link, text)


def chart(spec: dict, png_alt: str) -> str:
    """An Altair chart that the page's own scripts draw."""
    words = html.escape(png_alt or spec.get("description", "Chart"), quote=True)
    return (
        f'<div class="chart" role="group" aria-label="{words}" tabindex="0">'
        f'<script type="application/json">{as_json(spec)}</script></div>'
    )


def frame(source: str, course: Course, chapter: Chapter) -> str:
    """The title cell without the badge, with rows that lead to the paper and deeper."""
    source = sync.BADGE.sub("", source)
    parts = paper_parts(course, chapter)
    rows = {
        "Line by line": [f"[{part}](#paper-{label(part)})" for part in parts],
        "A second reading": [
            f"[{each.title}]({relpath(each.doc, dirname(chapter.doc))}.ipynb)"
            for each in course.deeper(chapter)
        ],
    }
    table = [f"| **{head}** | {', '.join(row)} |" for head, row in rows.items() if row]
    return IN_THE_PAPER.sub(lambda m: "\n".join([m[1], *table]), source)


def prepare(
    course: Course, chapter: Chapter, keys: Mapping[str, str], linked: set[str]
) -> NotebookNode:
    """One notebook as the book needs it. The original is not touched."""
    notebook: NotebookNode = nbformat.from_dict(chapter.notebook)
    for i, cell in enumerate(notebook.cells):
        tags = set(cell.metadata.get("tags", []))
        address = f"{chapter.name}#{cell.id}"
        if cell.cell_type == "markdown":
            text = frame(cell.source, course, chapter) if i == 0 else cell.source
            text = cite(links_out(text, course.address, dirname(chapter.doc)), keys)
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
