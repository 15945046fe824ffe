"""The report as a page: nothing hostile, nothing fetched, readable by everyone."""

import math
import re
from collections import Counter
from html.parser import HTMLParser

import matplotlib
import pytest

from annotated_transformer.doctor.causes import CAUSES
from annotated_transformer.doctor.page import STYLE, page
from annotated_transformer.doctor.report import Report, Result
from annotated_transformer.errors import InputError

HOSTILE = (
    "</style></title><script>alert(1)</script><img src=x onerror=alert(1)>\x1b\0'\""
)
VOID = {"meta", "path", "use", "image", "rect", "br"}
PICTURES = {
    "leak": {"target": [[0.5, 0.0, 0.2], [0.4, 0.3, 0.0], [0.1, 0.2, 0.3]]},
    "depth": {
        "names": ["encoder.0", HOSTILE, "$\\frac{$"],
        "activations": [1.0, 2.0, 4.0],
        "gradients": [0.1, 0.0, math.nan],
    },
    "one_batch": [4.6, 3.0, 1.0, 0.5],
}


def result(kind, text, **more):
    return Result(examination=text, kind=kind, says=text, **more)


def report(text=HOSTILE, **pictures):
    return Report(
        [
            result("finding", text, measured=text, expected=text, causes=list(CAUSES)),
            result("finding", "the second"),
            *(result(kind, text) for kind in ("note", "healthy", "skipped")),
        ],
        {"floor": 0.4, "vocab_size": 97, text: {text: text}},
        pictures or PICTURES,
    )


class Reader(HTMLParser):
    """Tags with their attributes, and whether each is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_hostile_names_and_messages_are_text():
    read = Reader(page(report()))
    assert not read.named("script") and not read.named("img")
    assert len(read.named("style")) == 1 and len(read.named("title")) == 1
    assert not [name for _, attrs in read.tags for name in attrs if name[:2] == "on"]
    assert "<script>alert(1)</script>" in "".join(read.words)


def test_nothing_is_fetched():
    text = page(report())
    outside = set(re.findall(r"[a-z]+://[^\s\"'<)]+", text))
    assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in text and not re.search(r"url\((?!#)", text)


def test_findings_come_first_and_the_first_is_open():
    text = page(report("plain"))
    words = ("Not healthy: 2 findings", "1. Plain", "2. The second", "<figure>")
    places = [text.index(part) for part in words]
    assert places == sorted(places)
    opened = ["open" in attributes for attributes in Reader(text).named("details")]
    assert opened[0] and not any(opened[1:])
    assert "notebooks/03_masks.ipynb" in text and "chapter 03, Masks" in text


def test_each_picture_has_a_description_and_a_caption_that_states_the_finding():
    text = page(report())
    read = Reader(text)
    images = read.named("svg")
    assert len(images) == len(read.named("figcaption")) == 3
    assert all(i["role"] == "img" and len(i["aria-label"]) > 30 for i in images)
    for words in (
        "Not zero above the diagonal: 1 of 3 cells. Position 0 changes with token 2,",
        "Activations go from 1 to 4, a factor of 4.",
        "2 of 3 gradients are zero or not finite.",
        "the loss goes from 4.60 to 0.50",
        "ln V, a blind guess (4.57), the floor (0.40)",
    ):
        assert words in text, words


def test_ids_occur_once_and_what_refers_to_them_finds_them():
    text = page(report())
    ids = Counter(attrs["id"] for _, attrs in Reader(text).tags if "id" in attrs)
    assert ids and max(ids.values()) == 1
    assert set(re.findall(r"(?:url\(|href=\")#([\w-]+)", text)) <= set(ids)


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("value", [None, [], {}, "text", 3, [math.nan], {"names": [1]}])
def test_a_missing_or_damaged_picture_is_left_out(kind, value):
    text = page(report(**{kind: value}))
    assert "<svg" not in text and "Pictures" not in text


def test_what_is_healthy_says_so():
    healthy = Report([result("healthy", "masks")], {})
    text = page(healthy)
    assert '<h1 class="good">Healthy: 1 examination found nothing wrong.</h1>' in text
    assert "<figure>" not in text and "findings" not in text.partition("</style>")[2]


def test_the_style_of_other_figures_stays():
    before = dict(matplotlib.rcParams)
    first = page(report())
    assert dict(matplotlib.rcParams) == before
    assert page(report()) == first


def test_the_page_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "report.html"
    report("\udcff").write_html(path)
    assert path.read_text("utf-8").startswith("<!doctype html>")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    with pytest.raises((OSError, InputError)):
        report().write_html(tmp_path)


def luminance(color):
    """WCAG 2's relative luminance of #rgb or #rrggbb."""
    digits = color[1:] if len(color) == 7 else "".join(2 * c for c in color[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
    ]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("part", range(2), ids=["light", "dark"])
def test_colors_have_the_contrast_of_wcag_aa(part):
    block = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[part]
    colors = dict(re.findall(r"--(\w+): (#\w+)", block))
    for name in ("ink", "soft", "bad", "good", "focus"):
        for ground in ("page", "wash"):
            pair = sorted(luminance(colors[x]) for x in (name, ground))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (name, ground)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_shows_it_and_keys_open_it(browser, tmp_path, scheme):
    path = tmp_path / "report.html"
    report(HOSTILE + "x" * 300).write_html(path)
    view = browser.browser.new_context(
        viewport={"width": 390, "height": 844}, color_scheme=scheme
    )
    tab = view.new_page()
    asked, alarms = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("dialog", lambda dialog: (alarms.append(dialog.message), dialog.dismiss()))
    tab.goto(path.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    for _ in range(2):
        tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    opened = tab.evaluate("[...document.querySelectorAll('details')].map(d => d.open)")
    assert opened[:3] == [True, True, False]
    assert asked == [path.as_uri()] and alarms == []
    view.close()
