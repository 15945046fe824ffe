"""The book: complete, made of the notebooks as stored; every link leads somewhere."""

import copy
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import matplotlib
import nbformat
import pytest
import trees
import yaml

from annotated_transformer.plots import STYLE
from annotated_transformer.translator import Translator
from tools import landing, lanes
from tools.book import alive, build, chapters, pages
from tools.book.course import DEPARTS, TEST_NAME, Course, as_json, label, named_tests
from tools.book.drawing import code_map
from tools.book.palette import palette

ROOT = Path(__file__).parents[1]
COURSE = Course()
ADDRESS = "https://github.com/someone/course"
each_chapter = pytest.mark.parametrize(
    "chapter", COURSE.notebooks, ids=lambda chapter: chapter.name
)
each_departure = pytest.mark.parametrize(
    "row", COURSE.departures, ids=lambda row: row["topic"]
)


def with_address(address):
    course = Course()
    course.__dict__["address"] = address
    return course


def prepared(chapter, course=COURSE):
    keys, linked = pages.citation_keys(course), chapters.linked_cells(course)
    return chapters.prepare(course, chapter, keys, linked)


def files(entries):
    """The pages of some entries of the table of contents, child pages behind theirs."""
    return [f for e in entries for f in (e["file"], *files(e.get("sections", [])))]


# --- The table of contents ---


def test_every_notebook_stands_once_in_the_table_of_contents():
    contents = pages.toc(COURSE)
    found = files(c for part in contents["parts"] for c in part["chapters"])
    names = [f.removeprefix("notebooks/") for f in found if f.startswith("notebooks/")]
    assert sorted(names) == sorted(map(lanes.name, lanes.all_notebooks()))
    core = [name for name in names if name in map(lanes.name, lanes.core())]
    assert core == sorted(core)
    captions = [part["caption"] for part in contents["parts"]]
    assert captions[0] == "Start"
    assert captions == [c for c in captions if c]
    assert len(captions) == len(set(captions))


def test_a_chapter_to_come_will_find_its_part():
    numbers = [
        number
        for part in COURSE.data("parts.yml")
        for number in range(part["first"], part["last"] + 1)
    ]
    assert numbers == list(range(23))


def test_every_text_of_the_book_folder_is_a_page():
    texts = {f"book/{path.stem}" for path in (ROOT / "book").glob("*.md")}
    contents = pages.toc(COURSE)["parts"]
    found = files(c for part in contents for c in part["chapters"])
    assert texts - set(found) == set()
    assert len(found) == len(set(found))


def test_every_module_has_a_page():
    contents = pages.toc(COURSE)["parts"][-1]["chapters"][-1]
    named = [section["file"] for section in contents["sections"]]
    modules = (ROOT / "annotated_transformer").glob("[!_]*.py")
    names = [*(path.stem for path in modules), "lessons"]
    assert named == sorted(f"api/{name}" for name in names)


# --- Chapters ---


@each_chapter
def test_preparing_a_chapter_changes_no_code_no_number_and_not_the_original(chapter):
    original = copy.deepcopy(chapter.notebook)
    copied = prepared(chapter)
    assert chapter.notebook == original
    assert [c.id for c in copied.cells] == [c.id for c in original.cells]
    for before, after in zip(original.cells, copied.cells, strict=True):
        if before.cell_type == "markdown":
            added = r"^\((?:cell|departs)-[\w-]+\)=\n| \{cite\}`\w+`"
            added += r"|^\| \*\*(?:Line by line|A second reading)\*\*.*\n"
            plain = re.sub(added, "", after.source, flags=re.M)
            folder = Path(chapter.doc).parent.as_posix()
            assert plain == chapters.links_out(before.source, COURSE.address, folder)
            continue
        assert after.source == before.source
        assert after.execution_count == before.execution_count
        for old, new in zip(before.outputs, after.outputs, strict=True):
            if chapters.VEGA_LITE not in old.get("data", {}):
                assert new == old


@each_chapter
def test_a_chapter_leads_back_to_its_parts_of_the_paper(chapter):
    title = prepared(chapter).cells[0].source
    parts = chapters.paper_parts(COURSE, chapter)  # tests/test_paper_map.py: not empty
    assert [p for p in parts if f"[{p}](#paper-{label(p)})" not in title] == []


@each_chapter
def test_the_cell_for_colab_is_left_out_and_a_solution_is_folded_once(chapter):
    for cell in prepared(chapter).cells:
        tags = cell.metadata.get("tags", [])
        assert "remove-cell" in tags if "colab" in tags else "remove-cell" not in tags
        assert not {"solution", "hide-cell"} <= set(tags)
        assert "hide-output" not in tags


def test_a_badge_from_elsewhere_is_left_out():
    chapter = COURSE.chapters[2]
    source = (
        "# 02 Title\n\n[![Open in Colab](https://x/badge.svg)](https://x)\n\nWords."
    )
    assert "badge" not in chapters.frame(source, COURSE, chapter)
    assert "Words." in chapters.frame(source, COURSE, chapter)


def test_a_chart_keeps_its_data_and_cannot_end_its_script():
    spec = {"mark": "bar", "data": {"values": [{"a": "</script><b>"}]}, "usermeta": "ü"}
    made = chapters.chart(spec, 'says "hi"')
    inside = re.search(r"<script type=.application/json.>(.*)</script>", made)[1]
    assert "</script" not in inside
    assert json.loads(inside) == spec
    assert 'aria-label="says &quot;hi&quot;"' in made


def test_charts_of_the_notebooks_become_charts_of_the_page():
    made = [
        output.data["text/html"]
        for chapter in COURSE.notebooks
        for cell in prepared(chapter).cells
        for output in cell.get("outputs", [])
        if "text/html" in output.get("data", {})
    ]
    stored = sum(
        c.path.read_text("utf-8").count(chapters.VEGA_LITE) for c in COURSE.notebooks
    )
    assert len(made) == stored > 5
    for html in made:
        spec = json.loads(re.search(r"json.>(.*)</script>", html)[1])
        assert spec["$schema"] == chapters.SCHEMA
        assert re.search(r'aria-label="[^"]{20,}"', html)


def test_a_link_to_a_file_that_is_no_page_waits_for_an_address():
    text = (
        "[a](../book/notation.md) [card](../annotated_transformer/pretrained/README.md)"
    )
    text += " [b](02_attention.ipynb) [code](../tools/sync.py)"
    same = (
        "[a](../book/notation.md) [card](../book/model_card.md) [b](02_attention.ipynb)"
    )
    assert chapters.links_out(text, None) == f"{same} code"
    linked = f"{same} [code]({ADDRESS}/blob/main/tools/sync.py)"
    assert chapters.links_out(text, ADDRESS) == linked


def test_links_of_what_goes_deeper_start_one_folder_below():
    text = (
        "[a](../../book/notation.md) [core](../02_attention.ipynb) [x](03_masks.ipynb)"
    )
    text += " [card](../../annotated_transformer/pretrained/README.md)"
    same = text.replace("annotated_transformer/pretrained/README", "book/model_card")
    text += " [code](../../tools/sync.py)"
    folder = "notebooks/deeper"
    assert chapters.links_out(text, None, folder) == f"{same} code"
    linked = f"{same} [code]({ADDRESS}/blob/main/tools/sync.py)"
    assert chapters.links_out(text, ADDRESS, folder) == linked


def test_a_link_to_a_known_paper_is_cited():
    text = "See [x](https://arxiv.org/abs/1706.03762) and [y](https://arxiv.org/abs/0000.00000)."
    cited = chapters.cite(text, pages.citation_keys(COURSE))
    assert cited.count("{cite}") == 1
    assert "03762) {cite}`vaswani2017` and" in cited


# --- Bibliography, glossary, palette ---


def test_every_paper_that_a_chapter_links_to_is_in_the_bibliography():
    assert pages.uncited(COURSE) == {}


def test_entries_of_the_bibliography_are_whole():
    text = (ROOT / "book" / "references.bib").read_text("utf-8")
    entries = re.split(r"^@\w+", text, flags=re.MULTILINE)[1:]
    keys = [entry.partition(",")[0].strip("{ ") for entry in entries]
    assert len(keys) == len(set(keys)) > 30
    for key, entry in zip(keys, entries, strict=True):
        fields = dict(re.findall(r"^  (\w+) = \{(.+)\},?$", entry, re.MULTILINE))
        assert {"author", "title", "year"} <= set(fields), key
        assert ("eprint" in fields) != ("url" in fields), key  # one address


def test_the_glossary_page_has_every_term():
    page = pages.glossary(COURSE)
    assert len(COURSE.glossary) > 50
    assert [term for term, *_ in COURSE.glossary if f"\n{term}\n  " not in page] == []


def test_the_pages_for_teachers_are_in_the_book_and_lead_to_each_other():
    (part,) = (p for p in pages.toc(COURSE)["parts"] if p["caption"] == "Teach")
    texts = pages.teaching(COURSE)
    assert {f"{entry['file']}.md" for entry in part["chapters"]} == set(texts)
    assert "](../book/wrong_answers.md)" in texts["book/teach.md"]
    for text in texts.values():
        assert "](../assignments/" not in text
        assert re.match(r"# \w+", text)


def test_the_pages_have_the_colors_of_the_plots():
    css = palette()
    style = matplotlib.rc_params_from_file(STYLE, use_default_template=False)
    for i, color in enumerate(style["axes.prop_cycle"].by_key()["color"]):
        assert f"--plot-{i}: #{color.lstrip('#')};" in css
    used = set(re.findall(r"var\((--(?:plot|blue)-\d)", style_sheet()))
    assert len(used) > 5
    assert [name for name in used if f"{name}:" not in css] == []


def style_sheet():
    return (ROOT / "book" / "style" / "course.css").read_text("utf-8")


# --- The paper, line by line ---


def test_the_paper_page_has_every_part_every_cell_and_the_coverage():
    page = pages.paper(COURSE)
    done, planned, never = COURSE.covered()
    assert done + planned + never == len(COURSE.paper_map)
    assert f"**Covered: {done} of {len(COURSE.paper_map)} parts" in page
    for part in COURSE.paper_map:
        row = page.partition(f"(paper-{label(part['where'])})=")[2].partition(
            "\n(paper-"
        )[0]
        assert part["says"] in row
        for cell in part.get("cells", []):
            chapter, cell_id = COURSE.chapter_of(cell)
            assert f"](#{chapter.anchor(cell_id)})" in row


def test_a_cell_is_named_by_what_it_is():
    chapter = COURSE.chapter("02")
    assert chapter.what_is("def-attention") == (
        "3.2 The definition",
        "`attention`",
    )
    assert chapter.what_is("fig-pear")[1] == "Fig. 2.2"
    assert chapter.what_is("fig-pear-caption")[1] == "Fig. 2.2"
    assert chapter.what_is("matrix") == ("2. The same as a matrix expression", "text")
    assert chapter.what_is("hard-lookup")[1] == "code"
    with pytest.raises(KeyError, match="no cell 'nowhere'"):
        chapter.what_is("nowhere")


# --- Departures ---


def test_no_box_of_a_chapter_is_missing_in_the_table_of_departures():
    listed = [box for row in COURSE.departures for box in row.get("boxes", [])]
    assert sorted(set(COURSE.departure_boxes()) - set(listed)) == []
    assert sorted(set(listed) - set(COURSE.departure_boxes())) == []
    assert len(listed) == len(set(listed))  # a box has one row
    assert len(COURSE.departure_boxes()) > 25


def test_no_departure_that_the_package_names_is_missing():
    listed = {note for row in COURSE.departures for note in row.get("code", [])}
    assert listed == COURSE.departures_in_code()
    assert listed


@each_departure
def test_a_departure_says_all_four_things(row):
    assert {"topic", "paper", "reference", "source", "ours", "tests"} <= set(row)
    assert set(row) <= {
        *("topic", "paper", "reference", "source"),
        *("ours", "tests", "boxes", "code"),
    }
    assert set(row["source"]) <= set(pages.SOURCES)
    assert row.get("boxes") or row.get("code")
    assert all(row[key].endswith(".") for key in ("paper", "reference", "ours"))


@each_departure
def test_every_test_that_proves_a_departure_exists(row):
    assert row["tests"]
    assert [test for test in row["tests"] if test not in COURSE.sources_of_tests] == []


@each_departure
def test_a_row_names_the_tests_that_its_boxes_name(row):
    boxes = COURSE.departure_boxes()
    named = {test for box in row.get("boxes", []) for test in boxes[box]}
    assert sorted(named - set(row["tests"])) == []


def test_a_name_without_its_file_is_in_the_file_before_it():
    text = "`tests/test_a.py::test_x`, `::test_y` and\n`tests/test_b.py::test_z`."
    assert named_tests(text) == [
        "tests/test_a.py::test_x",
        "tests/test_a.py::test_y",
        "tests/test_b.py::test_z",
    ]
    assert DEPARTS.search("> **Departs from the paper: x.** y")
    assert not DEPARTS.search("**Departs from the paper** marks every place")


def test_every_test_that_a_chapter_names_exists():
    missing = [
        f"{chapter.name} {cell.id}: {test}"
        for chapter in COURSE.notebooks
        for cell in chapter.notebook.cells
        if cell.cell_type == "markdown" and TEST_NAME.search(cell.source)
        for test in named_tests(cell.source)
        if test not in COURSE.sources_of_tests
    ]
    assert missing == []


# --- Map, landing page, settings ---


def test_the_map_links_to_every_module_and_to_chapters_that_exist():
    picture = code_map(COURSE)
    links = re.findall(r'href="\.\./([^"]+)\.html"', picture)
    assert {f"api/{module}" for module in COURSE.modules} <= set(links)
    documents = {chapter.doc for chapter in COURSE.chapters}
    assert {link for link in links if link.startswith("notebooks/")} <= documents
    assert len([link for link in links if link.startswith("notebooks/")]) > 15


def test_the_landing_page_shows_what_the_shipped_model_says():
    stored = COURSE.data("landing.yml")
    found = landing.look(Translator.pretrained(), stored["sentence"], -1)
    assert found["translation"] == stored["translation"]
    assert " ".join(stored["target"]) == stored["translation"]
    assert " ".join(stored["source"]) == stored["sentence"]
    for ours, theirs in zip(stored["weights"], found["weights"], strict=True):
        assert ours == pytest.approx(theirs, abs=0.02)
        assert 0 < sum(ours) <= 1.05


def test_pieces_join_into_words():
    pieces = ["\u2581Ein", "\u2581H", "und", ",", "\u2581der"]
    places = landing.words(pieces)
    assert places == [[0], [1, 2, 3], [4]]
    assert [landing.text(pieces, p) for p in places] == ["Ein", "Hund,", "der"]


def test_buttons_that_need_an_address_wait_for_it():
    without, having = (
        pages.config(with_address(None)),
        pages.config(with_address(ADDRESS)),
    )
    for settings, expected in ((without, False), (having, True)):
        assert settings["html"]["use_edit_page_button"] is expected
        assert settings["html"]["use_repository_button"] is expected
        assert ("launch_buttons" in settings) is expected
    assert having["repository"]["url"] == ADDRESS
    elsewhere = pages.config(with_address("https://example.org/course"))
    assert "launch_buttons" not in elsewhere  # Colab opens what is on GitHub only


def test_the_landing_page_offers_colab_once_there_is_an_address():
    data = COURSE.data("landing.yml")
    without = pages.start(with_address(None), data)
    having = pages.start(with_address(ADDRESS), data)
    assert "make lab" in without
    assert "make lab" in having
    assert "colab" not in without.lower()
    assert 'href="notebooks/00_start_here.html">Read on' in without
    colab = (
        "https://colab.research.google.com/github/someone/course/blob/main/notebooks/"
    )
    assert f'href="{colab}00_start_here.ipynb">Open it in Colab' in having


def test_nothing_is_executed_when_the_book_is_built():
    assert pages.config(COURSE)["execute"]["execute_notebooks"] == "off"


def test_scripts_and_fonts_are_locked_to_a_version_and_a_checksum():
    package = json.loads((ROOT / "book" / "package.json").read_text("utf-8"))
    wanted = {**package["dependencies"], **package["devDependencies"]}
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    lock = json.loads((ROOT / "book" / "package-lock.json").read_text("utf-8"))
    locked = {
        k.removeprefix("node_modules/"): v for k, v in lock["packages"].items() if k
    }
    assert all(entry["integrity"].startswith("sha512-") for entry in locked.values())
    assert {name: locked[name]["version"] for name in wanted} == wanted


def test_without_npm_the_error_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "book").mkdir()
    shutil.copy(ROOT / "book" / "package-lock.json", tmp_path / "book")
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with pytest.raises(build.BookError, match="sudo apt install npm"):
        build.vendor(tmp_path)


def test_a_paper_without_an_entry_stops_the_build_and_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(build.pages, "uncited", lambda course: {"1234.56789": ["02"]})
    with pytest.raises(build.BookError, match=r"arXiv:1234\.56789 \(chapter 02\)"):
        build.build(tmp_path, COURSE)


# --- A small course with what goes deeper, and with the paper in one sitting ---


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small course of every kind of notebook."""
    root = trees.with_book(trees.small_course(tmp_path_factory.mktemp("small")))
    return Course(root)


def test_what_goes_deeper_is_a_child_page_and_the_sitting_follows_the_start(small):
    start, part, *_ = pages.toc(small)["parts"]
    assert files(start["chapters"]) == ["notebooks/the_paper_in_one_sitting"]
    assert part["chapters"] == [
        {
            "file": "notebooks/04_toy",
            "sections": [{"file": "notebooks/deeper/04_toy"}],
        },
        {"file": "notebooks/05_other"},
    ]
    page = pages.start(small, small.data("landing.yml"))
    assert page.count('<span class="number">') == 2
    assert 'sitting.html">The paper in one sitting</a><p class="about">' in page


def test_a_chapter_and_what_goes_deeper_lead_to_each_other(small):
    chapter, deeper = small.chapter("04"), small.deeper(small.chapter("04"))[0]
    assert small.deeper(small.chapter("05")) == small.deeper(deeper) == []
    title = prepared(chapter, small).cells[0].source
    assert "| **A second reading** | [Deeper: toy](deeper/04_toy.ipynb) |\n" in title
    back = prepared(deeper, small).cells[0].source
    assert "[04 Toy, section 5](../04_toy.ipynb)" in back
    assert "A second reading" not in back
    assert "| **Line by line** | [§3.2.2](#paper-3-2-2) |" in back
    assert "Line by line" not in title  # the map names a cell of the other one


def test_cells_of_what_goes_deeper_have_places_of_their_own(small):
    chapter, cell = small.chapter_of(f"{trees.DEEPER}#c3")
    assert (chapter.name, cell) == (trees.DEEPER, "c3")
    assert chapter.anchor("c3") == "cell-deeper-04-c3"
    assert small.chapter("04").anchor("c3") == "cell-04-c3"
    paper = pages.paper(small)
    assert "**[04 Deeper: toy](../notebooks/deeper/04_toy.ipynb)**" in paper
    assert "](#cell-deeper-04-c3)" in paper
    assert "#departs-deeper-04-c2" in pages.departures(small)
    assert small.departure_boxes() == {f"{trees.DEEPER}#c2": []}
    assert pages.shown_in(small, "special") == [
        "- 04: [`SPECIALS`](#cell-04-c1)",
        "- 04 deeper: [`PAD`](#cell-deeper-04-c1)",
    ]


@pytest.fixture(scope="module")
def small_site(small, book_lock, tmp_path_factory):
    """Its book, built."""
    with book_lock:
        return build.build(tmp_path_factory.mktemp("built"), small)


def links_on(site, name):
    return Page((site / f"{name}.html").read_text("utf-8")).links


def test_previous_and_next_lead_from_chapter_to_chapter(small_site):
    def ways(name):
        html = (small_site / "notebooks" / f"{name}.html").read_text("utf-8")
        return re.findall(r'class="(?:left-prev|right-next)"\s+href="([^"]+)"', html)

    assert ways(trees.SITTING) == ["../index.html", "04_toy.html"]
    assert ways(trees.CHAPTER) == [f"{trees.SITTING}.html", "05_other.html"]
    assert ways(trees.OTHER)[0] == "04_toy.html"
    assert ways(trees.DEEPER) == ["../04_toy.html", "../05_other.html"]


def test_links_of_every_kind_of_notebook_lead_somewhere(small_site):
    deeper = links_on(small_site, f"notebooks/{trees.DEEPER}")
    assert {
        *("../04_toy.html", "../../book/glossary.html", "../05_other.html"),
        *("../../book/departures.html#toy", "../04_toy.html#fig-4-1"),
        "../../api/special.html#api-special",
    } <= set(deeper)
    assert "deeper/04_toy.html" in links_on(small_site, f"notebooks/{trees.CHAPTER}")
    assert "#fig-1" in links_on(small_site, f"notebooks/{trees.SITTING}")
    kept = [f"notebooks/{name}.html" for name in trees.NOTEBOOKS]
    kept += [f"book/{name}.html" for name in ("paper", "departures", "glossary")]
    for page in kept:
        for link in Page((small_site / page).read_text("utf-8")).links:
            target, anchor = urldefrag(urljoin(f"/{page}", link))
            if not urlparse(link).scheme and target.endswith(".html"):
                html = (small_site / target.lstrip("/")).read_text("utf-8")
                assert not anchor or f'id="{unquote(anchor)}"' in html, (page, link)


def test_numbers_of_figures_and_equations_are_never_the_same(small_site):
    for name, ids in {
        trees.CHAPTER: {"fig-4-1", "eq-4-1"},
        trees.DEEPER: {"fig-d4-1", "eq-d4-1"},
        trees.SITTING: {"fig-1"},
    }.items():
        html = (small_site / "notebooks" / f"{name}.html").read_text("utf-8")
        found = {i for i in Page(html).ids if re.match(r"(?:fig|eq)-", i)}
        assert found == ids, name
        assert (r"\tag{D4.1}" in html) == (name == trees.DEEPER)


def test_search_and_downloads_know_what_goes_deeper(small_site, small):
    index = (small_site / "searchindex.js").read_text("utf-8")
    names = [f"notebooks/{name}" for name in trees.NOTEBOOKS]
    assert [name for name in names if f'"{name}"' not in index] == []
    assert '"zebra' in index
    for chapter in small.notebooks:
        offered = small_site / "_sources" / f"{chapter.doc}.ipynb"
        assert offered.read_bytes() == chapter.path.read_bytes()


# --- The built site ---


class Page(HTMLParser):
    """What one page defines, links to and loads."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads, self.images = Counter(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if "id" in given:
            self.ids[given["id"]] += 1
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in ("script", "img", "iframe", "source") and "src" in given:
            self.loads.append(given["src"])
        if tag == "link" and given.get("rel") not in ("canonical",):
            self.loads.append(given["href"])
        if tag == "img":
            self.images.append(given)


@pytest.fixture(scope="module")
def site(book_site):
    """Every page of the built book, by its path."""
    return {
        path.relative_to(book_site).as_posix(): Page(path.read_text("utf-8"))
        for path in sorted(book_site.rglob("*.html"))
        if "_static" not in path.parts
    }


def test_every_link_and_every_anchor_inside_the_book_leads_somewhere(site, book_site):
    broken = []
    for name, page in site.items():
        for link in page.links:
            if urlparse(link).scheme:
                continue
            target, anchor = urldefrag(urljoin(f"/{name}", link))
            target = unquote(target).lstrip("/")
            if target == f"{alive.PAGE}.html" and "=" in anchor:
                anchor = ""  # a state of the page: tests/test_alive_page.py reads it
            known = site[target].ids if target in site else [unquote(anchor)]
            exists = (book_site / target).is_file()
            if not exists or (anchor and unquote(anchor) not in known):
                broken.append(f"{name}: {link}")
    assert broken == []


def test_no_page_loads_anything_from_elsewhere(site, book_site):
    outside = [
        f"{name}: {load}"
        for name, page in site.items()
        for load in page.loads
        if urlparse(load).scheme or load.startswith("//")
    ]
    assert outside == []
    for path in book_site.rglob("*.css"):
        urls = re.findall(r"url\(['\"]?([^)'\"]+)", path.read_text("utf-8"))
        assert [u for u in urls if re.match(r"https?:|//", u)] == [], path.name
    for name in site:
        assert "unpkg" not in (book_site / name).read_text("utf-8"), name


def test_no_anchor_is_there_twice(site):
    twice = [f"{n}: {i}" for n, p in site.items() for i, k in p.ids.items() if k > 1]
    assert twice == []


def test_every_picture_has_words(site):
    silent = [
        f"{name}: {image['src']}"
        for name, page in site.items()
        for image in page.images
        if not image.get("alt") or image["alt"].endswith(".png")
    ]
    assert silent == []
    assert sum(len(page.images) for page in site.values()) > 100


@each_chapter
def test_figures_and_equations_of_a_chapter_are_numbered_places(chapter, site):
    ids = site[f"{chapter.doc}.html"].ids
    places = [number.replace(".", "-").lower() for number in chapter.figures]
    assert {f"fig-{place}" for place in places} <= set(ids)
    text = "\n".join(
        c.source for c in chapter.notebook.cells if c.cell_type == "markdown"
    )
    mark = lanes.mark(chapter.path).lower()
    equations = {i for i in ids if mark and i.startswith(f"eq-{mark}-")}
    shown = re.findall(r"\$\$.+?\$\$", text, re.DOTALL)
    assert len(equations) == (len(shown) if mark else 0)


def test_the_papers_equations_have_their_place_in_a_chapter():
    assert list(COURSE.equations) == ["Eq. 1", "Eq. 2", "Eq. 3"]
    words = {"Eq. 1": "Attention", "Eq. 2": "FFN", "Eq. 3": "lrate"}
    for where, number in COURSE.equations.items():
        chapter, i = number.split(".")
        formula = COURSE.chapter(f"{int(chapter):02}").equations[int(i) - 1][1]
        assert words[where] in formula


def links_of(book_site, page, words):
    html = (book_site / "notebooks" / f"{page}.html").read_text("utf-8")
    link = rf'<a [^>]*href="([^"]+)"[^>]*>(?:<span[^>]*>)?{words}(?:</span>)?</a>'
    return set(re.findall(link, html))


@pytest.mark.parametrize(
    ("page", "words", "place"),
    [
        ("08_the_transformer", r"Eq\. 1", "02_attention.html#eq-2-1"),
        ("05_feed_forward_and_embeddings", r"Eq\. 2", "#eq-5-1"),
        ("16_scores_and_averages", r"Eq\. 3", "10_optimizer_and_schedule.html#eq-10-4"),
        ("04_multi_head_attention", "03", "03_masks.html"),
        ("04_multi_head_attention", "Chapters 02", None),
        ("06_positional_encoding", "08", "08_the_transformer.html"),
        ("03_masks", r"Fig\. 3\.2", "#fig-3-2"),
        ("02_attention", "04 Multi-head attention", "04_multi_head_attention.html"),
    ],
)
def test_words_that_name_a_place_lead_to_it(page, words, place, book_site):
    found = links_of(book_site, page, words)
    assert place in found if place else not found


@each_chapter
def test_answers_and_solutions_are_folded(chapter, book_site):
    html = (book_site / f"{chapter.doc}.html").read_text("utf-8")
    cells = chapter.notebook.cells
    tagged = [c for c in cells if "solution" in c.metadata.get("tags", [])]
    for part in re.split(
        r'<details class="solution">.*?</details>\s*(?=<)', html, flags=re.S
    ):
        assert "tag_solution" not in part
    assert html.count("tag_solution") == len(tagged)
    answers = [
        c
        for c in cells
        if c.cell_type == "markdown" and "> **Predict first" in c.source
    ]
    boxes = html.count('class="box predict admonition"')
    assert boxes >= len(answers)
    assert html.count("<summary>Answer</summary>") == "\n".join(
        c.source for c in answers
    ).count("<summary>Answer</summary>")


@each_chapter
def test_what_a_box_asks_to_predict_is_folded_with_its_caption(chapter, book_site):
    html = (book_site / f"{chapter.doc}.html").read_text("utf-8")
    cells = chapter.notebook.cells
    hidden = [
        i for i, c in enumerate(cells) if "hide-output" in c.metadata.get("tags", [])
    ]
    assert html.count('<details class="predicted">') == len(hidden)
    captions = [cells[i + 1].source[:80] for i in hidden]
    figures = re.findall(r"^\*\*(Fig\. \d+\.\d+)", "\n".join(captions), flags=re.M)
    folded = (
        r'<details class="predicted">\s*<summary>The figure</summary>\s*<figure id="{}"'
    )
    for name in figures:
        place = name.lower().replace(". ", "-").replace(".", "-")
        assert re.search(folded.format(place), html), name


@each_chapter
def test_a_box_of_departure_leads_to_its_row_and_its_tests(chapter, book_site):
    html = (book_site / f"{chapter.doc}.html").read_text("utf-8")
    boxes = [b for b in COURSE.departure_boxes() if b.partition("#")[0] == chapter.name]
    assert html.count("departures.html#") >= len(boxes)
    for box in boxes:
        for test in COURSE.departure_boxes()[box]:
            assert f"proofs.html#{label(test)}" in html


def test_the_package_is_shown_with_shapes(book_site):
    html = (book_site / "api" / "attention.html").read_text("utf-8")
    text = re.sub(r"<[^>]+>", "", html)
    assert "query: Float[Tensor, '*batch query d_k']" in text
    assert "jaxtyping." not in text
    assert "Average the values, weighted by how well keys match the query" in text
    assert "notebooks/02_attention.html#cell-02-def-attention" in html


def test_a_page_offers_the_notebook_as_it_is_stored(book_site):
    for chapter in COURSE.notebooks:
        offered = book_site / "_sources" / f"{chapter.doc}.ipynb"
        assert offered.read_bytes() == chapter.path.read_bytes()


def test_without_an_address_no_page_has_a_button_that_needs_one(site):
    assert COURSE.address is None
    for name, page in site.items():
        assert [x for x in page.links if "/edit/" in x or "colab" in x] == [], name


def test_with_an_address_a_chapter_can_be_edited_and_opened_in_colab(tmp_path):
    pytest.importorskip("jupyter_book")
    course = with_address(ADDRESS)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "book").mkdir()
    (tmp_path / "_assets").mkdir()
    shutil.copy(ROOT / "book" / "style" / "favicon.svg", tmp_path / "_assets")
    shutil.copy(ROOT / "book" / "references.bib", tmp_path)
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# 02 Toy")]
    )
    nbformat.write(notebook, tmp_path / "notebooks" / "02_toy.ipynb")
    (tmp_path / "index.md").write_text("# Start\n", "utf-8")
    (tmp_path / "book" / "paper.md").write_text("# The paper\n", "utf-8")
    settings = pages.config(course)
    settings["sphinx"]["config"]["html_css_files"] = []
    settings["sphinx"]["config"]["html_js_files"] = []
    files = ["notebooks/02_toy", "book/paper"]
    contents = {
        "format": "jb-book",
        "root": "index",
        "chapters": [{"file": f} for f in files],
    }
    (tmp_path / "_config.yml").write_text(yaml.safe_dump(settings), "utf-8")
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(contents), "utf-8")
    (tmp_path / "course.json").write_text(as_json(build.for_sphinx(course)), "utf-8")
    program = Path(sys.executable).with_name("jupyter-book")
    subprocess.run(
        [program, "build", tmp_path], cwd=ROOT, check=True, capture_output=True
    )
    built = tmp_path / "_build" / "html"
    chapter = Page((built / "notebooks" / "02_toy.html").read_text("utf-8"))
    assert f"{ADDRESS}/edit/main/notebooks/02_toy.ipynb" in chapter.links
    assert any(
        link.startswith(
            "https://colab.research.google.com/github/someone/course/blob/main/"
        )
        for link in chapter.links
    )
    assert ADDRESS in chapter.links
    paper = Page((built / "book" / "paper.html").read_text("utf-8"))
    assert f"{ADDRESS}/edit/main/book/paper_map.yml" in paper.links
