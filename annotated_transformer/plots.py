"""Figures in one visual style: interactive attention maps, static maps, and curves."""

import json
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from annotated_transformer.errors import InputError

STYLE = Path(__file__).with_name("course.mplstyle")
BLUES = ["#f7fbff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6"]
BLUES += ["#4292c6", "#2171b5", "#08519c", "#08306b"]  # Matplotlib's colormap
VEGA_LITE = "application/vnd.vegalite.v5+json"
SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"


def use_style() -> None:
    """Give all figures the course's look. Notebooks call it once, at the top."""
    import altair
    import matplotlib.pyplot as plt

    plt.style.use(STYLE)
    altair.theme.register("annotated_transformer", enable=True)(altair_theme)
    if "google.colab" not in sys.modules:  # Colab shows Altair's own HTML only
        altair.renderers.register("annotated_transformer", mime_bundle)
        altair.renderers.enable("annotated_transformer")


def altair_theme() -> Any:
    """Altair's look, taken from the style file."""
    import matplotlib

    style = matplotlib.rc_params_from_file(STYLE, use_default_template=False)
    text = {
        "labelColor": style["xtick.color"],
        "titleColor": style["text.color"],
        "titleFontWeight": "normal",
    }
    return {
        "config": {
            "background": "white",
            "padding": 10,
            "font": "DejaVu Sans, Verdana, sans-serif",
            "axis": text | {"domainColor": style["axes.edgecolor"]},
            "header": text | {"labelFontSize": 12},
            "legend": text,
            "range": {"category": style["axes.prop_cycle"].by_key()["color"]},
            "title": {"anchor": "start", "color": style["text.color"]},
            "view": {"stroke": None},
        }
    }


def mime_bundle(spec: dict, **_: Any) -> tuple[dict, dict]:
    """An Altair chart for every viewer: live where Vega-Lite runs, or else an image.

    JupyterLab's own Vega-Lite is version 5, so the spec says 5 and uses nothing newer.
    HTML is left out: JupyterLab would prefer it, and it needs the network.
    """
    import vl_convert

    spec = spec | {"$schema": SCHEMA}
    png = vl_convert.vegalite_to_png(spec, vl_version="5.8", scale=2)
    width, height = struct.unpack(">II", png[16:24])
    text = spec.get("description", "Altair chart")
    bundle = {VEGA_LITE: spec, "image/png": png, "text/plain": text}
    return bundle, {"image/png": {"width": width // 2, "height": height // 2}}


def attention_heatmap(
    weights: Any, rows: Sequence[str], columns: Sequence[str], *, title: str = ""
) -> Any:
    """One interactive attention map: each row's token looks at the columns' tokens.

    `weights` is (query, key). Returns an Altair chart.
    """
    values = fitting_array(weights, rows, columns, dimensions=2)
    chart = attention_chart(values[None], rows, columns, step=26)
    return chart.properties(**title_and_description(title, rows, columns))


def attention_heads(
    weights: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str = "",
    names: Sequence[str] | None = None,
) -> Any:
    """The maps of several heads, side by side; pointing at a row highlights it in all.

    `weights` is (heads, query, key); `names` label the heads, "head 0" and so on if
    none are given. Returns an Altair chart.
    """
    import altair as alt

    values = fitting_array(weights, rows, columns, dimensions=3)
    label = "'head ' + datum.value"
    if names is not None:
        if len(names) != len(values):
            raise InputError(f"{len(names)} names do not fit {len(values)} heads")
        label = f"{json.dumps(list(names), ensure_ascii=False)}[datum.value]"
    header = alt.Header(title=None, labelExpr=label)
    fitting = max(1, 900 // (16 * len(columns) + 14))  # a page is about 900 pixels wide
    chart = attention_chart(values, rows, columns, step=16).facet(
        alt.Facet("head:O", header=header), columns=min(fitting, 4), spacing=14
    )
    return chart.properties(**title_and_description(title, rows, columns))


def title_and_description(
    title: str, rows: Sequence[str], columns: Sequence[str]
) -> dict[str, str]:
    """A chart's title, if it has one, and a description for those who cannot see it."""
    name = title or "Attention"
    sizes = f"{len(rows)} query tokens (rows), {len(columns)} key tokens (columns)"
    return {"description": f"{name}: {sizes}"} | ({"title": title} if title else {})


def attention_chart(values: np.ndarray, rows: Any, columns: Any, *, step: int) -> Any:
    """The cells of maps of shape (head, query, key).

    Positions are numbers and tokens their labels: one that occurs twice has two.
    """
    import altair as alt

    query, key = (json.dumps(list(t), ensure_ascii=False) for t in (rows, columns))
    data = [
        {"head": h, "row": i, "column": list(range(len(columns))), "weight": row}
        for h, head in enumerate(values.round(3).tolist())
        for i, row in enumerate(head)
    ]
    pointed = alt.selection_point(
        "row", fields=["row"], on="mouseover", clear="mouseout"
    )

    def axis(tokens: str, **options: Any) -> alt.Axis:
        label = f"{tokens}[datum.value]"
        return alt.Axis(labelExpr=label, ticks=False, domain=False, **options)

    return (
        alt.Chart(alt.InlineData(values=data, name="attention"), name="map")
        .transform_flatten(["column", "weight"])
        .transform_calculate(query=f"{query}[datum.row]", key=f"{key}[datum.column]")
        .mark_rect(stroke="white", strokeWidth=1)
        .encode(
            x=alt.X(
                "column:O",
                title="key",
                axis=axis(key, labelAngle=-label_angle(columns)),
            ),
            y=alt.Y("row:O", title="query", axis=axis(query)),
            color=alt.Color("weight:Q", scale=alt.Scale(domain=[0, 1], range=BLUES)),
            opacity=alt.condition(pointed, alt.value(1), alt.value(0.35)),
            tooltip=["query:N", "key:N", alt.Tooltip("weight:Q", format=".3f")],
        )
        .add_params(pointed)
        .properties(width=alt.Step(step), height=alt.Step(step))
    )


def panels(columns: int = 1, *, width: float = 6.4, height: float = 3.6) -> tuple:
    """A figure and its axes, side by side. End the cell with the figure to show it."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, columns, figsize=(width, height))
    plt.close(figure)  # else the notebook would show it a second time
    return figure, axes


# The cells of every static map.
CELLS: dict[str, Any] = {
    "square": True,
    "linewidths": 1,
    "fmt": ".2f",
    "annot_kws": {"size": 9},
    "cbar_kws": {"shrink": 0.7},
}


def heatmap(
    values: Any,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    *,
    title: str = "",
    xlabel: str = "key",
    ylabel: str = "query",
    limits: tuple[float, float] = (0, 1),
    numbers: bool = False,
    axes: Any = None,
) -> Any:
    """A static map of a matrix: attention weights, scores, a mask. Returns the figure.

    Where the lower limit is negative, blue is below zero and red above.
    """
    import seaborn

    matrix = fitting_array(values, rows, columns, dimensions=2)
    if axes is None:
        height, width = matrix.shape
        _, axes = panels(width=1.9 + 0.42 * width, height=1.2 + 0.42 * height)
    seaborn.heatmap(
        matrix,
        vmin=limits[0],
        vmax=limits[1],
        cmap="Blues" if limits[0] >= 0 else "vlag",
        annot=numbers,
        cbar="bool" not in str(getattr(values, "dtype", "")),  # not for a mask
        xticklabels="auto" if columns is None else list(columns),
        yticklabels="auto" if rows is None else list(rows),
        ax=axes,
        **CELLS,
    )
    axes.tick_params(length=0)
    axes.tick_params(axis="y", rotation=0)
    if columns is not None and label_angle(columns):
        axes.set_xticks(axes.get_xticks(), columns, rotation=45, ha="right")
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    return axes.figure


def lines(
    x: Any,
    series: Mapping[str, Any],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    axes: Any = None,
) -> Any:
    """Draw a line for each name, and return the figure.

    Values of shape (seeds, x) give the mean, and a band from the lowest seed to the
    highest.
    """
    if axes is None:
        _, axes = panels()
    x = as_numbers(x)
    for name, given in series.items():
        values = np.atleast_2d(as_numbers(given))
        if values.shape[1] != len(x):
            raise InputError(
                f"{name!r} has {values.shape[1]} values, but x has {len(x)}: "
                "give one value for each x, or a row of them for each seed"
            )
        (line,) = axes.plot(x, values.mean(0), label=name)
        if len(values) > 1:
            low, high = values.min(0), values.max(0)
            axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, lw=0)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if len(series) > 1:
        axes.legend()
    return axes.figure


def history_curves(history: Sequence[Mapping[str, Any]], *, x: str = "step") -> Any:
    """What training recorded: the losses and, if measured, BLEU beside them.

    `history` holds the rows of a run's `history.jsonl`; a row may lack any key but `x`,
    which is "step" or "minutes". Returns the figure.
    """

    def points(key: str) -> list[tuple]:
        measured = [row for row in history if row.get(key) is not None]
        return [tuple(row[name] for row in measured) for name in (x, key) if measured]

    if not points("loss"):
        raise InputError(f"none of the history's {len(history)} rows has a loss")
    bleu = points("bleu")
    figure, axes = panels(2, width=9) if bleu else panels()
    left = axes[0] if bleu else axes
    left.plot(*points("loss"), label="training")
    left.plot(*points("validation_loss"), label="validation")
    left.set(xlabel=x, ylabel="loss (nats per token)")
    left.legend()
    if bleu:
        axes[1].plot(*bleu, color="C2", marker="o", markersize=4)
        axes[1].set(xlabel=x, ylabel="validation BLEU", ylim=(0, None))
    return figure


def fitting_array(
    values: Any, rows: Any, columns: Any, *, dimensions: int
) -> np.ndarray:
    """The values as numbers, after checking that their sizes fit the tokens."""
    array = as_numbers(values)
    if array.ndim != dimensions:
        raise InputError(f"the map has {array.ndim} dimensions, but needs {dimensions}")
    for what, tokens, axis in ("rows", rows, -2), ("columns", columns, -1):
        if tokens is not None and len(tokens) != array.shape[axis]:
            raise InputError(
                f"the map has {array.shape[axis]} {what}, but there are {len(tokens)} "
                "tokens for them: pass the tokens that the model saw"
            )
    return array


def label_angle(tokens: Sequence[str]) -> int:
    """The angle of the labels below a map: words need room."""
    return 45 if max(map(len, tokens), default=0) > 2 else 0


def as_numbers(values: Any) -> np.ndarray:
    """A tensor from any device, an array or lists, as NumPy numbers."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double()
    return np.asarray(values, dtype=float)
