"""The book in a real browser, with nothing but the book's own server in reach."""

import functools
import http.server
import json
import shutil
import threading
from pathlib import Path
from urllib.parse import quote

import pytest

from tools.book import pages
from tools.book.course import Course

ROOT = Path(__file__).parents[1]
AXE = ROOT / "book" / "node_modules" / "axe-core" / "axe.min.js"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update"),
    *(
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ),  # no network
]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 800}


def documents():
    """Every page of the table of contents, and those that Sphinx adds."""
    contents = pages.toc(Course())
    entries = [entry for part in contents["parts"] for entry in part["chapters"]]
    entries += [inner for entry in entries for inner in entry.get("sections", [])]
    names = ["index", *[entry["file"] for entry in entries], "search", "genindex"]
    return [*names, "_modules/annotated_transformer/attention"]


each_page = pytest.mark.parametrize("name", documents())


class Server(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(book_site):
    handler = functools.partial(Server, directory=str(book_site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("Chromium is not here: on Debian, sudo apt install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


class Visit:
    """One page in a fresh context, and all that went wrong while it loaded."""

    def __init__(self, browser, address, name, *, viewport=DESK):
        self.context = browser.new_context(viewport=viewport, reduced_motion="reduce")
        self.page, self.trouble = self.context.new_page(), []
        self.page.set_default_timeout(20_000)
        self.page.on("console", self.on_console)
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("request", lambda r: self.on_request(r, address))
        self.page.on("requestfailed", lambda r: self.trouble.append(f"failed: {r.url}"))
        self.page.on("response", self.on_response)
        self.page.goto(f"{address}/{name}", wait_until="load")
        self.page.evaluate("() => window.MathJax?.startup?.promise?.then(() => true)")
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('.chart')].every(c => c.dataset.drawn)"
        )

    def on_console(self, message):
        if message.type in ("error", "warning"):
            self.trouble.append(f"{message.type}: {message.text}")

    def on_request(self, request, address):
        if not request.url.startswith((address, "data:", "blob:")):
            self.trouble.append(f"left the site: {request.url}")

    def on_response(self, response):
        if response.status >= 400:
            self.trouble.append(f"{response.status}: {response.url}")

    def __enter__(self):
        return self.page

    def __exit__(self, *_):
        self.context.close()


UNFOLD = "() => document.querySelectorAll('details').forEach(d => { d.open = true; })"
RAW_MATH = """() => {
  const walker = document.createTreeWalker(
    document.querySelector('article') || document.body, NodeFilter.SHOW_TEXT,
    n => n.parentElement.closest('pre, code, script') ? 2 : 1);
  const found = [];
  while (walker.nextNode()) {
    if (/\\\\[(\\[]/.test(walker.currentNode.data)) found.push(walker.currentNode.data);
  }
  return found;
}"""
WIDE = """() => [...document.querySelectorAll('article *')]
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
  .slice(0, 5).map(e => e.outerHTML.slice(0, 160))"""
# Code and math are thousands of elements that all look alike, and the scan asks each
# of them: they become plain text for it, and code's colors have a test of their own.
PLAIN = """() => {
  for (const e of document.querySelectorAll('pre, mjx-container')) {
    e.textContent = e.textContent;
  }
}"""
SCAN = """async (rules) => {
  const found = await axe.run(document, {
    resultTypes: ['violations'], ...(rules ? {runOnly: rules} : {}),
  });
  return found.violations
    .filter(v => ['serious', 'critical'].includes(v.impact))
    .map(v => `${v.id}: ${v.nodes.length} x, first ${v.nodes[0].html.slice(0, 200)} `
      + v.nodes[0].failureSummary.slice(0, 300));
}"""
COLORS = ["color-contrast", "link-in-text-block"]


def look_at(browser, address, name):
    """All that the tests of single pages ask for, from one visit."""
    visit = Visit(browser, address, f"{name}.html")
    with visit as page:
        found = {"raw math": page.evaluate(RAW_MATH)}
        found["math"] = page.locator("article .math").count()
        found["drawn math"] = page.locator("article mjx-container").count()
        page.evaluate(UNFOLD)
        page.set_viewport_size(PHONE)
        found["width"] = page.evaluate("() => document.documentElement.scrollWidth")
        found["wide"] = page.evaluate(WIDE) if found["width"] > PHONE["width"] else []
        page.set_viewport_size(DESK)
        page.evaluate(PLAIN)
        page.add_script_tag(path=AXE)
        found["light"] = page.evaluate(SCAN)
        page.evaluate("() => { document.documentElement.dataset.theme = 'dark'; }")
        found["dark"] = page.evaluate(SCAN, COLORS)
    return found | {"trouble": visit.trouble}


@pytest.fixture(scope="module")
def seen(browser, address):
    return functools.cache(functools.partial(look_at, browser, address))


@each_page
def test_a_page_loads_without_an_error_and_from_the_book_alone(name, seen):
    assert seen(name)["trouble"] == []


@each_page
def test_all_math_is_drawn(name, seen):
    assert seen(name)["raw math"] == []
    assert seen(name)["drawn math"] >= seen(name)["math"]


@each_page
def test_a_phone_never_scrolls_sideways(name, seen):
    assert seen(name)["wide"] == []
    assert seen(name)["width"] <= PHONE["width"]


@each_page
def test_the_accessibility_scan_finds_nothing_serious(name, seen):
    assert seen(name)["light"] == []
    assert seen(name)["dark"] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_colors_of_code_are_readable(theme, browser, address):
    with Visit(browser, address, "notebooks/03_masks.html") as page:
        page.evaluate("t => { document.documentElement.dataset.theme = t; }", theme)
        page.evaluate(
            "() => { const kept = [...document.querySelectorAll('.cell_input')];"
            "document.querySelector('article').replaceChildren(...kept.slice(0, 25)); }"
        )
        page.add_script_tag(path=AXE)
        assert page.evaluate(SCAN, ["color-contrast"]) == []


def test_chapters_have_math_and_the_scan_can_fail(browser, address, seen):
    assert seen("notebooks/02_attention")["math"] > 50
    with Visit(browser, address, "index.html") as page:
        page.evaluate(
            "() => { const p = document.createElement('img'); p.src = 'data:,';"
            "document.querySelector('article').append(p); }"
        )
        page.add_script_tag(path=AXE)
        assert any(found.startswith("image-alt") for found in page.evaluate(SCAN))


def test_pointing_at_a_chart_shows_its_numbers(browser, address):
    with Visit(browser, address, "notebooks/02_attention.html") as page:
        figure = page.locator("#fig-2-3")
        figure.scroll_into_view_if_needed()
        canvas = figure.locator("canvas")
        before = canvas.screenshot()
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.3)
        tip = page.locator("#vg-tooltip-element.visible")
        tip.wait_for()
        assert "weight" in tip.inner_text()
        assert canvas.screenshot() != before  # the other rows fade


def test_a_slider_changes_its_chart(browser, address):
    with Visit(browser, address, "notebooks/02_attention.html") as page:
        figure = page.locator("#fig-2-10")
        figure.scroll_into_view_if_needed()
        canvas = figure.locator("canvas")
        before = canvas.screenshot()
        figure.locator("input[type=range]").focus()
        for _ in range(8):
            page.keyboard.press("ArrowRight")
        page.wait_for_timeout(200)
        assert canvas.screenshot() != before


def test_a_word_of_the_landing_page_lights_up_what_it_looked_at(browser, address):
    with Visit(browser, address, "index.html") as page:
        shares = "w => Number(w.style.getPropertyValue('--w') || 0)"
        hat = page.locator(".demo span.word", has_text="Hut")
        assert hat.evaluate(shares) == 0
        page.locator(".demo button.word", has_text="hat").hover()
        assert hat.evaluate(shares) > 0.9
        page.locator(".demo button.word", has_text="red").focus()  # by keyboard, too
        assert page.locator(".demo span.word", has_text="roten").evaluate(shares) > 0.7


def test_the_landing_page_fits_one_screen(browser, address):
    with Visit(browser, address, "index.html") as page:
        for part in (".demo .sentence.typed", ".demo .map", ".way pre", ".way .button"):
            box = page.locator(part).first.bounding_box()
            assert box["y"] + box["height"] <= DESK["height"], part


def test_the_search_finds_label_smoothing(browser, address):
    with Visit(browser, address, f"search.html?q={quote('label smoothing')}") as page:
        results = page.locator("#search-results li a")
        results.first.wait_for()
        page.wait_for_function(
            "() => /found|finished/i.test(document.querySelector('#search-results')"
            ".innerText)"
        )
        found = [link.get_attribute("href") for link in results.all()]
        assert any("11_regularization" in link for link in found)


def test_a_term_is_explained_on_hover_and_by_keyboard(browser, address):
    with Visit(browser, address, "notebooks/02_attention.html") as page:
        link = page.locator("a:has(> .term)").first
        tip = page.locator("#term-tip")
        link.hover()
        assert tip.is_visible()
        assert tip.inner_text().endswith(".")
        page.keyboard.press("Escape")
        assert not tip.is_visible()
        page.mouse.move(0, 0)
        link.focus()
        assert tip.is_visible()


def test_the_first_tab_leads_past_the_side_bar(browser, address):
    with Visit(browser, address, "notebooks/02_attention.html") as page:
        page.keyboard.press("Tab")
        focused = page.evaluate("() => document.activeElement.getAttribute('href')")
        assert focused == "#main-content"


def test_an_answer_unfolds_by_keyboard(browser, address):
    with Visit(browser, address, "notebooks/02_attention.html") as page:
        answer = page.locator(".box.predict details").first
        assert answer.get_attribute("open") is None
        answer.locator("summary").focus()
        page.keyboard.press("Enter")
        assert answer.get_attribute("open") is not None


def test_code_can_be_copied_and_pages_lead_on(browser, address):
    with Visit(browser, address, "notebooks/02_attention.html") as page:
        buttons = page.locator(".cell_input .copybtn").count()
        cells = json.loads(
            (ROOT / "notebooks" / "02_attention.ipynb").read_text("utf-8")
        )["cells"]
        assert buttons == sum(c["cell_type"] == "code" for c in cells) - 1  # no Colab
        page.locator("a.right-next").click()
        assert page.url.endswith("03_masks.html")
        page.locator("a.left-prev").click()
        assert page.url.endswith("02_attention.html")


def test_dark_and_light_can_be_chosen(browser, address):
    with Visit(browser, address, "index.html") as page:
        theme = "() => document.documentElement.dataset.theme"
        themes = set()
        for _ in range(3):
            page.locator(".theme-switch-button").first.click()
            themes.add(page.evaluate(theme))
        assert themes == {"light", "dark"}
