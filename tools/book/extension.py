"""The book's own part of Sphinx: figures, equations, boxes, solutions, links in text.

Works on the parsed pages, so that the notebooks stay plain Markdown. Everything that it
looks for is a convention of the course: a caption that starts with **Fig. 2.3**, a box
that starts with **Known trap.**, a cell with the tag `solution` or `predicted`.
"""

import ast
import inspect
import json
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder
from sphinx.domains.std import StandardDomain
from sphinx.ext import autodoc

FIGURE = re.compile(r"Fig\. ((?:D?\d+\.)?\d+)")
BOX = re.compile(
    r"(Predict first|Known trap|Departs from|What the paper leaves|Not in the paper)"
)
KINDS = {"Predict first": "predict", "Known trap": "trap"}  # all others are departures
SECTION = re.compile(r"(\d+(?:\.\d+)?)\.? ")
TEST = re.compile(r"(tests/test_\w+\.py)?::(test_\w+)")
IN_TEXT = re.compile(
    r"Fig\. (?P<figure>(?:D?\d+\.)?\d+)"
    r"|[Cc]hapter (?P<chapter>\d\d)"
    r"|(?P<paper>(?:Eq\.|Table|Figure) \d)(?![.\d])"
    r"|(?<![\w.§-])(?P<more>\d\d)(?![\w%]|[.,]\d)"
    r"|[Ss]ection (?P<section>\d+(?:\.\d+)?)(?! of chapter|\.\d)"
)
LISTED = re.compile(r"[Cc]hapters (?:\d\d(?: \([^()]*\))?(?:, and|,| and| to) )*")
WAYPOINT = re.compile(r"(?P<chapter>\d\d)\s[^→.,]*[^→.,\s]")


class figure_box(nodes.General, nodes.Element):
    """A picture with its caption."""


class caption_box(nodes.General, nodes.Element):
    """The caption of a picture."""


class fold(nodes.General, nodes.Element):
    """Cells that a reader unfolds."""


def tag(name: str, attributes: str = "") -> tuple[Callable, Callable]:
    """Writers of an HTML element."""

    def visit(self: Any, node: nodes.Element) -> None:
        ids = f' id="{node["ids"][0]}"' if node["ids"] else ""
        classes = f' class="{" ".join(node["classes"])}"' if node["classes"] else ""
        self.body.append(f"<{name}{ids}{classes}{attributes}>\n")
        if "summary" in node:
            self.body.append(f"<summary>{node['summary']}</summary>\n")

    def depart(self: Any, node: nodes.Element) -> None:
        self.body.append(f"</{name}>\n")

    return visit, depart


def is_cell(node: nodes.Node) -> bool:
    """Whether a node is a code cell."""
    return isinstance(node, nodes.container) and node.get("nb_element") == "cell_code"


def outputs_of(cell: nodes.Element) -> list[nodes.Element]:
    """What a code cell printed and drew."""
    return [c for c in cell if c.get("nb_element") == "cell_code_output"]


def name_target(app: Sphinx, docname: str, name: str, target: str, text: str) -> None:
    """Let other pages refer to an id of this page."""
    domain = app.env.get_domain("std")
    assert isinstance(domain, StandardDomain)
    domain.anonlabels[name] = docname, target
    domain.labels[name] = docname, target, text


def reference(docname: str, name: str, text: str, kind: str = "ref") -> nodes.Element:
    """A link to a named target in the book; Sphinx warns if there is none."""
    link = addnodes.pending_xref(
        refdoc=docname,
        refdomain="std",
        reftype=kind,
        reftarget=name,
        refexplicit=True,
        refwarn=True,
    )
    link += nodes.inline(text, text, classes=["xref"])
    return link


def opening(paragraph: nodes.Node | None) -> nodes.strong | None:
    """The bold words that a paragraph begins with, if any."""
    for child in paragraph.children if paragraph is not None else []:
        if isinstance(child, nodes.strong):
            return child
        if child.astext():
            break
    return None


def place(kind: str, number: str) -> str:
    """The anchor of a numbered thing: "fig-2-3", "eq-d2-1"."""
    return f"{kind}-{number}".replace(".", "-").lower()


def figures(app: Sphinx, doctree: nodes.document) -> None:
    """Join each picture with the caption below it, and name it."""
    docname = app.env.docname
    for paragraph in list(doctree.findall(nodes.paragraph)):
        first = opening(paragraph)
        match = FIGURE.fullmatch(first.astext()) if first is not None else None
        if not match:
            continue
        name = place("fig", match[1])
        parent, position = paragraph.parent, paragraph.parent.index(paragraph)
        before = parent.children[position - 1] if position else None
        while isinstance(before, nodes.target) and position > 1:
            position -= 1
            before = parent.children[position - 1]
        if before is not None and is_cell(before):
            box = figure_box(ids=[name], classes=["picture"])
            cell = before
            if before.get("hide_mode") in (None, "input"):
                # the code stays above; the picture and its caption belong together
                cell = nodes.container(classes=["cell"])
                for output in outputs_of(before):
                    before.remove(output)
                    cell += output
                shown: nodes.Element = box
                if "tag_predicted" in before["classes"]:
                    shown = fold("", box, classes=["predicted"], summary="The figure")
                before.parent.insert(before.parent.index(before) + 1, shown)
            else:
                before.replace_self(box)
            paragraph.parent.remove(paragraph)
            box += cell
            box += caption_box("", paragraph, classes=["caption"])
        else:
            paragraph["ids"].append(name)
        name_target(app, docname, name, name, f"Fig. {match[1]}")
        if match[1] in app.config.course["alive"]:
            see_it_move(app, paragraph, *app.config.course["alive"][match[1]])


def see_it_move(app: Sphinx, caption: nodes.Element, words: str, state: str) -> None:
    """Below a caption, a link to where the page "alive" moves the same thing."""
    page = app.builder.get_relative_uri(app.env.docname, "book/alive")
    text = f"Alive: {words[0].lower()}{words[1:]}"
    link = nodes.reference("", text, refuri=page + state, internal=True)
    below = nodes.paragraph("", "", link, classes=["see"])
    caption.parent.insert(caption.parent.index(caption) + 1, below)


def equations(app: Sphinx, doctree: nodes.document) -> None:
    """Number the displayed equations of a chapter: (2.1), (2.2), deeper (D2.1)."""
    docname = app.env.docname
    mark = app.config.course["marks"].get(docname)
    if not mark:
        return
    for i, block in enumerate(doctree.findall(nodes.math_block), start=1):
        number = f"{mark}.{i}"
        name = place("eq", number)
        text = block.astext().strip()
        block.children = []
        block += nodes.Text(rf"\[{text} \tag{{{number}}}\]")
        block["nowrap"] = True
        block["ids"] = [name]
        name_target(app, docname, name, name, f"Eq. {number}")


def parts_of_quote(quote: nodes.block_quote) -> list[list[nodes.Node]]:
    """A quotation's children, cut where a paragraph opens a box."""
    parts: list[list[nodes.Node]] = [[]]
    for child in quote.children:
        strong = opening(child) if isinstance(child, nodes.paragraph) else None
        if strong is not None and BOX.match(strong.astext()) and parts[-1]:
            parts.append([])
        parts[-1].append(child)
    return parts


def boxes(app: Sphinx, doctree: nodes.document) -> None:
    """Turn a quotation that starts with **Known trap...** into a box with a title."""
    rows = app.config.course["departures"]
    for quote in list(doctree.findall(nodes.block_quote)):
        made: list[nodes.Node] = []
        for part in parts_of_quote(quote):
            first = part[0] if part else None
            strong = opening(first) if isinstance(first, nodes.paragraph) else None
            match = BOX.match(strong.astext()) if strong is not None else None
            if not isinstance(first, nodes.paragraph) or strong is None or not match:
                break
            title = nodes.title("", "", *[c.deepcopy() for c in strong.children])
            last = title.children[-1]
            if isinstance(last, nodes.Text):
                title.replace(last, nodes.Text(last.astext().rstrip(".:")))
            while first.children[0] is not strong:
                first.remove(first.children[0])
            first.remove(strong)
            if first.children and isinstance(first[0], nodes.Text):
                first.replace(first[0], nodes.Text(first[0].astext().lstrip()))
            kind = KINDS.get(match[1], "departs")
            box = nodes.admonition("", title, *part, classes=["box", kind])
            made.append(box)
        if not made:
            continue
        made[0]["ids"] = quote["ids"]
        row = next((rows[i] for i in quote["ids"] if i in rows), None)
        if row:
            page = app.builder.get_relative_uri(app.env.docname, "book/departures")
            address = f"{page}#{row}"
            words = "In the table of departures"
            link = nodes.reference("", words, refuri=address, internal=True)
            made[0] += nodes.paragraph("", "", link, classes=["see"])
        quote.replace_self(made)


def tests(app: Sphinx, doctree: nodes.document) -> None:
    """Link the name of a test to its source."""
    docname, file = app.env.docname, ""
    if not docname.startswith("notebooks/"):
        return
    for literal in list(doctree.findall(nodes.literal)):
        test = TEST.fullmatch(literal.astext())
        if test:
            file = test[1] or file
            known = app.config.course["proofs"].get(f"{file}::{test[2]}")
            if known:
                link = reference(docname, known, "")
                link.children = [literal.deepcopy()]
                literal.replace_self(link)


def cells(app: Sphinx, doctree: nodes.document) -> None:
    """Name the cells that other pages point at; fold solutions; link to the package."""
    docname = app.env.docname
    for cell in [node for node in doctree.findall(nodes.container) if is_cell(node)]:
        name = cell.get("cell_metadata", {}).get("anchor")
        if name:
            cell["ids"].append(name)
            name_target(app, docname, name, name, name)
        code = cell.next_node(nodes.literal_block)
        header = re.match(
            r"# annotated_transformer/(\w+)((?:/\w+)?)\.py\n",
            code.astext() if code else "",
        )
        if header:
            cell["classes"].append("from-package")
            text = f"In the package: {header[1]}{header[2]}.py"
            link = nodes.paragraph("", "", classes=["package-link"])
            link += reference(docname, f"api-{header[1]}", text)
            cell.append(link)
    for parent in list(doctree.findall(nodes.Element)):
        run: list[nodes.Node] = []
        for child in [*list(parent.children), None]:
            inside = (
                child is not None
                and is_cell(child)
                and "tag_solution" in child["classes"]
            )
            if inside and child is not None:
                run.append(child)
            elif run:
                folded = fold(classes=["solution"], summary="Solution")
                run[0].parent.replace(run[0], folded)
                for each in run[1:]:
                    parent.remove(each)
                folded += run
                run = []


def predictions(app: Sphinx, doctree: nodes.document) -> None:
    """Fold what a box asks to predict; a picture went into its own fold before."""
    for cell in [node for node in doctree.findall(nodes.container) if is_cell(node)]:
        for output in outputs_of(cell) if "tag_predicted" in cell["classes"] else []:
            folded = fold(classes=["predicted"], summary="The output")
            cell.replace(output, folded)
            folded += output


def plain_texts(doctree: nodes.document) -> Iterator[nodes.Text]:
    """The text of paragraphs, cells of tables and captions, not of links or code."""
    skipped = (
        *(nodes.reference, addnodes.pending_xref, nodes.literal, nodes.title),
        *(
            nodes.strong,
            nodes.math,
            nodes.raw,
            nodes.literal_block,
            nodes.math_block,
            nodes.comment,
        ),
        addnodes.desc_signature,
    )
    for text in list(doctree.findall(nodes.Text)):
        node: Any = text.parent
        inside = False
        while node is not None:
            if isinstance(node, skipped):
                break
            inside = inside or isinstance(node, nodes.paragraph)
            node = node.parent
        else:
            if inside:
                yield text


def split(text: nodes.Text, pattern: re.Pattern, make: Callable) -> None:
    """Replace each match in a text by the node that `make` returns, if any."""
    source, end = text.astext(), 0
    pieces: list[nodes.Node] = []
    for match in pattern.finditer(source):
        made = make(match)
        if made is not None:
            if match.start() > end:
                pieces.append(nodes.Text(source[end : match.start()]))
            pieces.append(made)
            end = match.end()
    if pieces:
        if end < len(source):
            pieces.append(nodes.Text(source[end:]))
        text.parent.replace(text, pieces)


def paragraph_of(text: nodes.Text) -> nodes.Element:
    """The paragraph that a text is in."""
    node = text.parent
    while not isinstance(node, nodes.paragraph):
        node = node.parent
    return node


def numbered_sections(doctree: nodes.document) -> dict[str, str]:
    """The ids of a page's numbered sections: {"5": ..., "5.1": ...}."""
    found = {}
    for section in doctree.findall(nodes.section):
        number = SECTION.match(section[0].astext())
        if number and section["ids"]:
            found[number[1]] = section["ids"][0]
    return found


class Mentions:
    """Makes a link of what a chapter mentions, or None if there is nothing to link."""

    def __init__(self, course: dict[str, Any], docname: str, doctree: nodes.document):
        self.course, self.docname = course, docname
        self.sections = numbered_sections(doctree)
        self.linked: set[str] = set()  # parts of the paper that already have a link

    def link(self, match: re.Match) -> nodes.Node | None:
        """The link for any match of `IN_TEXT`."""
        if match["figure"]:
            return self.figure(match)
        if match["chapter"]:
            return self.chapter(match)
        if match["more"]:
            return self.listed_chapter(match)
        if match["paper"]:
            return self.part_of_paper(match)
        return self.section(match)

    def figure(self, match: re.Match) -> nodes.Node | None:
        """Link "Fig. 2.3" to the figure; "Fig. 1" can only be one of the same page."""
        number = match["figure"]
        page = self.course["figures"].get(number)
        if not page or ("." not in number and page != self.docname):
            return None
        return reference(self.docname, place("fig", number), match[0])

    def chapter(self, match: re.Match, number: str = "") -> nodes.Node | None:
        """Link "chapter 05" to its page, unless it is this one."""
        doc = self.course["chapters"].get(number or match["chapter"])
        if not doc or doc == self.docname:
            return None
        return reference(self.docname, f"/{doc}", match[0], "doc")

    def listed_chapter(self, match: re.Match) -> nodes.Node | None:
        """Link the 06 of "chapters 05 and 06", with words between them or not."""
        before = match.string[: match.start()]
        words = before[before.lower().rfind("chapters ") :]
        return self.chapter(match, match["more"]) if LISTED.fullmatch(words) else None

    def part_of_paper(self, match: re.Match) -> nodes.Node | None:
        """Link "Eq. 1" to the chapter that displays it; "Table 3" once in a chapter."""
        if match["paper"] in self.course["equations"]:
            name = place("eq", self.course["equations"][match["paper"]])
            return reference(self.docname, name, match[0])
        name = self.course["paper"].get(match["paper"])
        if not name or name in self.linked:
            return None
        self.linked.add(name)
        return reference(self.docname, name, match[0])

    def section(self, match: re.Match) -> nodes.Node | None:
        """Link "section 5" to that section of this chapter."""
        if match["section"] not in self.sections:
            return None
        target = self.sections[match["section"]]
        return nodes.reference("", match[0], internal=True, refid=target)


def links_in_text(app: Sphinx, doctree: nodes.document) -> None:
    """Link "Fig. 2.3", "Eq. 1", "chapters 05 and 06", "section 5", "Table 3"."""
    docname = app.env.docname
    if not docname.startswith("notebooks/"):
        return
    mentions = Mentions(app.config.course, docname, doctree)
    for text in plain_texts(doctree):
        if paragraph_of(text).astext().startswith("Where you are"):
            split(text, WAYPOINT, mentions.chapter)
        else:
            split(text, IN_TEXT, mentions.link)


def terms(app: Sphinx, doctree: nodes.document) -> None:
    """Link the first use of each of the glossary's terms in a chapter."""
    docname = app.env.docname
    if not docname.startswith("notebooks/"):
        return
    names = sorted(app.config.course["terms"], key=len, reverse=True)
    known = {name.lower(): name for name in names}
    either = "|".join(map(re.escape, names))
    pattern = re.compile(  # the "head" of "in your head" is not a term
        rf"(?<![\w-])(?<!your )({either})(?:s|es)?(?![\w-])", re.I
    )
    seen: set[str] = set()

    def make(match: re.Match) -> nodes.Node | None:
        name = known[match[1].lower()]
        if name in seen:
            return None
        seen.add(name)
        link = reference(docname, name, match[0], "term")
        link.children[0]["classes"] = ["term"]
        return link

    for text in plain_texts(doctree):
        paragraph = paragraph_of(text)
        if isinstance(paragraph.parent, nodes.entry):
            continue  # the frame and other tables
        if not paragraph.astext().startswith("Where you are"):
            split(text, pattern, make)


def on_read(app: Sphinx, doctree: nodes.document) -> None:
    """All changes to one page."""
    for change in (
        boxes,
        tests,
        cells,
        figures,
        predictions,
        equations,
        links_in_text,
        terms,
    ):
        change(app, doctree)


class ShortTypes(ast.NodeTransformer):
    """`Annotated[int, ...]` becomes `int`: the rest is for the command line."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id == "Annotated":
            assert isinstance(node.slice, ast.Tuple)
            return self.visit(node.slice.elts[0])
        return self.generic_visit(node)


def source_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, args: Any, returns: Any
) -> tuple[str, str | None] | None:
    """The signature as it is written: `Float[Tensor, "batch query d_k"]`."""
    function = thing.__init__ if what == "class" else thing
    function = inspect.unwrap(getattr(function, "__func__", function))
    if not inspect.isfunction(function):
        return None
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError):
        return None  # a dataclass generates its own
    node = tree.body[0]
    if not isinstance(node, ast.FunctionDef):
        return None
    if what in ("class", "method") and node.args.args[:1]:
        node.args.args = node.args.args[1:]  # self
    node = ShortTypes().visit(node)
    result = ast.unparse(node.returns) if node.returns and what != "class" else None
    return f"({ast.unparse(node.args)})", result


def docstring(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Docstrings are plain words: escape what would be taken for markup."""
    lines[:] = [re.sub(r"(?<!`)\*(?!`)", r"\\*", line) for line in lines]


def buttons(app: Sphinx, page: str, template: str, context: dict, doctree: Any) -> None:
    """Let the edit button open the file that a page is made from, or drop it."""
    origin = app.config.course["origins"].get(page)

    def corrected(items: list[dict]) -> list[dict]:
        kept = []
        for item in items:
            if "buttons" in item:
                item["buttons"] = corrected(item["buttons"])
            if "/edit/" in str(item.get("url", "")) and not page.startswith(
                "notebooks/"
            ):
                if not origin:
                    continue
                item["url"] = (
                    item["url"].partition("/edit/")[0] + f"/edit/main/{origin}"
                )
            kept.append(item)
        return kept

    if "header_buttons" in context:
        context["header_buttons"] = corrected(context["header_buttons"])


def scripts(app: Sphinx, page: str, template: str, context: dict, doctree: Any) -> None:
    """Load the chart library where there are charts; leave out what needs a network."""
    context["script_files"][:] = [  # in place: others add to it after us
        script
        for script in context["script_files"]
        if "thebe" not in str(getattr(script, "filename", "")).lower()
        and "THEBE" not in str(getattr(script, "attributes", {}).get("body", ""))
    ]
    if doctree is not None and any(
        'class="chart"' in raw.astext() for raw in doctree.findall(nodes.raw)
    ):
        for name in ("vega", "vega-lite", "vega-embed"):
            app.add_js_file(f"vega/{name}.min.js", loading_method="defer")


def help_screen_readers(
    app: Sphinx, page: str, template: str, context: dict, doc: Any
) -> None:
    """Help screen readers: no false lists, and no label that hides words."""

    def lines(match: re.Match) -> str:
        inside = match[2].replace("<dd>", '<span class="sig-line">')
        inside = inside.replace("</dd>", "</span>")
        return f'{match[1]}<span class="sig-lines">{inside}</span>'

    parameters = re.compile(
        r'(<span class="sig-paren">\(</span>)\s*<dl>(.*?)</dl>', re.S
    )
    if "body" in context:
        body = parameters.sub(lines, context["body"])
        body = body.replace('<div role="list" class="citation-list">', "<div>")
        # the words inside say what unfolds; this label would hide them
        context["body"] = body.replace(' aria-label="Toggle hidden content"', "")


def original_notebooks(app: Sphinx, error: Exception | None) -> None:
    """Offer the notebooks for download as they are, not the prepared copies."""
    for doc, path in app.config.course["notebooks"].items():
        offered = Path(app.outdir) / "_sources" / f"{doc}.ipynb"
        if error is None and offered.exists():
            shutil.copyfile(path, offered)


def core_to_core(
    app: Sphinx, page: str, template: str, context: dict, doctree: Any
) -> None:
    """Previous and next lead past what goes deeper: from chapter to chapter."""
    builder = app.builder
    assert isinstance(builder, StandaloneHTMLBuilder)
    for name, side in (("prev", 1), ("next", 2)):
        other = builder.relations[page][side] if context.get(name) else None
        while other in app.config.course["deeper"]:
            other = builder.relations[str(other)][side]
        if other:
            link = builder.get_relative_uri(page, other)
            title = builder.render_partial(app.env.titles[other])["title"]
            context[name] = {"link": link, "title": title}


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    data = Path(app.srcdir) / "course.json"
    app.add_config_value("course", json.loads(data.read_text("utf-8")), "env")
    app.add_node(figure_box, html=tag("figure"))
    app.add_node(caption_box, html=tag("figcaption"))
    app.add_node(fold, html=tag("details"))
    app.connect("doctree-read", on_read)
    app.connect("autodoc-process-signature", source_signature)
    app.connect("autodoc-process-docstring", docstring)
    app.connect("html-page-context", core_to_core)
    app.connect("html-page-context", scripts, priority=400)
    app.connect("html-page-context", help_screen_readers, priority=500)
    app.connect("html-page-context", buttons, priority=900)
    app.connect("build-finished", original_notebooks)
    assert autodoc  # its events are connected above
    return {"parallel_read_safe": True, "parallel_write_safe": True}
