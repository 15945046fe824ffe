"""Prepares what Jupyter Book reads, and runs it."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import yaml

from annotated_transformer.checkpoints import WEIGHTS
from annotated_transformer.files import write_json
from annotated_transformer.recipes import SETTINGS
from annotated_transformer.tokenizers import SUBWORD_FILE
from annotated_transformer.translator import PRETRAINED
from tools import lanes
from tools.book import alive, pages
from tools.book.chapters import MODEL_CARD, linked_cells, prepare
from tools.book.course import ROOT, Course, as_json, label
from tools.book.palette import palette

BUILD = ROOT / "book" / "_build"
FONTS = {
    "source-serif-4": ("opsz-normal", "opsz-italic"),
    "source-sans-3": ("wght-normal", "wght-italic"),
    "source-code-pro": ("wght-normal",),
}


class BookError(Exception):
    """The book cannot be built; the message says what is missing."""


def vendor(root: Path = ROOT) -> Path:
    """Fetch the locked scripts and fonts of the pages, once. Returns their folder."""
    book = root / "book"
    folder, lock = book / "node_modules", book / "package-lock.json"
    stamp = folder / ".package-lock.json"
    if stamp.exists() and stamp.stat().st_mtime >= lock.stat().st_mtime:
        return folder
    if not shutil.which("npm"):
        raise BookError(
            "npm is not here: it fetches the scripts and fonts of the pages. "
            "On Debian and Ubuntu: sudo apt install npm"
        )
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    result = subprocess.run(command, cwd=book, capture_output=True, text=True)
    if result.returncode:
        raise BookError(f"npm could not fetch the scripts and fonts:\n{result.stderr}")
    stamp.touch()
    return folder


def assets(source: Path, npm: Path, course: Course) -> None:
    """Scripts, fonts and style of the pages, and the model that runs in them."""
    folder = source / "_assets"
    mathjax = npm / "mathjax" / "es5"
    fonts = "output/chtml/fonts"
    shutil.copytree(mathjax / fonts, folder / "mathjax" / fonts)
    shutil.copy(mathjax / "tex-mml-chtml.js", folder / "mathjax")
    (folder / "vega").mkdir()
    for name in ("vega", "vega-lite", "vega-embed"):
        shutil.copy(npm / name / "build" / f"{name}.min.js", folder / "vega")
    (folder / "fonts").mkdir()
    for font, cuts in FONTS.items():
        files = npm / "@fontsource-variable" / font / "files"
        for cut in cuts:
            for script in ("latin", "latin-ext"):
                shutil.copy(files / f"{font}-{script}-{cut}.woff2", folder / "fonts")
    for path in (course.root / "book" / "style").iterdir():
        shutil.copy(path, folder)
    engine = shutil.copytree(course.root / "book" / "alive", folder / "alive")
    (engine / "model").mkdir()
    for name in (WEIGHTS, SUBWORD_FILE, SETTINGS):
        shutil.copy(PRETRAINED / name, engine / "model")
    (folder / "palette.css").write_text(palette(), "utf-8")
    terms = {term: definition for term, definition, _ in course.glossary}
    (folder / "terms.js").write_text(
        f"window.courseTerms = {as_json(terms)};\n", "utf-8"
    )


def prepare_source(source: Path, course: Course, npm: Path) -> None:
    """Write everything that Jupyter Book reads into a new folder."""
    shutil.rmtree(source, ignore_errors=True)
    for name in ("book", "api"):
        (source / name).mkdir(parents=True)
    keys, linked = pages.citation_keys(course), linked_cells(course)
    for chapter in course.notebooks:
        path = source / f"{chapter.doc}.ipynb"
        path.parent.mkdir(exist_ok=True, parents=True)
        nbformat.write(prepare(course, chapter, keys, linked), path)
    texts = {
        "index.md": pages.start(course, course.data("landing.yml")),
        "book/paper.md": pages.paper(course),
        "book/departures.md": pages.departures(course),
        "book/proofs.md": pages.proofs(course),
        "book/code_map.md": pages.map_page(course),
        "book/glossary.md": pages.glossary(course),
        **{
            f"book/{name}.md": (course.root / "book" / f"{name}.md").read_text("utf-8")
            for name in ("help", "notation", "doctor", "patients")
        },
        f"{alive.PAGE}.md": alive.page(course, pages.picture(course)),
        "book/bibliography.md": pages.bibliography(course),
        "book/model_card.md": (course.root / MODEL_CARD).read_text("utf-8"),
        "api/index.md": pages.api_index(course),
        "references.bib": (course.root / "book" / "references.bib").read_text("utf-8"),
        "_toc.yml": yaml.safe_dump(pages.toc(course), sort_keys=False),
        "_config.yml": yaml.safe_dump(pages.config(course), sort_keys=False),
    }
    texts |= pages.teaching(course)
    texts |= {f"api/{m}.md": pages.api_module(course, m) for m in course.modules}
    for name, text in texts.items():
        (source / name).write_text(text, "utf-8")
    for folder in ("images", "doctor"):  # what pages of the book show and hand out
        shutil.copytree(course.root / "book" / folder, source / "book" / folder)
    write_json(source / "course.json", for_sphinx(course))
    assets(source, npm, course)


def for_sphinx(course: Course) -> dict:
    """What the Sphinx extension needs to know about the course."""
    rows = {}
    for row in course.departures:
        for box in row.get("boxes", []):
            chapter, cell = course.chapter_of(box)
            rows[chapter.box_anchor(cell)] = label(row["topic"])
    origins = {f"api/{m}": course.origin(m) for m in course.modules}
    origins |= {
        alive.PAGE: "book/alive/page/page.md",
        "book/paper": "book/paper_map.yml",
        "book/departures": "book/departures.yml",
        "book/glossary": "book/glossary.md",
        "book/help": "book/help.md",
        "book/doctor": "book/doctor.md",
        "book/patients": "book/patients.md",
        "book/notation": "book/notation.md",
        "book/bibliography": "book/references.bib",
        "book/model_card": MODEL_CARD,
    } | pages.TEACHING
    return {
        "chapters": {c.number: c.doc for c in course.chapters},
        "marks": {c.doc: lanes.mark(c.path) for c in course.notebooks if c.number},
        "deeper": [c.doc for c in course.of_kind("deeper")],
        "figures": {figure: c.doc for c in course.notebooks for figure in c.figures},
        "equations": course.equations,
        "paper": {p["where"]: f"paper-{label(p['where'])}" for p in course.paper_map},
        "terms": [term for term, _, _ in course.glossary],
        "proofs": {test: label(test) for test in course.proofs()},
        "departures": rows,
        "alive": {
            number: [figure["words"], alive.state(figure["show"])]
            for number, figure in alive.data(course, "figures").items()
        },
        "origins": origins,
        "notebooks": {c.doc: str(c.path) for c in course.notebooks},
    }


def build(target: Path = BUILD, course: Course | None = None) -> Path:
    """Build the site below `target`; returns the folder of the pages."""
    start = time.monotonic()
    course = course or Course()
    missing = pages.uncited(course)
    if missing:
        lines = [f"arXiv:{k} (chapter {', '.join(v)})" for k, v in missing.items()]
        raise BookError("book/references.bib has no entry for " + "; ".join(lines))
    source, site = target / "source", target / "site"
    prepare_source(source, course, vendor())
    shutil.rmtree(target / "_build", ignore_errors=True)
    command = [
        *(str(Path(sys.executable).with_name("jupyter-book")), "build", str(source)),
        *("--path-output", str(target), "--warningiserror", "--keep-going", "--quiet"),
    ]
    result = subprocess.run(command, cwd=course.root, capture_output=True, text=True)
    output = result.stdout + result.stderr
    pages_built = target / "_build" / "html"
    if result.returncode or not (pages_built / "index.html").exists():
        raise BookError(f"Jupyter Book found something wrong:\n{output}")
    shutil.rmtree(site, ignore_errors=True)
    pages_built.rename(site)
    number = len(list(site.rglob("*.html")))
    done, planned, never = course.covered()
    print(f"{number} pages in {time.monotonic() - start:.0f} s: {site / 'index.html'}")
    print(
        f"The paper: {done} of {len(course.paper_map)} parts have cells, "
        f"{planned} are planned, {never} can't be done here"
    )
    return site
