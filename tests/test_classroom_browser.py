"""What a hostile submission shows to the teacher, in a real browser."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.api import Gradebook

from annotated_transformer.checks import pages

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
# Each way in says which it was: it sets a variable, or asks a foreign server.
SCRIPT = "<script>window.got_in = '{0}'</script>"
PICTURE = "<img src='x:' onerror=\"window.got_in = '{0}'\">"
REMOTE = "<img src='http://evil.test/{0}.png'>"
FRAME = "<iframe src='http://evil.test/{0}'></iframe>"
STYLE = "<style>body {{ background: url(http://evil.test/{0}) }}</style>"
ANSWER = """
from IPython.display import HTML, SVG, Javascript, Latex, Markdown, display

for kind in (HTML, Latex, Markdown):
    display(kind({html!r}))
display(Javascript("window.got_in = 'javascript'"))
display(SVG("<svg xmlns='http://www.w3.org/2000/svg'>" + {html!r} + "</svg>"))
picture = {{"image/png": "AAAA", "text/plain": "x"}}
width = "1 onerror=window.got_in='width'"
display(picture, raw=True, metadata={{"image/png": {{"width": width}}}})
display({{"image/png": "'\\">" + {html!r}}}, raw=True)
display(HTML({html!r}), metadata={{"text/html": {{"isolated": True}}}})
kernel = get_ipython().kernel
kernel.session.send(
    kernel.iopub_socket, "execute_input",
    {{"code": "", "execution_count": {html!r}}}, parent=kernel.get_parent())
print({html!r})
raise ValueError({html!r})
"""
READING = (
    "My reading: a < b && `x < y`, **bold**.\n\n[a](javascript:window.got_in='link')\n"
)


def ways(name):
    """All of HTML's ways in."""
    kinds = {"script": SCRIPT, "onerror": PICTURE, "remote": REMOTE}
    kinds |= {"frame": FRAME, "style": STYLE}
    return "".join(text.format(f"{name}-{kind}") for kind, text in kinds.items())


def graded(name, **settings):
    """What nbgrader notes in a cell."""
    base = {"grade": True, "solution": True, "locked": False, "task": False}
    return {"nbgrader": {**base, "grade_id": name, "schema_version": 3, **settings}}


def run(folder, command):
    """Type a command in the folder of the course."""
    homes = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")
    environment = {**os.environ, **{name: str(folder / name) for name in homes}}
    environment["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command.split(), cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """One problem set with a reading, one hostile submission, graded."""
    folder = tmp_path_factory.mktemp("course")
    shutil.copy(ROOT / "assignments" / "nbgrader_config.py", folder)
    cells = [
        new_code_cell("...", metadata=graded("code", grade=False)),
        new_markdown_cell("*Your reading*", metadata=graded("reading", points=4)),
        new_code_cell("1", metadata=graded("test", solution=False, points=2)),
    ]
    path = folder / "source" / "ps1_model" / "ps1_model.ipynb"
    path.parent.mkdir(parents=True)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    run(folder, "nbgrader generate_assignment ps1_model")
    notebook = nbformat.read(folder / "release" / "ps1_model" / path.name, 4)
    notebook.cells[0].source = ANSWER.format(html=ways("output"))
    notebook.cells[1].source = READING + ways("reading")
    notebook.cells.append(new_markdown_cell(ways("text")))
    notebook.cells.append(nbformat.v4.new_raw_cell(ways("raw")))
    notebook.metadata.title = "</title>" + ways("title")
    handed_in = folder / "submitted" / "mallory" / "ps1_model"
    handed_in.mkdir(parents=True)
    nbformat.write(notebook, handed_in / path.name)
    (handed_in / "page.html").write_text(ways("file"))
    run(folder, "nbgrader autograde ps1_model")
    run(folder, "nbgrader generate_feedback ps1_model")
    return folder


@pytest.fixture(scope="module")
def formgrader(course):
    """The address of nbgrader's Formgrader, served for this course."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    extensions = {"nbgrader.server_extensions.formgrader": True}
    settings = json.dumps({"ServerApp": {"jpserver_extensions": extensions}})
    (course / "jupyter_server_config.json").write_text(settings)
    homes = {"JUPYTER_CONFIG_DIR": "a", "JUPYTER_DATA_DIR": "b", "IPYTHONDIR": "c"}
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root"]
        + [f"--port={port}", "--IdentityProvider.token=", "--ServerApp.password="],
        cwd=course,
        env={**os.environ, **{k: str(course / v) for k, v in homes.items()}},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    for _ in range(120):
        try:
            urllib.request.urlopen(f"{address}/api").read()
            break
        except OSError:
            time.sleep(0.5)
    yield address
    server.terminate()
    server.wait()


def visited(browser, address):
    """A page that has loaded, and all that got in."""
    page = browser.new_page()
    foreign = []

    def on_failed(request):  # there is no network: whatever the browser tried fails
        if "evil" in request.url and request.failure != "csp":
            foreign.append(request.url)

    page.on("requestfailed", on_failed)
    page.goto(address, wait_until="load")
    page.wait_for_timeout(500)
    got_in = page.evaluate("() => window.got_in ? [window.got_in] : []")
    return page, got_in + foreign


def test_the_attack_works_on_a_page_that_nobody_protects(course, browser, tmp_path):
    folder = tmp_path / "course"
    shutil.copytree(course, folder, ignore=shutil.ignore_patterns("feedback"))
    config = (folder / "nbgrader_config.py").read_text()
    (folder / "nbgrader_config.py").write_text(config.replace("pages.protect(c)", ""))
    run(folder, "nbgrader generate_feedback ps1_model")
    page = folder / "feedback" / "mallory" / "ps1_model" / "ps1_model.html"
    _, found = visited(browser, page.as_uri())
    assert "http://evil.test/reading-remote.png" in found
    assert "http://evil.test/output-remote.png" in found
    assert len(found) > 5 and not found[0].startswith("http")


def test_nothing_gets_in_by_the_feedback_page(course, browser):
    path = course / "feedback" / "mallory" / "ps1_model" / "ps1_model.html"
    page, found = visited(browser, path.as_uri())
    assert found == []
    assert page.locator("script, iframe, object, embed").count() == 0
    reading = page.locator(".text_cell_render", has_text="My reading").first
    assert "a < b && x < y, bold." in reading.inner_text()
    assert reading.locator("strong").inner_text() == "bold"
    page.evaluate(
        "() => { const s = document.createElement('script');"
        "s.textContent = 'window.got_in = 1'; document.body.append(s); }"
    )
    assert page.evaluate("() => window.got_in") is None  # the policy holds by itself


def submission_of(course):
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        return book.find_submission_notebook("ps1_model", "ps1_model", "mallory").id


def test_nothing_gets_in_by_the_formgrader_and_grading_works(
    course, browser, formgrader
):
    address = f"{formgrader}/formgrader/submissions/{submission_of(course)}/"
    page, found = visited(browser, address)
    assert found == []
    page.evaluate(
        "() => { const s = document.createElement('script');"
        "s.textContent = 'window.got_in = 1'; document.body.append(s); }"
    )
    assert page.evaluate("() => window.got_in") is None
    score = page.locator("input#reading")
    score.fill("3")
    score.blur()
    page.locator(".score-saved:visible").first.wait_for()
    page.locator(".name-hidden.glyphicon").click()
    assert page.locator(".name-shown", has_text="mallory").is_visible()
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        grade = book.find_grade("reading", "ps1_model", "ps1_model", "mallory")
        assert grade.manual_score == 3


def test_a_page_that_was_handed_in_runs_nothing(course, browser, formgrader):
    address = f"{formgrader}/formgrader/submissions/{submission_of(course)}/page.html"
    _, found = visited(browser, address)
    assert found == []


def test_cleaning_keeps_what_a_reading_needs():
    kept = (
        "<h2>Title</h2><p>a &lt; b <code>x</code></p><ol><li>one</li></ol>"
        '<table><tbody><tr><td colspan="2">1</td></tr></tbody></table>'
        '<a href="https://arxiv.org/abs/1706.03762">paper</a>'
        '<img alt="plot" src="data:image/png;base64,AAAA">'
        '<div class="highlight hl-python"><span class="kn">import</span></div>'
    )
    assert pages.clean(kept) == kept


@pytest.mark.parametrize(
    "harm",
    [
        *("<script>x</script>", "<svg onload=x>", "<math><mi xlink:href=x>"),
        *("<img src=http://a/b.png>", "<img src=data:image/svg+xml;base64,AA>"),
        *("<a href=' javascript:x'>", "<a href=data:text/html,x>", "<base href=x>"),
        *(
            "<form action=x><input name=y>",
            "<link rel=stylesheet href=x>",
            "<meta a=b>",
        ),
        *(
            "<p style='background:url(x)'>",
            "<p id=x>",
            "<span class='score'>",
            "<p a=x",
        ),
        *("<object data=x>", "<iframe srcdoc=x>", "<button class=full-credit>"),
    ],
)
def test_cleaning_leaves_nothing_that_runs_or_loads(harm):
    found = re.findall(r"<(\w+)([^>]*)>", pages.clean(harm))
    assert all(tag in pages.TAGS and not rest.strip() for tag, rest in found)
