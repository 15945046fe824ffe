"""Figures show the numbers and the tokens that they were given."""

import io
import sys
import types

import altair
import matplotlib
import matplotlib.colors
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from annotated_transformer import plots
from annotated_transformer.errors import InputError

matplotlib.use("Agg")

ROWS = ["a", "dog", "sees", "a", "cat"]  # "a" twice
COLUMNS = ["ein", "Hund", '"']  # a quote, too
WEIGHTS = torch.arange(2.0 * 5 * 3).reshape(2, 5, 3) / 30


@pytest.fixture(autouse=True)
def style():
    """The course's style, taken back after the test."""
    with plt.rc_context(), altair.theme.enable("default"):
        renderer = altair.renderers.active
        plots.use_style()
        yield
        altair.renderers.enable(renderer)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def cells(chart) -> dict[tuple[int, int, int], float]:
    """(head, query, key) -> weight, as Vega-Lite's flatten would list them."""
    rows = chart.to_dict()["data"]["values"]
    return {
        (row["head"], row["row"], column): weight
        for row in rows
        for column, weight in zip(row["column"], row["weight"], strict=True)
    }


def test_each_weight_is_at_its_own_place_although_tokens_repeat():
    one = cells(plots.attention_heatmap(WEIGHTS[0], ROWS, COLUMNS))
    both = cells(plots.attention_heads(WEIGHTS, ROWS, COLUMNS))
    assert len(one) == 5 * 3
    assert len(both) == 2 * 5 * 3
    for (head, query, key), weight in both.items():
        assert weight == pytest.approx(WEIGHTS[head, query, key].item(), abs=5e-4)
        assert head == 1 or one[head, query, key] == weight


def test_rows_are_labeled_with_queries_and_columns_with_keys():
    encoding = plots.attention_heatmap(WEIGHTS[0], ROWS, COLUMNS).to_dict()["encoding"]
    assert encoding["y"]["field"] == "row"
    assert encoding["y"]["axis"]["labelExpr"] == (
        '["a", "dog", "sees", "a", "cat"][datum.value]'
    )
    assert encoding["x"]["field"] == "column"
    assert encoding["x"]["axis"]["labelExpr"] == '["ein", "Hund", "\\""][datum.value]'


def test_live_and_still_maps_have_the_same_colors():
    blues = matplotlib.colormaps["Blues"]
    shades = [matplotlib.colors.to_rgb(shade) for shade in plots.BLUES]
    for place, shade in zip(np.linspace(0, 1, len(shades)), shades, strict=True):
        np.testing.assert_allclose(shade, blues(place)[:3], atol=0.01)


def test_a_drawn_map_names_its_tokens_and_cells():
    import vl_convert

    spec = plots.attention_heads(WEIGHTS, ROWS, COLUMNS).to_dict()
    svg = vl_convert.vegalite_to_svg(spec, vl_version="5.8")
    for word in [*ROWS, "ein", "Hund", "head 0", "head 1"]:
        assert f">{word}</text>" in svg
    assert svg.count(">a</text>") == 2
    assert svg.count('aria-roledescription="rect mark"') == 2 * 5 * 3


def test_heads_of_a_choice_keep_their_names():
    import vl_convert

    chart = plots.attention_heads(WEIGHTS, ROWS, COLUMNS, names=["2.0", "2.5"])
    svg = vl_convert.vegalite_to_svg(chart.to_dict(), vl_version="5.8")
    assert ">2.0</text>" in svg and ">2.5</text>" in svg and "head 0" not in svg
    with pytest.raises(InputError, match="3 names do not fit 2 heads"):
        plots.attention_heads(WEIGHTS, ROWS, COLUMNS, names=["a", "b", "c"])


@pytest.mark.parametrize("heads", [False, True])
def test_the_bundle_holds_a_live_chart_a_picture_and_words(heads):
    draw = plots.attention_heads if heads else plots.attention_heatmap
    chart = draw(WEIGHTS if heads else WEIGHTS[0], ROWS, COLUMNS, title="Cross")
    bundle, metadata = chart._repr_mimebundle_()
    assert set(bundle) == {plots.VEGA_LITE, "image/png", "text/plain"}
    assert bundle[plots.VEGA_LITE]["$schema"] == plots.SCHEMA
    assert bundle["text/plain"].startswith("Cross: 5 query tokens")
    image = pixels(bundle["image/png"])
    assert image.shape[1] // 2 == metadata["image/png"]["width"]
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50
    assert (image[0, 0] == 255).all()  # a white card, on dark pages too


def test_the_chart_uses_nothing_newer_than_vega_lite_5():
    import vl_convert

    chart = plots.attention_heads(WEIGHTS, ROWS, COLUMNS)
    old, new = (
        vl_convert.vegalite_to_svg(chart.to_dict(), vl_version=version)
        for version in ("5.8", vl_convert.get_vegalite_versions()[-1])
    )
    assert old.count("<path") == new.count("<path")
    assert old.count("</text>") == new.count("</text>")


def test_colab_keeps_its_own_renderer(monkeypatch):
    altair.renderers.enable("html")
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("colab"))
    plots.use_style()
    assert altair.renderers.active == "html"


@pytest.mark.parametrize(
    ("draw", "dimensions"),
    [(plots.attention_heatmap, 2), (plots.heatmap, 2), (plots.attention_heads, 3)],
)
def test_wrong_sizes_are_named_with_both_numbers(draw, dimensions):
    weights = WEIGHTS if dimensions == 3 else WEIGHTS[0]
    with pytest.raises(InputError, match=r"5 rows, but there are 4 tokens"):
        draw(weights, ROWS[:4], COLUMNS)
    with pytest.raises(InputError, match=r"3 columns, but there are 5 tokens"):
        draw(weights, ROWS, ROWS)
    with pytest.raises(InputError, match=rf"1 dimensions, but needs {dimensions}"):
        draw(torch.ones(7), ROWS, COLUMNS)


def test_the_still_map_holds_the_same_weights():
    figure = plots.heatmap(WEIGHTS[1].requires_grad_(), ROWS, COLUMNS, title="Head 1")
    axes = figure.axes[0]
    drawn = axes.collections[0].get_array().reshape(5, 3)
    np.testing.assert_allclose(drawn, WEIGHTS[1].numpy(force=True))
    assert [label.get_text() for label in axes.get_xticklabels()] == COLUMNS
    assert [label.get_text() for label in axes.get_yticklabels()] == ROWS
    assert axes.collections[0].get_clim() == (0, 1)


def test_a_mask_has_no_scale_of_colors():
    assert len(plots.heatmap(torch.ones(2, 3)).axes) == 2
    assert len(plots.heatmap(torch.ones(2, 3, dtype=torch.bool)).axes) == 1


def test_zero_is_white_where_values_can_be_negative():
    figure = plots.heatmap(np.array([[-3.0, 0.0, 3.0]]), limits=(-3, 3))
    (mesh,) = figure.axes[0].collections
    below, zero, above = mesh.to_rgba(mesh.get_array().ravel())
    assert zero[:3].min() > 0.9
    assert below[2] > 2 * below[0]  # blue
    assert above[0] > 2 * above[2]  # red


def test_lines_show_the_mean_between_the_lowest_and_the_highest_seed():
    seeds = [[1.0, 2.0], [3.0, 6.0], [2.0, 1.0]]
    series = {"ours": torch.tensor(seeds), "theirs": [5.0, 7.0]}
    (axes,) = plots.lines([10, 20], series, xlabel="steps", ylabel="loss").axes
    assert axes.lines[0].get_ydata().tolist() == [2.0, 3.0]
    assert axes.lines[1].get_ydata().tolist() == [5.0, 7.0]
    (band,) = axes.collections
    at_20 = [y for x, y in band.get_paths()[0].vertices if x == 20]
    assert (min(at_20), max(at_20)) == (1.0, 6.0)
    with pytest.raises(InputError, match="'ours' has 2 values, but x has 3"):
        plots.lines([1, 2, 3], series, xlabel="", ylabel="")


def test_a_history_may_lack_scores_in_some_rows_or_in_all():
    history = [
        {"step": 0, "loss": 9.0, "validation_loss": 8.0, "minutes": 0.1},
        {"step": 5, "loss": 4.0, "validation_loss": 5.0, "minutes": 0.2, "bleu": 11.0},
        {"step": 9, "loss": 3.0, "minutes": 0.3, "bleu": None},
    ]
    losses, scores = plots.history_curves(history, x="minutes").axes
    training, validation = losses.lines
    assert training.get_xydata().tolist() == [[0.1, 9.0], [0.2, 4.0], [0.3, 3.0]]
    assert validation.get_xydata().tolist() == [[0.1, 8.0], [0.2, 5.0]]
    assert scores.lines[0].get_xydata().tolist() == [[0.2, 11.0]]
    (losses,) = plots.history_curves(history[:1]).axes
    assert losses.lines[0].get_xydata().tolist() == [[0, 9.0]]
    with pytest.raises(InputError, match="none of the history's 0 rows"):
        plots.history_curves([])


def test_figures_are_shown_once():
    figure, (left, right) = plots.panels(2)
    assert plots.lines([1, 2], {"a": [1, 2]}, xlabel="", ylabel="", axes=left) is figure
    assert plots.heatmap(torch.ones(2, 2), axes=right) is figure
    assert plt.get_fignums() == []
