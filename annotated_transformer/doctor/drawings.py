"""The report's pictures as SVG, in the course's style."""

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from annotated_transformer.doctor.report import plain

WIDTH = 4.8  # inches: read on a telephone, too
LEAK = 1e-4  # of the logits' spread: below it, one adds in another order
BAD = "#d55e00"  # the palette's vermilion


@dataclass(frozen=True)
class Drawing:
    """A picture, the finding that its caption states, and how to read it."""

    svg: str
    finding: str
    how: str


def drawings(
    pictures: Mapping[str, Any], facts: Mapping[str, Any]
) -> Iterator[Drawing]:
    """The pictures that there is something for; what is damaged is left out."""
    leak, depth = pictures.get("leak"), pictures.get("depth")
    losses = pictures.get("one_batch")
    with suppress(ValueError, TypeError, KeyError):
        if leak is not None and "target" in leak:
            yield leak_map(leak["target"])
    with suppress(ValueError, TypeError, KeyError):
        if depth is not None and len(depth["names"]):
            yield by_depth(depth)
    with suppress(ValueError, TypeError, KeyError):
        if losses is not None and len(losses):
            yield one_batch(losses, facts)


def drawn(
    draw: Callable[[Any], None], name: str, alt: str, *, height: float = 3.2
) -> str:
    """What `draw` puts on a figure's axes, as SVG whose ids begin with `name`."""
    import matplotlib
    import matplotlib.style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    from annotated_transformer.plots import STYLE

    written = io.StringIO()
    quiet = {"svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False}
    with matplotlib.rc_context(), matplotlib.style.context([str(STYLE), quiet]):
        figure = Figure(figsize=(WIDTH, height))
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        figure.savefig(written, format="svg", metadata={"Date": None})
    return as_part(written.getvalue(), name, alt)


def as_part(svg: str, name: str, alt: str) -> str:
    """A file of SVG as a part of a page: no prolog, no styles, ids of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL
    )
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(|xlink:href=")#', rf"\1#{name}-", svg)
    label = f'role="img" aria-label="{escape(plain(alt))}"'
    return re.sub(r'^<svg width="\S+" height="\S+"|^<svg', f"<svg {label}", svg)


def finite(values: Any) -> np.ndarray:
    """Numbers as an array, whatever is not finite as NaN."""
    array = np.asarray(
        values.tolist() if hasattr(values, "tolist") else values, dtype=float
    )
    return np.where(np.isfinite(array), array, np.nan)


def leak_map(values: Any) -> Drawing:
    """Which position's logits change with which target token, (T, T)."""
    array = finite(values)
    if array.ndim != 2:
        raise ValueError("no map")
    later = [
        (i, j)
        for i, j in zip(*np.nonzero(np.nan_to_num(array) > LEAK), strict=True)
        if j > i
    ]
    finding = "No position sees a later token."
    if later:
        i, j = max(later, key=lambda place: array[place])
        ahead = int(np.triu(np.ones_like(array), 1).sum())
        finding = (
            f"Not zero above the diagonal: {len(later)} of {ahead} cells. Position {i} "
            f"changes with token {j}, by {array[i, j]:.2g} of the logits' spread."
        )
    how = (
        "Each row is a position, each column the target token that was changed. Above "
        "the diagonal all should be white; crosses are what should not be."
    )

    def draw(axes: Any) -> None:
        size = np.arange(len(array)), np.arange(array.shape[1])
        shown = axes.imshow(array, vmin=0, cmap="Blues")
        for i, j in later:
            axes.plot(j, i, "x", color=BAD, markersize=8, markeredgewidth=2.5)
        axes.set(xlabel="target token changed", ylabel="position of the logits")
        axes.set(xticks=size[1], yticks=size[0])
        axes.grid(False)
        axes.figure.colorbar(shown, label="change, relative to the spread", shrink=0.9)

    alt = f"Map of {len(array)} positions by {array.shape[1]} target tokens. {finding}"
    return Drawing(drawn(draw, "leak", alt, height=3.9), finding, how)


def by_depth(depth: Mapping[str, Any]) -> Drawing:
    """Sizes of activations and gradients, layer by layer, on a logarithmic axis."""
    names = [plain(name) for name in depth["names"]]
    names = [name if len(name) <= 28 else f"…{name[-27:]}" for name in names]
    series = {
        name: finite(depth[name])
        for name in ("activations", "gradients")
        if len(depth.get(name, ())) == len(names)
    }
    if not series:
        raise ValueError("no sizes")
    finding = " ".join(filter(None, (range_of(*item) for item in series.items())))
    how = (
        "Root mean square of each layer's output, and norm of its gradient, on a "
        "logarithmic axis. Straight lines, more or less, are healthy."
    )

    def draw(axes: Any) -> None:
        places = np.arange(len(names))
        for marker, (name, values) in zip("os", series.items(), strict=False):
            shown = np.where(values > 0, values, np.nan)
            axes.plot(shown, places, marker=marker, label=name)
        every = np.concatenate(list(series.values()))
        decades = np.log10(every[every > 0]) if (every > 0).any() else np.zeros(1)
        axes.set_xscale("log")
        low, high = np.floor(decades.min()), np.ceil(decades.max() + 1e-9)
        axes.set_xlim(10**low / 1.2, 10**high * 1.2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.set_yticks(places, names)
        axes.set(xlabel="size (log)", ylim=(len(names) - 0.5, -0.5))
        axes.figure.legend(loc="outside upper right", ncols=2)

    height = min(1.6 + 0.3 * len(names), 40)
    alt = f"Sizes in {len(names)} layers. {finding}"
    return Drawing(drawn(draw, "depth", alt, height=height), finding, how)


def range_of(name: str, values: np.ndarray) -> str:
    """From where to where a series of sizes goes."""
    shown = values[values > 0]
    lost = len(values) - len(shown)
    words = f"{lost} of {len(values)} {name} are zero or not finite." if lost else ""
    if not len(shown):
        return words
    low, high = shown.min(), shown.max()
    span = f"{name.capitalize()} go from {low:.2g} to {high:.2g}, a factor of "
    ratio = high / low
    return f"{span}{ratio:{',.0f' if ratio >= 100 else '.3g'}}. {words}".strip()


def one_batch(losses: Sequence[float], facts: Mapping[str, Any]) -> Drawing:
    """The loss while one batch is learned by heart."""
    curve = finite(losses)
    known = curve[np.isfinite(curve)]
    if not len(known):
        raise ValueError("no losses")
    finding = (
        f"In {len(curve) - 1} steps on one batch, the loss goes from {known[0]:.2f} "
        f"to {known[-1]:.2f} nats a token."
    )
    lines = dict(levels(facts))
    how = "A model that works learns four sentences by heart."
    if lines:
        how += f" Dashed: {', '.join(f'{n} ({v:.2f})' for n, v in lines.items())}."

    def draw(axes: Any) -> None:
        axes.plot(curve)
        for name, level in lines.items():
            axes.axhline(level, linestyle="--", color="#555555", linewidth=1.2)
            high = level > curve[-1] + 0.5  # the curve is below, at the right
            axes.annotate(
                name,
                (1 if high else 0, level),
                xycoords=("axes fraction", "data"),
                xytext=(-2 if high else 2, 3),
                textcoords="offset points",
                ha="right" if high else "left",
            )
        axes.set(xlabel="step", ylabel="loss (nats per token)", ylim=(0, None))

    return Drawing(drawn(draw, "batch", finding), finding, how)


def levels(facts: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """What to compare the loss with: a blind guess, and the least that is possible."""
    size, floor = facts.get("vocab_size"), facts.get("floor")
    if isinstance(size, int) and size > 1:
        yield "ln V, a blind guess", math.log(size)
    if isinstance(floor, int | float) and math.isfinite(floor):
        yield "the floor", float(floor)
