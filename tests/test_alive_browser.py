"""The page "alive" in a real browser: type, open, switch off, follow the tour."""

import math
import re
import subprocess
import sys

import pytest
import torch
from visits import AXE, DESK, PHONE, SCAN, Visit

from annotated_transformer.recording import record_attention
from annotated_transformer.special import BOS
from annotated_transformer.translator import Translator
from tools.book import alive
from tools.book.course import Course

NAME = f"{alive.PAGE}.html"
TEXT = "Eine Frau wartet, während ein Mann ein altes Auto repariert."
TRANSLATION = "A woman is waiting while a man is fixing an old car."
CROSS = "#box=decoder.cross&layer=1&head=1&step=8"
READY = """text => {
  const look = document.querySelector('#alive-look');
  return look.dataset.shown === text && !look.classList.contains('stale');
}"""
COURSE = Course()


@pytest.fixture(scope="module")
def visit(browser, address):
    """One visit for all tests: the weights are fetched once."""
    opened = Visit(browser, address, NAME)
    opened.page.set_viewport_size(DESK)
    yield opened
    opened.page.close()


@pytest.fixture
def page(visit):
    """The page in the state that a visit begins with, and no trouble so far."""
    go(visit.page, CROSS)
    visit.page.set_viewport_size(DESK)
    yield visit.page
    assert visit.trouble == []


def go(page, hash_, text=TEXT):
    """Open a state, and wait for its numbers."""
    page.evaluate("h => { location.hash = h; }", hash_)
    page.wait_for_timeout(50)
    page.wait_for_function(READY, arg=text)


def now(page):
    """The translation that the page shows."""
    return words(page.locator("[data-result=now] .words"))


def words(locator):
    return " ".join(locator.inner_text().split())


def test_what_is_typed_is_translated_as_on_the_command_line(page):
    text = "Zwei Kinder bauen einen großen Schneemann."
    page.locator("#alive-text").fill(text)
    page.wait_for_function(READY, arg=text)
    command = [sys.executable, "-m", "annotated_transformer", "translate", text]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == now(page)
    assert page.locator(".ribbon[lang=de] .token").first.inner_text() == "Zwei"
    assert "Zwei+Kinder" in page.url


def test_every_box_opens_to_numbers_and_leads_to_its_chapter(page):
    boxes = page.locator(".figure-1 .box")
    spoken = boxes.evaluate_all("all => all.map(b => b.ariaLabel)")
    assert len(set(spoken)) == len(spoken) > 20
    for button in boxes.all():
        name = button.get_attribute("data-box")
        if button.get_attribute("aria-expanded") == "false":
            button.click()
        assert button.get_attribute("aria-expanded") == "true", name
        panel = page.locator("#alive-panel")
        panel.locator("canvas, .bar").first.wait_for()
        assert panel.locator(".links a").count() >= 2, name
        assert len(re.findall(r"\d\.\d\d", panel.inner_text())) > 1, name
        assert f"box={name}" in page.url


def test_a_cell_of_a_map_is_traced_to_the_packages_numbers(page):
    translator = Translator.pretrained()
    src, tgt = translator.encode(TEXT), translator.tokenizer.encode(TRANSLATION)[:-1]
    with torch.no_grad(), record_attention(translator.model) as maps:
        translator.model(torch.tensor([src]), torch.tensor([[BOS, *tgt]]))
    weights = maps["decoder.layers.1.cross_attention"][0, 1]
    for row, column in ((8, 11), (3, 2), (6, 10)):
        page.locator(
            f".attention-map td[data-row='{row}'][data-col='{column}']"
        ).click()
        score = page.locator("[data-trace=score]").inner_text()
        dot, root, quotient = re.findall(r"[−\d.]+(?=\s|\.?$)", score.rstrip("."))[-3:]
        number = lambda text: float(text.replace("−", "-"))  # noqa: E731
        assert "√32" in score
        assert number(quotient) == pytest.approx(number(dot) / math.sqrt(32), abs=2e-3)
        line = page.locator("[data-trace=weight]").inner_text()
        weight = number(re.search(r"= ([\d.]+),", line)[1])
        assert weight == pytest.approx(float(weights[row, column]), abs=1e-3)
        assert root


def test_a_token_lights_up_wherever_it_appears(page):
    page.locator(".ribbon[lang=de] .token", has_text="repariert").hover()
    lit = page.locator(".token.lit")
    assert lit.count() > 3
    assert set(lit.all_inner_texts()) == {"repariert"}
    page.locator(".attention-map td[data-row='8'][data-col='6']").hover()
    assert set(page.locator(".token.lit").all_inner_texts()) == {"is", "Mann"}


def test_steps_and_cells_are_reached_by_keyboard(page):
    page.locator("#alive-step").focus()
    page.keyboard.press("ArrowRight")
    assert "decoder writes “an”" in page.locator(".told").inner_text()
    assert "step=9" in page.url
    page.locator(".attention-map td[tabindex='0']").focus()
    page.keyboard.press("ArrowLeft")
    cell = page.evaluate("() => document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("Enter")
    after = page.evaluate("() => document.activeElement.getAttribute('aria-label')")
    assert after == cell  # the focus stays where it was
    asks, answers = re.match(r"(\S+) at (\S+):", cell).groups()
    assert f"“{asks}” asks, “{answers}” answers" in page.locator(".trace").inner_text()
    page.keyboard.press("Escape")
    assert page.evaluate("() => document.activeElement.dataset.box") == "decoder.cross"


def test_a_head_off_changes_the_translation_and_is_put_back(page):
    go(page, "#box=decoder.cross&layer=0&head=1")
    page.locator("#alive-panel .switch").first.click()
    page.wait_for_function(READY, arg=TEXT)
    assert words(page.locator("[data-result=unchanged]")).endswith(TRANSLATION)
    assert now(page) == "A woman waits while a man repairs."
    assert page.locator("[data-result=now] mark").count() == 2
    assert "head 1" in page.locator(".changes").inner_text()
    part = page.locator("[data-part='decoder.layers.0.cross_attention.head.1']")
    assert part.get_attribute("aria-pressed") == "true"
    page.locator("[data-key=reset]").click()
    page.wait_for_function(READY, arg=TEXT)
    assert now(page) == TRANSLATION
    assert "off=" not in page.url


def test_the_beams_tree_grows_and_shrinks(page):
    for width in (1, 5):
        go(page, f"#search=beam&width={width}&at=play")
        tree = page.locator(".beam svg")
        kept = tree.locator(".node:not(.dropped)").count()
        steps = page.locator(".beam details li").count()
        assert steps < kept + 1 <= width * steps + 1
        best = [
            t.split()[0] for t in tree.locator(".node.best text").all_text_contents()
        ]
        assert best[0].startswith("A")
        assert page.locator(".finished strong").inner_text() == now(page)
    assert now(page) == TRANSLATION
    page.locator("[data-key=alpha]").fill("0")
    page.wait_for_function(READY, arg=TEXT)
    assert now(page) == "A woman waits while a man repairs."


def test_unmasking_the_future_is_explained(page):
    go(page, "#mask=0&step=8&at=play")
    future = page.locator(".future")
    assert "of the 9 columns of this step's row, the mask hides 0" in words(future)
    assert future.locator("tbody tr").count() == 14
    assert now(page) == TRANSLATION


def test_the_tour_has_its_numbers_and_shows_what_it_tells(page):
    page.wait_for_function("() => document.querySelector('#alive-look').dataset.toured")
    steps = page.locator(".tour li")
    assert 8 <= steps.count() <= 10
    assert all(
        len(line) > 20
        for line in page.locator(".tour [data-measure]").all_inner_texts()
    )
    for step in steps.all():
        assert step.locator(".try").inner_text().startswith("Try:")
        step.locator(".show a").first.click()
        page.wait_for_function(READY, arg=TEXT)
    steps.nth(7).locator(".show a").first.click()
    assert "“repariert”" in page.locator("#alive-panel .says").nth(1).inner_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_passes_the_accessibility_scan_in_use(theme, page):
    page.evaluate("t => { document.documentElement.dataset.theme = t; }", theme)
    go(page, f"{CROSS}&mask=0&off=decoder.layers.2.self_attention")
    page.evaluate(
        "() => document.querySelectorAll('details').forEach(d => d.open = true)"
    )
    page.add_script_tag(path=AXE)
    assert page.evaluate(SCAN) == []
    page.evaluate("() => { document.documentElement.dataset.theme = 'light'; }")


def test_a_phone_never_scrolls_sideways_whatever_is_open(page):
    page.set_viewport_size(PHONE)
    for hash_ in (CROSS, "#box=encoder.positions&mask=0", "#box=linear&search=sample"):
        go(page, hash_)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    sizes = page.locator(".alive button:visible").evaluate_all(
        "all => all.map(b => Math.min(b.offsetWidth, b.offsetHeight))"
    )
    assert min(sizes) >= 20


@pytest.mark.parametrize(
    ("text", "help_line"),
    [
        ("", "Type a German sentence"),
        ("x" * 10_000, "10,000 characters"),
        ("\U0001f600", "no Latin letter"),
        ("\u05e9\u05dc\u05d5\u05dd", "no Latin letter"),
        ("<img src=x onerror=alert(1)>Mann", "HTML tags"),
        ("Ein \U0001f600 Mann lacht.", "has not seen"),
    ],
    ids=["empty", "long", "emoji", "right-to-left", "html", "unknown"],
)
def test_what_cannot_be_translated_gets_a_line_of_help(text, help_line, page):
    page.locator("#alive-text").fill(text)
    page.locator("#alive-look .note", has_text=help_line).wait_for()
    assert page.locator(".alive img").count() == 0


def test_a_model_that_does_not_come_is_asked_for_again(browser, address):
    page = browser.new_page()
    page.route("**/model.safetensors", lambda route: route.abort())
    page.goto(f"{address}/{NAME}")
    page.locator("#alive-look .note", has_text="could not be loaded").wait_for()
    page.unroute("**/model.safetensors")
    page.locator("#alive-text").fill("Ein Hund bellt.")
    page.wait_for_function(READY, arg="Ein Hund bellt.")
    page.close()


def test_a_link_to_a_head_opens_it(browser, address):
    visit = Visit(browser, address, f"{NAME}#box=encoder.self&layer=2&head=1&token=10")
    with visit as page:
        page.wait_for_function(READY, arg=TEXT)
        head = page.locator("[data-head='1']")
        assert head.get_attribute("aria-pressed") == "true"
        assert "“Auto” looks most at “alt”" in words(page.locator("#alive-panel"))
    assert visit.trouble == []


def test_a_figure_of_a_chapter_leads_to_where_it_moves(browser, address):
    with Visit(browser, address, "notebooks/02_attention.html") as page:
        link = page.locator("#fig-2-9 .see a")
        link.click()
        page.wait_for_function(
            READY, arg="Ein Mann, der einen roten Hut trägt, spielt Gitarre."
        )
        assert page.locator("#alive-panel h3").inner_text().startswith("Self-attention")


@pytest.mark.parametrize("scripts", [True, False], ids=["from-disk", "without-scripts"])
def test_the_page_reads_where_it_cannot_run(scripts, browser, address, book_site):
    context = browser.browser.new_context(java_script_enabled=scripts)
    page = context.new_page()
    page.goto(f"file://{book_site}/{NAME}" if scripts else f"{address}/{NAME}")
    assert "make book-serve" in page.locator(".alive-off").inner_text()
    assert page.locator(".tour li").count() == len(alive.data(COURSE, "tour"))
    assert page.locator(".alive-still .map").count() == (not scripts)
    assert not page.locator("#alive-look").is_visible()
    context.close()
