"""The page "The Transformer, alive": what it says before and without its scripts."""

import html
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml
from safetensors.torch import load_file

from annotated_transformer.checkpoints import WEIGHTS
from annotated_transformer.files import read_json
from annotated_transformer.recipes import SETTINGS
from annotated_transformer.tokenizers import SUBWORD_FILE
from annotated_transformer.translator import PRETRAINED
from tools.book.course import Course

PAGE = "book/alive"
ELSEWHERE = {"translate.mjs", "landing.mjs"}  # the command, and the landing page


def data(course: Course, name: str) -> Any:
    """A YAML file of the page."""
    path = course.root / "book" / "alive" / "page" / f"{name}.yml"
    return yaml.safe_load(path.read_text("utf-8"))


def state(show: dict[str, Any]) -> str:
    """A state of the page as an address; book/alive/page/state.mjs reads it."""
    return "#" + urlencode(show)


def states(course: Course) -> list[str]:
    """All states that the book links to."""
    steps = data(course, "tour")
    shown = [step["show"] for step in steps]
    shown += [step["link"]["show"] for step in steps if "link" in step]
    shown += [figure["show"] for figure in data(course, "figures").values()]
    return [state(each) for each in shown]


def plain(text: str) -> str:
    """Text as HTML, with typographic quotation marks."""
    return html.escape(re.sub(r'"([^"]*)"', r"“\1”", text), quote=False)


def box(course: Course, entry: dict[str, Any]) -> str:
    """One box of the figure: what it does, its chapters and its module."""
    links = [f"<span>{entry['paper']}</span>"]
    for number in entry["chapters"]:
        chapter = course.chapter(number)
        if chapter:
            words = f"chapter {number}, {html.escape(chapter.title)}"
            links.append(f'<a href="../{chapter.doc}.html">{words}</a>')
    if entry["module"] in course.modules:
        module = entry["module"]
        links.append(f'<a href="../api/{module}.html"><code>{module}.py</code></a>')
    return (
        f'<div data-boxes="{" ".join(entry["boxes"])}">'
        f"<dt>{html.escape(entry['title'])}</dt><dd>{plain(entry['says'])}</dd>"
        f'<dd class="links">{" ".join(links)}</dd></div>'
    )


def step(entry: dict[str, Any]) -> str:
    """One step of the tour: it reads without a click, and its links set the page."""
    links = [("Show it", entry["show"])]
    if "link" in entry:
        links.append((entry["link"]["words"], entry["link"]["show"]))
    shown = " ".join(
        f'<a class="button" href="{html.escape(state(show))}">{plain(words)}</a>'
        for words, show in links
    )
    measured = (
        f'<p class="measured" data-measure="{entry["measure"]}"></p>'
        if "measure" in entry
        else ""
    )
    return (
        f"<li><h3>{plain(entry['title'])}</h3><p>{plain(entry['says'])}</p>{measured}"
        f'<p class="try"><strong>Try:</strong> {plain(entry["try"])}</p>'
        f'<p class="show">{shown}</p></li>'
    )


def parameters() -> int:
    """How many numbers the shipped weights are."""
    return sum(tensor.numel() for tensor in load_file(PRETRAINED / WEIGHTS).values())


def fetched(course: Course) -> list[Path]:
    """The files of the model and of the page's own code, which a visit fetches."""
    code = (course.root / "book" / "alive").rglob("*.[mc]*s")
    model = [PRETRAINED / name for name in (WEIGHTS, SUBWORD_FILE, SETTINGS)]
    return model + [path for path in code if path.name not in ELSEWHERE]


def facts(course: Course) -> dict[str, str]:
    """Numbers of the page's words."""
    config = read_json(PRETRAINED / SETTINGS)["model"]
    size = sum(path.stat().st_size for path in fetched(course))
    return {
        "layers": str(config["n_layers"]),
        "heads": str(config["n_heads"]),
        "parameters": f"{parameters() / 1e6:.1f}",
        "megabytes": f"{size / 1e6:.1f}",
    }


def page(course: Course, picture: str) -> str:
    """The page. `picture` is shown where there are no scripts."""
    boxes, tour = data(course, "boxes"), data(course, "tour")
    parts = {
        "picture": picture,
        "boxes": "\n".join(box(course, entry) for entry in boxes),
        "tour": "\n".join(map(step, tour)),
        "count": str(len(tour)),
        **facts(course),
    }
    path = course.root / "book" / "alive" / "page" / "page.md"
    text = path.read_text("utf-8")
    for name, part in parts.items():
        text = text.replace(f"<!-- {name} -->", part)
    return text
