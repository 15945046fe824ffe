"""The page "alive" in a real browser: type, open, switch off, follow the tour."""

import math
import re
import subprocess
import sys

import pytest
import torch
from visits import AXE, DESK, PHONE, SCAN, UNFIT, Visit

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
        weight, power = re.search(r"= ([\d.]+)(?: × 10⁻(.+?))?,", line).groups()
        size = 10.0 ** -"⁰¹²³⁴⁵⁶⁷⁸⁹".index(power or "⁰")
        expected = float(weights[row, column])
        assert number(weight) * size == pytest.approx(expected, rel=0.1, abs=1e-4)
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
    name = "Switch off head 1 of decoder, layer 0, cross-attention"
    assert part.get_attribute("aria-label") == name
    assert "this map does not count now" in words(page.locator(".remark"))
    page.locator("[data-key=reset]").click()
    page.wait_for_function(READY, arg=TEXT)
    assert now(page) == TRANSLATION
    assert "off=" not in page.url


def test_in_a_sublayer_that_is_off_no_head_is_offered(page):
    go(page, f"{CROSS}&off=decoder.layers.1.cross_attention")
    assert "the maps do not count now" in words(page.locator(".remark"))
    switches = page.locator("#alive-panel .switch").all_inner_texts()
    assert switches == ["Switch this sub-layer on again"]


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
    assert words(page.locator("[data-result=usual] .words")) == TRANSLATION


def test_unmasking_the_future_is_explained(page):
    go(page, "#box=decoder.self&layer=2&head=4&show=mask&step=8")
    hidden = page.locator(".attention-map td.hidden")
    assert hidden.count() == 36  # of 9 rows and columns
    page.get_by_label("Unmask the future").check()
    page.wait_for_function(READY, arg=TEXT)
    assert hidden.count() == 0
    assert page.locator(".attention-map td[data-row]").count() == 14 * 14
    assert "all rows at once" in words(page.locator(".remark"))
    assert "Switched off: the mask" in words(page.locator(".changes"))
    future = page.locator(".future")
    assert -5 < future.bounding_box()["y"] < 400
    assert "of the 9 columns of this step's row, the mask hides 0" in words(future)
    rows = [row.split() for row in future.locator("tbody tr").all_inner_texts()]
    assert len(rows) == 14
    told = r"lower in (\d+) of 14 rows; most of all that of “(\w+)”, from (\d+) % to"
    lower, piece, before = re.search(told, words(future)).groups()
    chances = [re.findall(r"([\d.]+) %", " ".join(row)) for row in rows]
    falls = [float(a) - float(b) for a, b in chances]
    assert abs(sum(fall > 0 for fall in falls) - int(lower)) <= 1  # they are rounded
    largest = falls.index(max(falls))
    assert [rows[largest][1], chances[largest][0]] == [piece, before]
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
    chosen = page.locator(".ribbon [aria-pressed=true]").all_inner_texts()
    assert chosen == ["repariert", "fixing"]
    looks = [
        piece.evaluate("each => getComputedStyle(each).backgroundColor")
        for piece in page.locator(".ribbon [aria-pressed=true]").all()
    ]
    assert len(set(looks)) == 2  # not like an aligned pair


def test_the_tours_place_is_kept_after_a_short_sentence(page):
    for text in ("Ein Hund schläft.", "Hunde."):
        page.locator("#alive-text").fill(text)
        page.wait_for_function(READY, arg=text)
        page.locator(".tour li").nth(7).locator(".show a").first.click()
        page.wait_for_function(READY, arg=TEXT)
        assert "step=8" in page.url
        assert "Step 9 of 14" in page.locator("output.told").inner_text()
        assert "token=11" in page.url


INSIDE = """([box, row]) => {
  const all = [box, row].map(s => document.querySelector(s)).filter(e => e);
  return all.map(e => e.getBoundingClientRect()).every(
    r => r.top >= 0 && r.bottom <= innerHeight);
}"""


def test_the_tour_goes_along_and_what_it_names_is_in_view(page):
    page.set_viewport_size({"width": 1280, "height": 900})
    page.locator(".tour li").first.locator(".show a").first.click()
    guide = page.locator(".guide")
    for step in alive.data(COURSE, "tour"):
        page.wait_for_function(READY, arg=TEXT)
        page.wait_for_timeout(100)
        assert step["title"] in guide.locator("h3").inner_text()
        assert page.evaluate("() => document.activeElement.id") == "alive-guide-title"
        if "at" in step["show"]:
            assert 0 <= guide.bounding_box()["y"] < 400
        else:
            box = f"[data-box='{step['show']['box']}']"
            assert page.evaluate(INSIDE, [box, "#alive-panel tr.current"]), step
        following = guide.get_by_role("button", name="Next")
        if following.is_enabled():
            following.click()
    guide.get_by_role("button", name="Back to the tour").click()
    focus = "() => document.activeElement.closest('.tour li')?.innerText"
    assert alive.data(COURSE, "tour")[-1]["title"] in page.evaluate(focus)
    page.locator(".tour li").nth(7).locator(".show a").first.click()
    page.keyboard.press("Escape")
    assert not guide.is_visible()
    assert page.evaluate("() => document.activeElement.dataset.box") == "decoder.cross"


def test_an_arrow_key_on_a_strip_shows_its_cursor(page):
    go(page, "#box=encoder.ffn&token=3")
    strip = page.locator("#alive-panel .strip").first
    assert not strip.locator(".cursor").is_visible()
    strip.locator("canvas").focus()
    page.keyboard.press("ArrowRight")
    assert strip.locator(".cursor").is_visible()
    reading = page.locator("#alive-panel .reading").first.inner_text()
    assert re.match(r"“,”, unit 1: [\d.]+$", reading)


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
    go(page, CROSS)
    scroll = page.locator(".map .scroll")
    assert scroll.evaluate("e => e.scrollWidth <= e.clientWidth + 1")
    assert not page.locator("#pst-back-to-top").is_visible()
    sizes = page.locator(".alive button:visible").evaluate_all(
        "all => all.map(b => Math.min(b.offsetWidth, b.offsetHeight))"
    )
    assert min(sizes) >= 20


@pytest.mark.parametrize(("text", "help_line"), UNFIT.values(), ids=UNFIT)
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
