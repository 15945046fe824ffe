"""The paper's figures: legible, named by parts, their numbers and shapes live."""

import inspect
import math
from itertools import combinations

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.text import Text
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close

from annotated_transformer import pictures, plots
from annotated_transformer.attention import MultiHeadAttention, attention
from annotated_transformer.config import BASE, TransformerConfig
from annotated_transformer.errors import InputError
from annotated_transformer.masks import causal_mask
from annotated_transformer.recording import record_attention
from annotated_transformer.transformer import Transformer

matplotlib.use("Agg")

UNEQUAL = TransformerConfig(  # every size another number
    vocab_size=29,
    tgt_vocab_size=31,
    d_model=12,
    d_ff=18,
    n_heads=3,
    n_layers=2,
    d_k=4,
    d_v=6,
    norm="pre",
)


@pytest.fixture(autouse=True)
def style():
    """The course's style, taken back after the test."""
    with plt.rc_context():
        plt.style.use(plots.STYLE)
        yield


def drawn(figure, kind):
    """The artists of a kind in drawing order, with their boxes in pixels."""
    (axes,) = figure.axes
    renderer = FigureCanvasAgg(figure).get_renderer()
    found = [a for a in [*axes.patches, *axes.texts] if isinstance(a, kind)]
    return [(artist, artist.get_window_extent(renderer)) for artist in found]


def texts(figure):
    return drawn(figure, Text)


def contains(outer, inner):
    inside = outer.x0 <= inner.x0 and inner.x1 <= outer.x1
    return inside and outer.y0 <= inner.y0 and inner.y1 <= outer.y1


def strokes(figure):
    """The lines and arrows of a figure, each without a lift of the pen, in pixels."""
    (axes,) = figure.axes
    arrows = [arrow.get_path() for arrow, _ in drawn(figure, FancyArrowPatch)]
    for path in [*arrows, *(line.get_path() for line in axes.lines)]:
        for points in axes.transData.transform_path(path).to_polygons(
            closed_only=False
        ):
            yield Path(points)


def flaws(figure):
    """Texts that leave the picture or their box, or that anything runs across."""
    found = []
    boxes = [box for _, box in drawn(figure, FancyBboxPatch)]
    lines = list(strokes(figure))
    for text, extent in texts(figure):
        name = text.get_text()
        if not contains(figure.bbox, extent):
            found.append(f"{name} leaves the picture")
        own = max((i for i, b in enumerate(boxes) if contains(b, extent)), default=-1)
        found += [f"{name}: box" for b in boxes[own + 1 :] if b.overlaps(extent)]
        crossing = [line.intersects_bbox(extent, filled=False) for line in lines]
        found += [f"{name}: line"] * sum(crossing)
    for (one, first), (other, second) in combinations(texts(figure), 2):
        if first.overlaps(second):
            found.append(f"{one.get_text()} on {other.get_text()}")
    return found


def numbers(*sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*size, generator=generator) for size in sizes]


# --- Figure 1 ---


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("lit", [(), ("memory",), pictures.PARTS])
def test_every_word_of_figure_1_can_be_read(small, lit):
    figure = pictures.figure_1(lit, ["heads"], small=small)
    assert flaws(figure) == []
    words = " ".join(text.get_text() for text, _ in texts(figure)).replace("-\n", "-")
    for part in ("embeddings", "positions", "cross-", "norm", "memory", "softmax"):
        assert part in words
    sizes = [text.get_size() for text, _ in texts(figure)]
    assert min(sizes) >= (6.5 if small else 10)


def test_the_thumbnail_is_small_and_the_other_as_wide_as_the_page():
    width, height = pictures.figure_1(small=True).get_size_inches()
    assert width < 2.7 and height < 3.8
    assert pictures.figure_1().get_size_inches()[0] == 7


def faces(figure):
    return [patch.get_facecolor()[:3] for patch, _ in drawn(figure, FancyBboxPatch)]


def test_a_part_lights_its_own_boxes_and_no_others():
    key = 1  # a box of the key for each way to fill
    plain = faces(pictures.figure_1())
    assert len(plain) == sum(map(len, pictures.PARTS.values()))
    for name, boxes in pictures.PARTS.items():
        if name in ("encoder", "decoder"):
            continue  # frames: what is inside stays legible
        lit, built = (
            faces(pictures.figure_1(*names)) for names in ([[name]], [(), [name]])
        )
        assert lit.count(to_rgb(pictures.BLUE)) == len(boxes) + key
        assert built.count(to_rgb(pictures.BUILT.face)) == len(boxes) + key
        assert lit.count(to_rgb("white")) == len(plain) - len(boxes) + key


def test_a_part_that_is_lit_and_built_is_lit():
    assert faces(pictures.figure_1(["memory"], ["memory"])) == faces(
        pictures.figure_1("memory")
    )


def test_an_unknown_part_is_named_with_the_choices():
    with pytest.raises(InputError, match=r"no part 'mask': choose from encoder, .*, s"):
        pictures.figure_1(["memory", "mask"])
    with pytest.raises(InputError, match="no part 'norm'"):
        pictures.figure_1(built=["norm"])


def test_lit_built_and_later_differ_in_gray_too():
    def gray(color):
        linear = np.array(to_rgb(color)) ** 2.2
        return float(linear @ [0.2126, 0.7152, 0.0722])

    looks = pictures.LIT, pictures.BUILT, pictures.LATER
    lightness = [gray(look.face) ** (1 / 2.2) for look in looks]
    assert min(np.diff(lightness)) > 0.15
    for look in looks:
        lighter, darker = sorted((gray(look.face), gray(look.text)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def test_the_chapters_build_the_model_part_by_part():
    assert list(pictures.CHAPTERS) == sorted({*range(1, 19), *pictures.CHAPTERS})
    named = [name for parts in pictures.CHAPTERS.values() for name in parts]
    assert set(named) == set(pictures.PARTS)
    before_08 = {name for n in range(1, 8) for name in pictures.CHAPTERS[n]}
    assert before_08 == set(pictures.CHAPTERS[8])
    assert set(pictures.PARTS) - before_08 == set(pictures.AROUND)


def test_progress_lights_today_and_fills_what_came_before():
    shown = faces(pictures.progress(6))
    parts = [name for name, boxes in pictures.PARTS.items() for _ in boxes]
    of = dict(zip(parts, shown, strict=False))
    assert of["positions"] == to_rgb(pictures.BLUE)
    assert of["embeddings"] == of["heads"] == to_rgb(pictures.BUILT.face)
    assert of["norms"] == of["loss"] == to_rgb("white")
    assert inspect.signature(pictures.progress).parameters["small"].default is True


@pytest.mark.parametrize("chapter", [0, 99])
def test_a_chapter_without_a_part_is_refused(chapter):
    last = max(pictures.CHAPTERS)
    with pytest.raises(InputError, match=f"chapter {chapter} .* from 1 to {last}"):
        pictures.progress(chapter)


# --- Figure 2, left ---

QUERY, KEY, VALUE = numbers((2, 4), (3, 4), (3, 5))
MASK = torch.tensor([[True, True, False], [False, False, False]])  # an empty row


@pytest.mark.parametrize("mask", [None, MASK])
def test_the_last_matrix_is_what_attention_returns(mask):
    steps = pictures.attention_steps(QUERY, KEY, VALUE, mask)
    output, weights = attention(QUERY, KEY, VALUE, mask)
    assert list(steps)[-2:] == ["weights", "output"]
    assert_close(steps["output"], output, rtol=0, atol=0)
    assert_close(steps["weights"], weights, rtol=0, atol=0)
    if mask is None:
        assert_close(steps["scaled"].softmax(-1), weights)
        assert "masked" not in steps
    else:
        assert_close(steps["masked"][:1].softmax(-1), weights[:1])
        assert (steps["masked"].isinf() == ~mask).all()
    assert_close(steps["scores"], steps["scaled"] * 2)  # d_k = 4


def printed_on(figure):
    return [text.get_text() for text, _ in texts(figure)]


def test_figure_2_prints_the_numbers_of_every_step():
    words = printed_on(pictures.figure_2_left(QUERY, KEY, VALUE, MASK))
    steps = pictures.attention_steps(QUERY, KEY, VALUE, MASK)
    matrices = [QUERY, KEY, VALUE, *steps.values()]
    for matrix in matrices:
        for number in matrix.flatten().tolist():
            assert pictures.printed(number) in words
    cells = sum(matrix.numel() for matrix in matrices)
    labels = [word for word in words if any(c.isalpha() for c in word)]
    assert len(words) == cells + len(labels)
    assert words.count("−∞") == 4
    assert "no mask" not in words
    assert "no mask" in printed_on(pictures.figure_2_left(QUERY, KEY, VALUE))


def test_numbers_are_printed_with_two_digits():
    given = (1e-4, -0.001, -3.14159, 41.5, -1234.7, 2.3e6, -math.inf)
    found = [pictures.printed(number) for number in given]
    assert found == ["0.00", "0.00", "−3.14", "41.50", "−1235", "2e+06", "−∞"]


def test_a_cell_is_white_at_zero_and_blue_or_red_at_the_limit():
    below, above = pictures.shade(-3.0, 3.0), pictures.shade(3.0, 3.0)
    assert below == pytest.approx(to_rgb(pictures.BELOW))
    assert above == pytest.approx(to_rgb(pictures.ABOVE))
    assert pictures.shade(0.0, 3.0) == pictures.shade(0.0, None) == [1, 1, 1]
    assert pictures.shade(1.0, None) == below  # a weight
    assert pictures.shade(0.0, 0.0) == [1, 1, 1]  # a matrix of zeros


@pytest.mark.parametrize(
    "sizes",
    [((2, 4), (3, 4), (3, 5)), ((1, 1), (1, 1), (1, 1)), ((6, 6), (6, 6), (6, 6))],
)
def test_every_word_of_figure_2_left_can_be_read(sizes):
    matrices = [-40 * matrix for matrix in numbers(*sizes)]
    assert flaws(pictures.figure_2_left(*matrices)) == []
    mask = causal_mask(6)[: sizes[0][0], : sizes[1][0]]
    assert flaws(pictures.figure_2_left(*matrices, mask)) == []


def test_a_matrix_too_large_to_print_is_refused():
    with pytest.raises(InputError, match=r"K has the shape \(7, 4\).* at most 6 rows"):
        pictures.figure_2_left(QUERY, torch.ones(7, 4), torch.ones(7, 5))
    with pytest.raises(InputError, match=r"Q has the shape \(1, 2, 4\)"):
        pictures.figure_2_left(QUERY[None], KEY, VALUE)


# --- Figure 2, right ---


class Shapes(TorchFunctionMode):
    """The shape of every tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = result if isinstance(result, tuple | list) else [result]
        self.seen += [tuple(t.shape) for t in tensors if isinstance(t, torch.Tensor)]
        return result


def test_the_shapes_of_figure_2_are_those_of_a_real_pass_in_its_order():
    found = pictures.head_shapes(2, 5, 21, 3)
    layer = MultiHeadAttention(21, 3)
    x = torch.randn(2, 5, 21)
    with record_attention(layer), Shapes() as shapes:
        output = layer(x)
    seen = iter([tuple(x.shape), *shapes.seen])
    for symbols, shape in found:
        assert shape in seen, symbols  # goes on from the one before
    assert found[-1][1] == tuple(output.shape)
    sizes = {"b": 2, "L": 5, "d": 21, "h": 3, "d_k": 7, "d_v": 7, "h·d_k": 21}
    sizes["h·d_v"] = 21
    for symbols, shape in found:
        assert tuple(sizes[name] for name in symbols.strip("()").split(", ")) == shape


def test_figure_2_right_prints_them_and_can_be_read():
    figure = pictures.figure_2_right(2, 5, 21, 3)
    assert flaws(figure) == []
    words = printed_on(figure)
    for symbols, shape in pictures.head_shapes(2, 5, 21, 3):
        assert symbols in words and str(shape) in words
    assert "3 heads" in words
    with pytest.raises(InputError, match="divisible by n_heads"):
        pictures.figure_2_right(2, 5, 21, 4)


# --- The shapes of the whole model ---


def test_the_shapes_of_the_card_are_those_of_a_real_model():
    shapes = pictures.shapes_of_a_run(UNEQUAL, 2, 7, 5)
    model = Transformer(UNEQUAL).eval()
    src, tgt = torch.ones(2, 7, dtype=torch.long), torch.ones(2, 5, dtype=torch.long)
    embedded = model.src_embeddings(src)
    layer = model.decoder.layers[0]
    with torch.no_grad(), record_attention(model) as maps:
        memory = model.encode(src)
        features = model.features(src, tgt)
        logits = model(src, tgt)
    query, key, _ = layer.cross_attention.project(features, memory)
    real = {
        "src_embeddings": embedded,
        "tgt_embeddings": model.tgt_embeddings(tgt),
        "encoder": memory,
        "decoder": features,
        "logits": logits,
        "decoder.layers.0.cross_attention.query": query,
        "decoder.layers.0.cross_attention.key": key,
        "decoder.layers.0.feed_forward.widen": layer.feed_forward.widen(features),
        **{f"{name}.weights": weights for name, weights in maps.items()},
    }
    for name, tensor in real.items():
        assert shapes[name] == [tuple(tensor.shape)], name
    assert shapes["positions"] == [(2, 7, 12), (2, 5, 12)]
    assert len(maps) == 6


@pytest.mark.parametrize("config", [UNEQUAL, BASE])
def test_symbols_and_numbers_of_the_card_agree(config):
    sizes = {"b": 2, "S": 7, "T": 5, "h": config.n_heads, "d": config.d_model}
    sizes |= {"d_k": config.key_size, "d_v": config.value_size, "d_ff": config.d_ff}
    sizes["V"] = config.tgt_vocab_size or config.vocab_size
    words = printed_on(pictures.shapes_card(config))
    rows = [row for *_, rows in pictures.BLOCKS for row in rows]
    shown = [word for word in words if word[:3] == "(2,"]
    assert len(shown) == len(rows) > 30
    for (text, _, symbols), numbers in zip(rows, shown, strict=True):
        named = tuple(sizes[name] for name in symbols.strip("()").split(", "))
        assert str(named) == numbers, text


@pytest.mark.parametrize("config", [UNEQUAL, BASE])
def test_every_word_of_the_card_can_be_read(config):
    assert flaws(pictures.shapes_card(config)) == []
    assert flaws(pictures.shapes_card(config, batch=64, src=100, tgt=99)) == []


def test_pictures_are_shown_once():
    pictures.progress(2)
    pictures.shapes_card(UNEQUAL)
    assert plt.get_fignums() == []
