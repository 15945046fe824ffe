"""Visits to the built book in a real browser that reaches nothing but the book."""

import functools
import http.server
import shutil
import threading
from pathlib import Path

import pytest

from tools.book import pages
from tools.book.course import Course

ROOT = Path(__file__).parents[1]
AXE = ROOT / "book" / "node_modules" / "axe-core" / "axe.min.js"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update"),
    "--disable-sync",
    # no network
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
# Pages of every kind, whose dark colors are scanned as well: the others share them.
DARK = {
    *("index", "search", "genindex", "api/index", "api/attention"),
    *("notebooks/02_attention", "notebooks/04_multi_head_attention"),
}

# What a box for German may be given, and a part of the help that it then shows.
UNFIT = {
    "empty": ("", "Type a German sentence"),
    "long": ("x" * 10_000, "10,000 characters"),
    "emoji": ("\U0001f600", "no Latin letter"),
    "right-to-left": ("\u05e9\u05dc\u05d5\u05dd", "no Latin letter"),
    "html": ("<img src=x onerror=alert(1)>Mann", "HTML tags"),
    "unknown": ("Ein \U0001f600 Mann lacht.", "has not seen"),
}


def documents():
    """Every page of the table of contents, and those that Sphinx adds."""
    contents = pages.toc(Course())
    entries = [entry for part in contents["parts"] for entry in part["chapters"]]
    entries += [inner for entry in entries for inner in entry.get("sections", [])]
    names = ["index", *[entry["file"] for entry in entries], "search", "genindex"]
    return [*names, "_modules/annotated_transformer/attention"]


class Server(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def end_headers(self):
        self.send_header("Cache-Control", "max-age=3600")
        super().end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(book_site):
    handler = functools.partial(Server, directory=str(book_site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False  # the browser keeps connections open
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    """One context for all visits, which keeps scripts and fonts in its cache."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not here: on Debian, sudo apt install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened.new_context(viewport=DESK, reduced_motion="reduce")
        opened.close()


class Visit:
    """One page, and all that went wrong while it loaded."""

    def __init__(self, browser, address, name):
        self.page, self.trouble = browser.new_page(), []
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
        self.page.close()


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
        found["dark"] = []
        if name in DARK or name.startswith("book/"):
            page.evaluate("() => { document.documentElement.dataset.theme = 'dark'; }")
            found["dark"] = page.evaluate(SCAN, COLORS)
    return found | {"trouble": visit.trouble}


@pytest.fixture(scope="module")
def seen(browser, address):
    return functools.cache(functools.partial(look_at, browser, address))


class PageTests:
    """What is asked of every page; each file of tests asks it of its own pages."""

    def test_a_page_loads_without_an_error_and_from_the_book_alone(self, name, seen):
        assert seen(name)["trouble"] == []

    def test_all_math_is_drawn(self, name, seen):
        assert seen(name)["raw math"] == []
        assert seen(name)["drawn math"] >= seen(name)["math"]

    def test_a_phone_never_scrolls_sideways(self, name, seen):
        assert seen(name)["wide"] == []
        assert seen(name)["width"] <= PHONE["width"]

    def test_the_accessibility_scan_finds_nothing_serious(self, name, seen):
        assert seen(name)["light"] == []
        assert seen(name)["dark"] == []
