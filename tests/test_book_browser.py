"""The book in a real browser: what moves, what is found, every page but chapters."""

import json
from urllib.parse import quote

import pytest
from visits import (
    AXE,
    DESK,
    PHONE,
    ROOT,
    SCAN,
    UNFIT,
    UNFOLD,
    PageTests,
    Visit,
    documents,
)

from annotated_transformer.translator import Translator

OTHERS = [name for name in documents() if not name.startswith("notebooks/")]


@pytest.mark.parametrize("name", OTHERS)
class TestOtherPages(PageTests):
    pass


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


def test_the_scan_can_fail(browser, address):
    with Visit(browser, address, "index.html") as page:
        page.evaluate(
            "() => { const p = document.createElement('img'); p.src = 'data:,';"
            "document.querySelector('article').append(p); }"
        )
        page.add_script_tag(path=AXE)
        assert any(found.startswith("image-alt") for found in page.evaluate(SCAN))


def test_pointing_at_a_chart_shows_its_numbers(browser, address):
    with Visit(browser, address, "notebooks/02_attention.html") as page:
        page.evaluate(UNFOLD)
        figure = page.locator("#fig-2-4")
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
    with Visit(browser, address, "notebooks/deeper/02_attention.html") as page:
        page.evaluate(UNFOLD)
        figure = page.locator("#fig-d2-3")
        figure.scroll_into_view_if_needed()
        canvas = figure.locator("canvas")
        before = canvas.screenshot()
        figure.locator("input[type=range]").focus()
        for _ in range(8):
            page.keyboard.press("ArrowRight")
        page.wait_for_timeout(200)
        assert canvas.screenshot() != before


def test_charts_side_by_side_are_stacked_where_they_do_not_fit(browser, address):
    with Visit(browser, address, "notebooks/17_looking_inside.html") as page:
        page.evaluate(UNFOLD)
        chart = page.locator("#fig-17-2 .chart")
        assert len(json.loads(chart.locator("script").inner_text())["hconcat"]) == 3
        assert chart.evaluate("c => c.scrollWidth <= c.clientWidth")


def test_a_row_of_the_departures_takes_the_whole_width_of_a_phone(browser, address):
    with Visit(browser, address, "book/departures.html") as page:
        page.set_viewport_size(PHONE)
        for part in ("th", "td"):
            box = page.locator(f"table.departures tbody {part}").first.bounding_box()
            assert box["width"] > 0.8 * PHONE["width"], part


def test_code_fits_beside_both_side_bars(browser, address):
    with Visit(browser, address, "notebooks/08_the_transformer.html") as page:
        page.set_viewport_size({"width": 1440, "height": 900})
        lines = (ROOT / "notebooks" / "08_the_transformer.ipynb").read_text("utf-8")
        code = [c["source"] for c in json.loads(lines)["cells"]]
        assert max(len(line.rstrip()) for text in code for line in text) > 80
        wide = "all => all.filter(e => e.scrollWidth > e.clientWidth).length"
        assert page.locator(".cell_input pre").evaluate_all(wide) == 0


def test_a_word_of_the_landing_page_lights_up_what_it_looked_at(browser, address):
    with Visit(browser, address, "index.html") as page:
        shares = "w => Number(w.style.getPropertyValue('--w') || 0)"
        hat = page.locator(".demo span.word", has_text="Hut")
        assert hat.evaluate(shares) == 0
        page.locator(".demo button.word", has_text="hat").hover()
        assert hat.evaluate(shares) > 0.9
        page.locator(".demo button.word", has_text="red").focus()  # by keyboard, too
        assert page.locator(".demo span.word", has_text="roten").evaluate(shares) > 0.7


TRANSLATED = "t => document.querySelector('.demo').dataset.translated === `4 ${t}`"


def test_the_landing_page_translates_what_is_typed(browser, address):
    visit = Visit(browser, address, "index.html")
    with visit as page:
        text = "Eine Frau wartet, während ein Mann ein altes Auto repariert."
        page.locator(".demo textarea").fill(text)
        page.wait_for_function(TRANSLATED, arg=text)
        (expected,) = Translator.pretrained().translate([text])
        assert page.locator(".demo .written").inner_text() == expected
        page.locator(".demo button.word", has_text="fixing").focus()
        verb = page.locator(".demo span.word", has_text="repariert")
        assert verb.evaluate("w => Number(w.style.getPropertyValue('--w'))") > 0.5
        weighed = page.locator(".demo .weighed")
        weighed.wait_for()
        assert "repairing" in weighed.inner_text()
        assert "fixing at repariert" in page.locator(".map").get_attribute("aria-label")
        inside = page.locator(".demo a", has_text="alive").get_attribute("href")
        assert "alive.html#text=Eine+Frau+wartet" in inside
        page.add_script_tag(path=AXE)
        assert page.evaluate(SCAN) == []
        page.set_viewport_size(PHONE)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    assert visit.trouble == []


@pytest.mark.parametrize(("text", "help_line"), UNFIT.values(), ids=UNFIT)
def test_what_cannot_be_translated_gets_a_line_of_help(
    text, help_line, browser, address
):
    visit = Visit(browser, address, "index.html")
    with visit as page:
        page.locator(".demo textarea").fill(text)
        note = page.locator(".demo .note", has_text=help_line)
        note.wait_for()
        assert page.locator(".demo img").count() == 0
        assert page.locator(".demo button.word").first.inner_text() == "A"  # as before
    assert visit.trouble == []


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
        page.evaluate("() => localStorage.clear()")  # for the visits to come
        assert themes == {"light", "dark"}
