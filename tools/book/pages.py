"""The pages that are made from data, and the settings of Jupyter Book."""

import html
import re
from collections import Counter
from collections.abc import Iterable
from datetime import date
from typing import Any

from tools import lanes, sync
from tools.book import alive
from tools.book.chapters import ARXIV, links_out, paper_parts
from tools.book.course import LESSONS, ROOT, Chapter, Course, label
from tools.book.drawing import code_map

TITLE = "The annotated Transformer"
SOURCES = {
    "harvard": (
        "The Annotated Transformer",
        "https://github.com/harvardnlp/annotated-transformer/blob/"
        "0a91a254735c07532e23733dce8a693e504f3a08/the_annotated_transformer.py",
    ),
    "tensor2tensor": (
        "tensor2tensor",
        "https://github.com/tensorflow/tensor2tensor/blob/"
        "01b8c31da30a7e1109451df2b4b4698946c6c35c/tensor2tensor/models/transformer.py",
    ),
    "waves": (
        "tensor2tensor",
        "https://github.com/tensorflow/tensor2tensor/blob/"
        "017f83a91da0a4f481834fa0eac44d446774acfe/"
        "tensor2tensor/layers/common_attention.py",
    ),
}
SPELLING = {  # what a test's name cannot spell
    r"\btorchs\b": "PyTorch's",
    r"\btorch\b": "PyTorch",
    r"\b(paper|glorot)s\b": r"\1's",
    r"\bglorot": "Glorot",
    r"\btable (\d)s\b": r"Table \1's",
    r"\btable (\d)\b": r"Table \1",
    r"\beq (\d)": r"Eq. \1",
    r"\b(pre|post) norm\b": r"\1-norm",
    r"\bd model\b": "d_model",
    r" percent\b": " %",
}
DEPARTURE_HEADS = (  # above the columns of the table, beside the departure itself
    "The paper says",
    "The reference implementation does",
    "We do",
    "Proof",
)
BOOK_PAGES = [
    "help",
    "doctor",
    "patients",
    "paper",
    "departures",
    "code_map",
    "glossary",
    "notation",
    "bibliography",
    "model_card",
    "proofs",
]
TEACHING = {  # the pages for teachers, and where they are written
    "book/teach": "book/teach.md",
    "book/wrong_answers": "assignments/wrong_answers.md",
}
Weights = list[list[float]]  # of an attention map: for each English word, a row


def parts(course: Course) -> list[tuple[str, list[Chapter]]]:
    """The parts of the book that have chapters."""
    found = []
    for part in course.data("parts.yml"):
        numbers = range(part["first"], part["last"] + 1)
        inside = [c for c in course.chapters if int(c.number) in numbers]
        inside += [c for c in course.notebooks if c.name in part.get("then", [])]
        if inside:
            found.append((part["title"], inside))
    return found


def toc(course: Course) -> dict[str, Any]:
    """The table of contents: every notebook that exists, in its part."""
    sections = [
        {"caption": title, "chapters": [toc_entry(course, c) for c in inside]}
        for title, inside in parts(course)
    ]
    pages: list[dict[str, Any]] = [{"file": f"book/{page}"} for page in BOOK_PAGES]
    modules = [{"file": f"api/{module}"} for module in course.modules]
    pages.append({"file": "api/index", "sections": modules})
    sections.append({"caption": "See it move", "chapters": [{"file": alive.PAGE}]})
    sections.append({"caption": "Teach", "chapters": [{"file": p} for p in TEACHING]})
    sections.append({"caption": "To look up", "chapters": pages})
    return {"format": "jb-book", "root": "index", "parts": sections}


def toc_entry(course: Course, chapter: Chapter) -> dict[str, Any]:
    """A chapter, above what goes deeper."""
    sections = [{"file": each.doc} for each in course.deeper(chapter)]
    return {"file": chapter.doc} | ({"sections": sections} if sections else {})


def config(course: Course) -> dict[str, Any]:
    """Jupyter Book's settings. Without an address, no button that needs one."""
    settings: dict[str, Any] = {
        "title": TITLE,
        "author": "The authors of the course",
        "copyright": str(date.today().year),
        "only_build_toc_files": True,
        "execute": {"execute_notebooks": "off"},
        "parse": {
            "myst_enable_extensions": ["colon_fence", "dollarmath", "attrs_inline"],
        },
        "repository": {
            "url": course.address or "",
            "path_to_book": "",
            "branch": "main",
        },
        "html": {
            "favicon": "_assets/favicon.svg",
            "home_page_in_navbar": False,
            "use_multitoc_numbering": False,
            "use_repository_button": bool(course.address),
            "use_edit_page_button": bool(course.address),
        },
        "latex": {"use_jupyterbook_latex": False},
        "bibtex_bibfiles": ["references.bib"],
        "sphinx": {
            "extra_extensions": ["sphinx.ext.autodoc", "sphinx.ext.viewcode"],
            "local_extensions": {"tools.book.extension": str(ROOT)},
            "recursive_update": True,
            "config": sphinx_config(),
        },
    }
    if sync.badge(course.address, ""):  # Colab opens what is on GitHub, nothing else
        colab = "https://colab.research.google.com"
        settings["launch_buttons"] = {"colab_url": colab}
    return settings


def sphinx_config() -> dict[str, Any]:
    """What Jupyter Book hands on to Sphinx and its extensions."""
    return {
        "html_static_path": ["_assets"],
        "html_css_files": ["palette.css", "course.css"],
        "html_js_files": ["terms.js", "course.js"],
        "mathjax_path": "mathjax/tex-mml-chtml.js",
        "mathjax3_config": {"options": {"enableMenu": False}},
        "myst_dmath_allow_labels": False,
        "bibtex_reference_style": "label",
        "bibtex_default_style": "plain",
        "default_role": "code",
        "autodoc_member_order": "bysource",
        "autodoc_typehints": "signature",
        "python_maximum_signature_line_length": 72,
        "python_use_unqualified_type_names": True,
        "add_module_names": False,
        "nb_code_prompt_show": "Show the code",
        "nb_code_prompt_hide": "Hide the code",
        "copybutton_selector": ".cell_input pre, .copy pre",
        "html_show_sourcelink": False,
        "html_context": {"default_mode": "auto"},  # light or dark
        "html_theme_options": {
            "search_bar_text": "Search the course",
            "show_navbar_depth": 1,
            "navigation_with_keys": False,
            "toc_title": "On this page",
            "pygments_light_style": "a11y-light",
            "pygments_dark_style": "a11y-dark",
        },
    }


def code_spans(text: str) -> str:
    """Plain words with `code`, as HTML."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


def page_url(doc: str, anchor: str = "") -> str:
    """An address as seen from a page one folder deep."""
    return f"../{doc}.html" + (f"#{anchor}" if anchor else "")


def told_apart(links: list[str]) -> list[str]:
    """The links, with a number where several have the same words: "code 1, code 2"."""
    words = [link.partition("](")[0] for link in links]
    seen: Counter[str] = Counter()
    result = []
    for word, link in zip(words, links, strict=True):
        seen[word] += 1
        number = f" {seen[word]}" if words.count(word) > 1 else ""
        result.append(link.replace(word, word + number, 1))
    return result


def cell_links(course: Course, cells: Iterable[str]) -> str:
    """Links to cells: chapter by chapter, section by section."""
    chapters: dict[str, tuple[Chapter, dict[str, list[str]]]] = {}
    for cell in cells:
        chapter, cell_id = course.chapter_of(cell)
        heading, what = chapter.what_is(cell_id)
        sections = chapters.setdefault(chapter.name, (chapter, {}))[1]
        link = f"[{what}](#{chapter.anchor(cell_id)})"
        sections.setdefault(heading, []).append(link)
    lines = []
    for chapter, sections in sorted(
        chapters.values(), key=lambda c: (c[0].number or "99", c[0].name)
    ):
        lines.append(f"- **[{chapter.heading}](../{chapter.doc}.ipynb)**")
        for heading, links in sections.items():
            colon = "" if heading.endswith("?") else ":"
            lines.append(f"  - {heading}{colon} {', '.join(told_apart(links))}")
    return "\n".join(lines)


def paper(course: Course) -> str:
    """The paper, line by line."""
    done, planned, never = course.covered()
    lines = [
        "# The paper, line by line",
        "",
        "Every section, numbered equation, table and figure of “Attention Is All You "
        "Need” ([arXiv:1706.03762](https://arxiv.org/abs/1706.03762) "
        "{cite}`vaswani2017`), in the paper's order: what it says, in our words, and "
        "the cells of this course that explain it, compute it or test it.",
        "",
        f"**Covered: {done} of {len(course.paper_map)} parts have cells.** "
        f"{planned} are planned, and {never} can't be done here; the row says why.",
        "",
    ]
    for part in course.paper_map:
        where = part["where"]
        lines += [
            f"(paper-{label(where)})=",
            "::::{container} paper-row",
            f":::{{container}} paper-part\n{where}\n:::",
            f":::{{container}} paper-says\n{part['says']}\n:::",
            ":::{container} paper-cells",
        ]
        if "cells" in part:
            lines.append(cell_links(course, part["cells"]))
        if "planned" in part:
            lines += ["", f"Planned: more in chapter {part['planned']}."]
        if "reason" in part:
            lines.append(part["reason"])
        lines += [":::", "::::", ""]
    return "\n".join(lines)


def in_words(test: str) -> str:
    """A test's name as a sentence."""
    text = test.partition("::test_")[2].replace("_", " ")
    for pattern, replacement in SPELLING.items():
        text = re.sub(pattern, replacement, text)
    return text[0].upper() + text[1:]


def test_link(test: str) -> str:
    """A link to a test's source in the book, as HTML."""
    return f'<a href="{page_url("book/proofs", label(test))}">{in_words(test)}</a>'


def short(chapter: Chapter) -> str:
    """A notebook in two or three words."""
    deeper = " deeper" if lanes.kind_of(chapter.path) == "deeper" else ""
    return f"chapter {chapter.number}{deeper}" if chapter.number else chapter.title


def departure_heading(course: Course, row: dict[str, Any]) -> str:
    """The first cell of a row: the topic, and the chapters that have a box for it."""
    boxes = [course.chapter_of(box) for box in row.get("boxes", [])]
    links = [
        f'<a href="{page_url(c.doc, c.box_anchor(cell))}">{short(c)}</a>'
        for c, cell in boxes
    ]
    topic = row["topic"]
    return (
        f'<th scope="row" id="{label(topic)}">{html.escape(topic)}'
        f'<div class="where">{", ".join(sorted(links))}</div></th>'
    )


def departure_row(course: Course, row: dict[str, Any]) -> str:
    """One row of the table of departures, as HTML."""
    sources = ", ".join(
        f'<a href="{SOURCES[key][1]}">{SOURCES[key][0]}</a>' for key in row["source"]
    )
    reference = code_spans(row["reference"])
    links = "".join(f"<li>{test_link(test)}</li>" for test in row["tests"])
    cells = [
        code_spans(row["paper"]),
        f'{reference} <span class="source">({sources})</span>',
        code_spans(row["ours"]),
        f"<ul>{links}</ul>",
    ]
    tds = "".join(
        f'<td data-head="{name}">{text}</td>'
        for name, text in zip(DEPARTURE_HEADS, cells, strict=True)
    )
    return f"<tr>{departure_heading(course, row)}{tds}</tr>"


def departures(course: Course) -> str:
    """The table of departures."""
    rows = [departure_row(course, row) for row in course.departures]
    heads = "".join(
        f'<th scope="col">{name}</th>' for name in ("Departure", *DEPARTURE_HEADS)
    )
    table = (
        '<table class="departures"><thead><tr>'
        f"{heads}</tr></thead><tbody>\n" + "\n".join(rows) + "\n</tbody></table>"
    )
    return (
        "# Departures from the paper\n\n"
        "Where the paper is silent, or where this course does something else, a box in "
        "the chapter says so. Here they are in one table, beside a reference "
        f"implementation: Harvard's [Annotated Transformer]({SOURCES['harvard'][1]}), "
        "which most readers know, or the authors' own "
        f"[tensor2tensor]({SOURCES['tensor2tensor'][1]}). Each row leads to the tests "
        f"that prove what we say of ours. There are {len(rows)} rows.\n\n"
        f"```{{raw}} html\n{table}\n```\n"
    )


def proofs(course: Course) -> str:
    """The tests that other pages point at, with their source."""
    lines = [
        "# Tests that prove it",
        "",
        "What a chapter or the [table of departures](departures.md) says of our code, "
        "one of these tests checks on every change. They run with `make test`. This is "
        "their source.",
    ]
    file = ""
    for test in course.proofs():
        path = test.partition("::")[0]
        if path != file:
            file = path
            lines += ["", f"## {path}"]
        source = course.sources_of_tests[test]
        lines += [
            "",
            f"({label(test)})=",
            f"### {in_words(test)}",
            "",
            f"```python\n{source}\n```",
        ]
    return "\n".join(lines) + "\n"


def glossary(course: Course) -> str:
    """The glossary, with an anchor for each term."""
    lines = [
        "# Glossary",
        "",
        "The field's terms as this course uses them, with the chapter that explains "
        "the term or needs it first. In the chapters, the first use of a term is "
        "underlined with dots: point at it to read its line here. Symbols and shapes "
        "are in the [notation](notation.md).",
        "",
        "````{glossary}",
    ]
    for term, definition, notebook in course.glossary:
        number = notebook.rpartition("/")[2][:2]
        link = f"[{number}](../notebooks/{notebook})"
        lines += [term, f"  {definition} {link}", ""]
    return "\n".join([*lines, "````", ""])


def teaching(course: Course) -> dict[str, str]:
    """The pages for teachers, by file, with links to each other's page."""
    texts = {}
    for page, origin in TEACHING.items():
        text = (course.root / origin).read_text("utf-8")
        for other, path in TEACHING.items():
            text = text.replace(f"](../{path})", f"](../{other}.md)")
        texts[f"{page}.md"] = links_out(text, course.address)
    return texts


def bibliography(course: Course) -> str:
    """The works cited."""
    return (
        "# Bibliography\n\nThe works that the chapters cite, by author.\n\n"
        "```{bibliography}\n:all:\n```\n"
    )


def citation_keys(course: Course) -> dict[str, str]:
    """The bibliography's key for each arXiv number."""
    text = (course.root / "book" / "references.bib").read_text("utf-8")
    entries = re.split(r"^@", text, flags=re.MULTILINE)[1:]
    keys = {}
    for entry in entries:
        key = entry.partition("{")[2].partition(",")[0]
        number = re.search(r"eprint = \{([^}]+)\}", entry)
        if number:
            keys[number[1]] = key
    return keys


def uncited(course: Course) -> dict[str, list[str]]:
    """arXiv numbers that chapters link to, but that the bibliography lacks."""
    keys = citation_keys(course)
    missing: dict[str, list[str]] = {}
    for chapter in course.notebooks:
        for cell in chapter.notebook.cells:
            if cell.cell_type == "markdown":
                for number in ARXIV.findall(cell.source):
                    if number not in keys:
                        missing.setdefault(number, []).append(chapter.name)
    return missing


def shown_in(course: Course, module: str) -> list[str]:
    """Links to the cells that show a module's code."""
    found = []
    for chapter in course.of_kind(*lanes.ONCE):
        for file, names, cell in chapter.definitions:
            place = file.removeprefix("annotated_transformer/").removesuffix(".py")
            if place.partition("/")[0] == module:
                text = ", ".join(f"`{name}`" for name in names)
                where = short(chapter).removeprefix("chapter ")
                found.append(f"- {where}: [{text}](#{chapter.anchor(cell)})")
    return found


def api_module(course: Course, module: str) -> str:
    """The page of one module."""
    name = f"annotated_transformer.{module}"
    shown = shown_in(course, module)
    lines = [f"(api-{module})=", f"# `{module}`", ""]
    lines += ["```{eval-rst}", f".. automodule:: {name}", "   :members:"]
    lines += ["   :imported-members:"] if module == LESSONS else []
    lines += ["```", ""]
    if shown:
        lines += ["## Where the course explains it", "", *shown, ""]
    return "\n".join(lines)


def api_index(course: Course) -> str:
    """The page that lists the modules."""
    lines = [
        "# The package",
        "",
        "`annotated_transformer`, a page for each module: signatures with shapes, "
        "and what each thing does. A shape is a type: "
        '`Float[Tensor, "batch query d_k"]` is a tensor of floats with three axes; a '
        "name that occurs twice stands for the same size; `*batch` is any number of "
        "axes. The tests check every call against these types. The "
        "[map of the code](../book/code_map.md) shows how the modules fit together.",
        "",
        "| module | what it holds |",
        "| :-- | :-- |",
    ]
    for module, text in course.modules.items():
        lines.append(f"| [`{module}`]({module}.md) | {text} |")
    return "\n".join(lines) + "\n"


def map_page(course: Course) -> str:
    """The map of the code."""
    return (
        "# Map of the code\n\n"
        "The model as in the paper's Figure 1, from bottom to top, and below it what "
        "feeds it, what trains it and what uses it. The title of a box leads to the "
        "chapter that explains the part, the file name to its module. "
        "[The package](../api/index.md) lists the same modules.\n\n"
        f"```{{raw}} html\n{code_map(course)}\n```\n"
    )


def second_way(course: Course) -> str:
    """How to go on without installing: in Colab, or in the pages of the book."""
    first = course.chapters[0]
    badge = sync.badge(course.address, first.path.name)
    colab = re.search(r"\]\((https://colab[^)]+)\)$", badge)
    if colab:
        head = "Run it elsewhere"
        link = f'<a class="button" href="{colab[1]}">Open it in Colab</a>'
        about = "Nothing to install. Run the cells from top to bottom."
    else:
        head = "Read it"
        link = f'<a class="button" href="{first.doc}.html">Read on: {first.title}</a>'
        about = "Nothing to install. The pages hold every result."
    return f'<section class="way"><h2>{head}</h2>{link}<p>{about}</p></section>'


def chapter_item(course: Course, chapter: Chapter) -> str:
    """A chapter in the list of its part: title, question, parts of the paper."""
    about = ", ".join(paper_parts(course, chapter)[:4])
    number = f'<span class="number">{chapter.number}</span> ' if chapter.number else ""
    question = f"<p>{words(chapter.question)}</p>" if chapter.question else ""
    return (
        f'<li><a href="{chapter.doc}.html">{number}{html.escape(chapter.title)}</a>'
        f'{question}<p class="about">{about}</p></li>'
    )


def start(course: Course, landing: dict[str, Any]) -> str:
    """The landing page."""
    lines = [
        "---",
        "html_theme.sidebar_secondary.remove: true",
        "---",
        f"# {TITLE}",
        "",
        "```{raw} html",
        demo(landing),
        '<div class="ways">',
        '<section class="way"><h2>Run it</h2>'
        '<div class="copy highlight"><pre>make lab</pre></div>'
        "<p>One command, in the course's folder: it sets up everything once, and opens "
        "the notebooks. A laptop will do.</p></section>",
        second_way(course),
        "</div>",
        "```",
        "",
    ]
    for title, inside in parts(course):
        lines += [f"## {title}", "", "```{raw} html", '<ul class="chapters">']
        lines += [chapter_item(course, chapter) for chapter in inside]
        lines += ["</ul>", "```", ""]
    return "\n".join(lines)


def words(text: str) -> str:
    """A question from a notebook's frame, as HTML without math."""
    text = re.sub(r"\$\\sqrt\{d_k\}\$", "√d_k", text)
    return code_spans(re.sub(r"[*$]", "", text))


def sentence(tokens: list[str], form: str) -> str:
    """A sentence whose words can be pointed at; `form` takes a number and a word."""
    return " ".join(form.format(i, html.escape(word)) for i, word in enumerate(tokens))


def described_map(source: list[str], target: list[str], weights: Weights) -> str:
    """An attention map in words, for a screen reader."""
    best = [source[row.index(max(row))].strip(".,") for row in weights]
    pairs = [f"{e.strip('.,')} at {g}" for e, g in zip(target, best, strict=True)]
    return (
        "Attention map. Each English word looks most at one German word: "
        f"{', '.join(pairs)}."
    )


def attention_map(source: list[str], target: list[str], weights: Weights) -> str:
    """An attention map as SVG: English words are its rows, German words its columns."""
    cells = "".join(
        f'<rect x="{j * 30}" y="{i * 26}" width="29" height="25" rx="3" '
        f'data-row="{i}" data-column="{j}" style="--w:{weight:.2f}"/>'
        for i, row in enumerate(weights)
        for j, weight in enumerate(row)
    )
    row_words = "".join(
        f'<text x="-8" y="{i * 26 + 17}" text-anchor="end" data-row="{i}">'
        f"{html.escape(word)}</text>"
        for i, word in enumerate(target)
    )
    column_words = "".join(
        f'<text transform="translate({j * 30 + 12} -8) rotate(-50)" data-column="{j}">'
        f"{html.escape(word)}</text>"
        for j, word in enumerate(source)
    )
    width, height = 30 * len(source), 26 * len(target)
    left, top = 92, 92  # room for the words
    alt = html.escape(described_map(source, target, weights), quote=True)
    return (
        f'<svg class="map" '
        f'viewBox="{-left} {-top} {width + left + 66} {height + top + 4}" '
        f'role="img" aria-label="{alt}">'
        f"<g>{cells}</g>{row_words}{column_words}</svg>"
    )


def picture(course: Course) -> str:
    """The landing page's attention map."""
    found = course.data("landing.yml")
    return attention_map(found["source"], found["target"], found["weights"])


def demo(landing: dict[str, Any]) -> str:
    """A sentence, its translation and its attention map, to point at."""
    source, target = landing["source"], landing["target"]
    german = sentence(source, '<span class="word" data-column="{}" lang="de">{}</span>')
    english = sentence(
        target, '<button type="button" class="word" data-row="{}">{}</button>'
    )
    picture = attention_map(source, target, landing["weights"])
    return f"""\
<p class="pitch">“Attention Is All You Need”, line by line: a course of notebooks in
which you build every part by hand, find the same numbers again in PyTorch, and end with
a model that translates German.</p>
<div class="demo">
<div class="sentences">
<p class="name">You type</p><p class="sentence typed">{german}</p>
<p class="name">It writes</p><p class="sentence written">{english}</p>
<p class="hint">Point at an English word: the German words that it looked at light up.
Translated by the model that ships with the course; the map is its cross-attention.
<a href="{alive.PAGE}.html">Open all its numbers: the Transformer, alive</a></p>
</div>
<figure>{picture}</figure>
</div>"""
