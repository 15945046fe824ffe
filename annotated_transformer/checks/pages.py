"""What a submission may show in the browser of the teacher: text and pictures.

    pages.protect(c)

in `nbgrader_config.py` cleans what students wrote before the feedback pages and the
Formgrader show it, and forbids both pages to run or load anything else.
"""

import base64
import hashlib
import html
import re
from pathlib import Path
from typing import Any

import bleach
from jinja2 import pass_context
from nbconvert.exporters import HTMLExporter
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode

TAGS = frozenset(
    "a abbr b blockquote br caption code dd del div dl dt em h1 h2 h3 h4 h5 h6 hr i "
    "img kbd li ol p pre s small span strong sub sup table tbody td tfoot th thead tr "
    "u ul".split()
)
PICTURE = re.compile(r"data:image/(png|jpeg|gif);base64,[A-Za-z0-9+/=\s]*\Z")
LINK = re.compile(r"(https?://|mailto:)", re.IGNORECASE)
COLORED = re.compile(r"(highlight|[a-z][a-z0-9]{0,2})(\s+hl-[a-z0-9]+)?\Z")
SHOWN = {"text/plain", "text/html", "text/markdown", "text/latex", "image/png"}
SHOWN |= {"image/jpeg"}
NO_SCRIPT = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
OWN_SCRIPTS = (
    "default-src 'none'; script-src 'self' 'unsafe-hashes' {}; connect-src 'self'; "
    "style-src 'self' 'unsafe-inline'; font-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'self'"
)


def allowed(tag: str, name: str, value: str) -> bool:
    """Whether an element may have an attribute with this value."""
    if tag == "img":
        shown = name == "src" and PICTURE.match(value)
        return bool(shown) or name in ("alt", "width", "height")
    if name == "href":
        return tag == "a" and bool(LINK.match(value))
    if name == "class":
        return tag in ("span", "div") and bool(COLORED.match(value))
    return name in ("colspan", "rowspan", "start") or (tag == "a" and name == "title")


def clean(text: str) -> str:
    """HTML without anything that runs, loads or looks like the page around it."""
    return bleach.clean(
        text,
        tags=TAGS,
        attributes=allowed,
        protocols={"http", "https", "mailto", "data"},
    )


@pass_context
def markdown_to_html(context: Any, source: str) -> str:
    """What nbconvert makes of Markdown, cleaned."""
    return clean(HTMLExporter(exclude_anchor_links=True).markdown2html(context, source))


class Harmless(Preprocessor):
    """Takes out of a notebook what its page would run; Markdown is cleaned later."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Keep the cells, and of the metadata only what nbgrader wrote."""
        nb.metadata = NotebookNode(language_info={"name": "python"})
        for cell in nb.cells:
            graded = cell.metadata.get("nbgrader")
            cell.metadata = NotebookNode(nbgrader=graded) if graded else NotebookNode()
            if cell.cell_type == "code":
                if not isinstance(cell.get("execution_count"), int):
                    cell.execution_count = None
                cell.outputs = [self.shown(output) for output in cell.outputs]
        return nb, resources

    def shown(self, output: NotebookNode) -> NotebookNode:
        """An output as text, pictures and clean HTML."""
        if "data" not in output:
            return output
        kept = {k: v for k, v in output.data.items() if k in SHOWN and type(v) is str}
        if "text/html" in kept:
            kept["text/html"] = clean(kept["text/html"])
        for kind in ("image/png", "image/jpeg"):
            if not is_base64(kept.get(kind, "")):
                del kept[kind]
        gone = sorted(set(output.data) - set(kept))
        if not kept:
            kept["text/plain"] = f"not shown: {html.escape(', '.join(gone))}"
        output.data, output.metadata = NotebookNode(kept), NotebookNode()
        return output


def is_base64(text: str) -> bool:
    """Whether a text is what a picture is stored as."""
    return re.fullmatch(r"[A-Za-z0-9+/=\s]*", text) is not None


# Feedback pages


def tidy_feedback(assignment: str, notebooks: list[str], **_: Any) -> None:
    """Let the page that was just made run and load nothing, and name its tests."""
    for notebook in map(Path, notebooks):
        page = Path("feedback", notebook.parts[-3], assignment, f"{notebook.stem}.html")
        text = page.read_text("utf-8")
        text = re.sub(r"<script\b.*?</script>", "", text, flags=re.DOTALL)
        text = re.sub(
            r'(<a href="#(\w+)">)Test cell<', r"\1Test <code>\2</code><", text
        )
        policy = f'<meta http-equiv="Content-Security-Policy" content="{NO_SCRIPT}">'
        page.write_text(text.replace("<head>", f"<head>\n{policy}", 1), "utf-8")


# The Formgrader


def policy_for(page: str) -> str:
    """A policy for a page of the Formgrader: its own scripts, and no others.

    All that stands before the notebook comes from nbgrader's template.
    """
    own = page.partition('id="notebook"')[0]
    scripts = re.findall(r"<script\b[^>]*>(.*?)</script>", own, re.DOTALL)
    scripts += re.findall(r'\sonclick="([^"]*)"', own)
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts if script]
    hashes = (f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return OWN_SCRIPTS.format(" ".join(dict.fromkeys(hashes)))


def guard_formgrader() -> None:
    """Send a policy with each submission, and with each file that belongs to one."""
    from nbgrader.server_extensions.formgrader import handlers

    page, files = handlers.SubmissionHandler, handlers.SubmissionFilesHandler

    def write(self: Any, chunk: Any) -> None:
        if isinstance(chunk, str):
            self.set_header("Content-Security-Policy", policy_for(chunk))
        super(page, self).write(chunk)

    page.write = write
    files.content_security_policy = f"{NO_SCRIPT}; sandbox"


def protect(c: Any) -> None:
    """Set nbgrader up so that nothing of a student's runs in a browser."""
    c.HTMLExporter.preprocessors = [Harmless]
    c.HTMLExporter.filters = {"markdown2html": markdown_to_html, "clean_html": clean}
    c.HTMLExporter.sanitize_html = True
    c.GenerateFeedback.post_convert_hook = tidy_feedback
    guard_formgrader()
