"""The page "The Transformer, alive": what it says before and without its scripts."""

import html
import re
from typing import Any
from urllib.parse import urlencode

import yaml

from tools.book.course import Course

PAGE = "book/alive"
FOLDER = "../_static/alive/page"


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
    changes = "".join(
        f' data-{key}="{value}"' for key, value in entry.get("changes", {}).items()
    )
    measured = (
        f'<p class="measured" data-measure="{entry["measure"]}"{changes}></p>'
        if "measure" in entry
        else ""
    )
    return (
        f"<li><h3>{plain(entry['title'])}</h3><p>{plain(entry['says'])}</p>{measured}"
        f'<p class="try"><strong>Try:</strong> {plain(entry["try"])}</p>'
        f'<p class="show">{shown}</p></li>'
    )


def page(course: Course, picture: str) -> str:
    """The page. `picture` is shown where there are no scripts."""
    boxes = "\n".join(box(course, entry) for entry in data(course, "boxes"))
    tour = "\n".join(step(entry) for entry in data(course, "tour"))
    n_steps = len(data(course, "tour"))
    return f"""\
---
html_theme.sidebar_secondary.remove: true
---
# The Transformer, alive

```{{raw}} html
<link rel="stylesheet" href="{FOLDER}/page.css">
<p class="intro">The model that ships with the course, encoder and decoder, at work in
this page. Type German, open a box, switch a part off. All numbers are computed here;
nothing that you type leaves your browser. The address follows what you do: copy it, and
it opens the same head at the same step.
<a href="#a-tour-in-{n_steps}-steps">The tour</a> shows where to look first.</p>
<p class="alive-off">The model does not run here yet. With JavaScript, it does, from
any web server; from a folder on a disk, run <code>make book-serve</code> and open the
page that it names. Without it, the tour and the list of boxes below read as well.</p>
<noscript><figure class="demo alive-still">{picture}<figcaption>One of the pictures that
the page draws: where each English word looked in the German sentence, in the last
layer of the cross-attention.</figcaption></figure></noscript>
<div class="alive" id="alive-look" hidden></div>
```

## Change it

```{{raw}} html
<p>Choose another search, or switch parts of the trained model off. It has not been
trained to do without them; that it often can is a finding, not a rule.</p>
<div class="alive" id="alive-play"></div>
```

## A tour in {n_steps} steps

```{{raw}} html
<p>One sentence, whose verb stands at the end of its clause: <em lang="de">Eine Frau
wartet, während ein Mann ein altes Auto repariert.</em> Layers and heads are counted
from 0.</p>
<ol class="alive tour">
{tour}
</ol>
```

## The boxes, from the bottom up

```{{raw}} html
<p>The figure is the paper's Figure 1, with two differences that this model shares with
most code: the norm comes before each sub-layer, and one more ends each stack. The
German sentence goes up on the left, once. The English one goes up on the right, once
for each piece; the piece that comes out at the top is the next input below.</p>
<dl class="alive boxes">
{boxes}
</dl>
<p>Others have opened decoders without an encoder:
<a href="https://github.com/poloclub/transformer-explainer">Transformer Explainer</a>
runs GPT-2 in the browser, and
<a href="https://github.com/bbycroft/llm-viz">LLM Visualization</a> draws in three
dimensions a small network that sorts letters.</p>
```
"""
