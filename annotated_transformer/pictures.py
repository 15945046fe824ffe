"""The paper's Figures 1 and 2, drawn with our names, live numbers and real shapes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from annotated_transformer.attention import MultiHeadAttention, attention
from annotated_transformer.config import TransformerConfig
from annotated_transformer.devices import other_attention
from annotated_transformer.errors import InputError
from annotated_transformer.plots import BLUES, panels
from annotated_transformer.transformer import Transformer

MIDDLE = {"ha": "center", "va": "center"}
BLUE, INK, PALE, LINE = "#0173b2", "#333333", "#595959", "#8c8c8c"


class Look(NamedTuple):
    """How a box is drawn: its fill, its edge, its text, and the edge's width."""

    face: str
    edge: str
    text: str
    width: float
    dashes: str = "-"


LIT = Look(BLUE, BLUE, "white", 1.4)
BUILT = Look(BLUES[2], BLUE, INK, 0.9)
LATER = Look("white", LINE, PALE, 0.8)


@dataclass(frozen=True)
class Box:
    """A rectangle: its center, its size, its text, and a shorter one for thumbnails."""

    x: float
    y: float
    width: float
    height: float
    text: str = ""
    short: str = ""

    def scaled(self, x: float, y: float) -> "Box":
        """The same box on a sheet whose units are x and y times as small."""
        size = self.width * x, self.height * y
        return Box(self.x * x, self.y * y, *size, self.text, self.short)


# --- Figure 1 ---

FIELD = 264, 370  # what the boxes of Figure 1 are measured in
LEFT, RIGHT = 57, 182  # the middle of the encoder's and of the decoder's boxes
ATTENTIONS = {
    "self-attention": Box(LEFT, 116, 84, 24, "self-attention", "self-\nattention"),
    "masked self-attention": Box(
        RIGHT, 116, 84, 24, "masked self-attention", "masked self-\nattention"
    ),
    "cross-attention": Box(RIGHT, 179, 84, 24, "cross-attention", "cross-\nattention"),
}

# The parts of Figure 1, from the back of the picture to its front, and where they are.
# "heads" are the sheets behind each attention; the last four stand around the model.
PARTS: dict[str, tuple[Box, ...]] = {
    "encoder": (Box(56, 152, 104, 118),),
    "decoder": (Box(183, 183.5, 106, 181),),
    "heads": tuple(
        replace(box, x=box.x + shift, y=box.y + shift, text="", short="")
        for shift in (5, 2.5)
        for box in ATTENTIONS.values()
    ),
    **{name: (box,) for name, box in ATTENTIONS.items()},
    "embeddings": tuple(Box(x, 50, 84, 18, "embeddings") for x in (LEFT, RIGHT)),
    "positions": tuple(Box(x, 75, 84, 18, "+ positions") for x in (LEFT, RIGHT)),
    "feed-forward": (
        Box(LEFT, 176, 84, 18, "feed-forward"),
        Box(RIGHT, 239, 84, 18, "feed-forward"),
    ),
    "norms": tuple(
        Box(x, y, 84, 14, "residual + norm")
        for x, y in ((LEFT, 146), (LEFT, 198), (RIGHT, 146), (RIGHT, 209), (RIGHT, 261))
    ),
    "memory": (Box(LEFT, 231, 60, 14, "memory"),),
    "output layer": (Box(RIGHT, 296, 84, 16, "output layer"),),
    "softmax": (Box(RIGHT, 320, 84, 16, "softmax"),),
    "text": (Box(131, 13, 254, 18, "text and batches"),),
    "loss": (Box(63, 353, 118, 18, "loss and optimizer"),),
    "decoding": (Box(250, 219, 16, 218, "decoding"),),
    "scores": (Box(199, 353, 118, 18, "scores and averages"),),
}
AROUND = ("text", "loss", "decoding", "scores")
BETWEEN = ("memory", "cross-attention")  # what one stack alone does without
ATTENTION = tuple(ATTENTIONS)

# What each chapter adds to the picture.
CHAPTERS: dict[int, tuple[str, ...]] = {
    1: ("encoder", "memory", "decoder"),
    2: ATTENTION,
    3: ("masked self-attention",),
    4: ("heads", *ATTENTION),
    5: ("embeddings", "feed-forward", "output layer", "softmax"),
    6: ("positions",),
    7: ("norms",),
    8: tuple(name for name in PARTS if name not in AROUND),
    9: ("text", "loss"),
    10: ("loss",),
    11: ("loss",),
    12: ("text", "loss", "decoding"),
    13: ("text",),
    14: ("text", "loss", "decoding", "scores"),
    15: ("decoding",),
    16: ("scores",),
    17: ("heads", *ATTENTION),
    18: tuple(PARTS),
    19: tuple(PARTS),
    20: tuple(PARTS),
    21: tuple(name for name in PARTS if name not in (*AROUND, *BETWEEN)),
    22: tuple(PARTS),
}

Line = Sequence[tuple[float, float]]


def rising(x: float, *spans: tuple[float, float]) -> list[Line]:
    """Arrows straight up, each from one height to another."""
    return [((x, start), (x, end)) for start, end in spans]


def beside(x: float, start: float, side: float, norm: float, edge: float) -> Line:
    """A skip connection: out of the stream, past a sublayer, and into its norm."""
    return (x, start), (side, start), (side, norm), (edge, norm)


# The lines of Figure 1: those of no part, then each part's own.
ARROWS: dict[str, list[Line]] = {
    "": [
        *rising(LEFT, (59, 66), (84, 104), (133, 139), (153, 167), (185, 191)),
        *rising(LEFT, (205, 224)),
        *rising(RIGHT, (59, 66), (84, 104), (133, 139), (153, 167), (196, 202)),
        *rising(RIGHT, (216, 230), (248, 254), (268, 288), (304, 312)),
    ],
    "norms": [
        beside(LEFT, 98, 9, 146, 15),
        beside(LEFT, 159, 9, 198, 15),
        beside(RIGHT, 98, 231, 146, 224),
        beside(RIGHT, 159, 231, 209, 224),
        beside(RIGHT, 222, 231, 261, 224),
    ],
    "text": [*rising(LEFT, (22, 41)), *rising(RIGHT, (22, 41))],
    "memory": [((87, 231), (119, 231), (119, 179), (140, 179))],
    "loss": [((140, 320), (63, 320), (63, 344))],
    "decoding": [((224, 320), (242, 320)), ((250, 110), (250, 32), (183, 32))],
    "scores": [((250, 328), (250, 344))],
}
LABELS = [  # x, y, text, shorter text
    (30, 217.5, "encoder layers", "encoder"),
    (72, 217.5, "N ×", "N ×"),
    (154, 281, "decoder layers", "decoder"),
    (197, 281, "N ×", "N ×"),
    (32, 31.5, "source ids", "source"),
    (155, 31.5, "target ids so far", "target"),
    (102, 328, "probabilities", "probabilities"),
]
KEY = [("this chapter", LIT), ("earlier", BUILT), ("later", LATER)]


def sheet(width: float, height: float) -> tuple[Any, Any]:
    """An empty figure and its axes, in inches; the axes fill it and count in points."""
    figure, axes = panels(width=width, height=height)
    figure.set_layout_engine("none")
    axes.set_position((0, 0, 1, 1))
    axes.set(xlim=(0, 72 * width), ylim=(0, 72 * height))
    axes.axis("off")
    return figure, axes


def draw_box(axes: Any, box: Box, look: Look, size: float, **options: Any) -> None:
    """A rounded rectangle with its text in the middle, `size` points high."""
    from matplotlib.patches import FancyBboxPatch

    corner = box.x - box.width / 2, box.y - box.height / 2
    patch = FancyBboxPatch(
        corner,
        box.width,
        box.height,
        boxstyle="round,pad=0,rounding_size=2.5",
        facecolor=look.face,
        edgecolor=look.edge,
        linewidth=look.width,
        linestyle=look.dashes,
    )
    axes.add_patch(patch)
    if box.text:
        options = {"ha": "center", "va": "center", "linespacing": 1} | options
        axes.text(box.x, box.y, box.text, size=size, color=look.text, **options)


def draw_arrow(
    axes: Any, points: Line, color: str = LINE, width: float = 0.9, head: float = 8
) -> None:
    """A line from point to point that ends in an arrowhead."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    axes.add_patch(
        FancyArrowPatch(
            path=Path(list(points)),
            arrowstyle="-|>",
            mutation_scale=head,
            color=color,
            linewidth=width,
            joinstyle="miter",
            capstyle="butt",
        )
    )


def figure_1(
    lit: Iterable[str] = (), built: Iterable[str] = (), *, small: bool = False
) -> Any:
    """Figure 1 of the paper, some of its `PARTS` lit and others lightly filled.

    `lit` are today's parts, `built` those met before, and the rest are outlines. Dashed
    boxes stand around the model. `small` is a thumbnail. Returns a Matplotlib figure.

    Raises InputError for a name that is not in `PARTS`.
    """
    lit, built = known(lit), known(built)
    width, height = (2.64, 3.7) if small else (7, 7.4)
    size = 6.5 if small else 10
    figure, axes = sheet(width, height)
    scale = 72 * width / FIELD[0], 72 * height / FIELD[1]

    def look(name: str) -> Look:
        if name in lit or name in built:
            return LIT if name in lit else BUILT
        return LATER._replace(dashes="--") if name in AROUND else LATER

    for name, boxes in PARTS.items():
        for box in boxes:
            draw_part(axes, name, box.scaled(*scale), look(name), size, small)
    for name, lines in ARROWS.items():
        bold = name in lit
        color = BLUE if bold or name in built else LINE
        for line in lines:
            points = [(x * scale[0], y * scale[1]) for x, y in line]
            draw_arrow(axes, points, color, 1.6 if bold else 0.9, 5 if small else 9)
    for x, y, long, short in LABELS:
        at = {"x": x * scale[0], "y": y * scale[1]}
        text = short if small else long
        axes.text(**at, s=text, size=size, color=INK, ha="center", va="center")
    if lit | built:
        draw_key(axes, {look(name) for name in PARTS}, scale, size)
    return figure


def draw_key(axes: Any, used: set[Look], scale: tuple, size: float) -> None:
    """What the fillings of Figure 1 mean, in its free corner."""
    faces = {look.face for look in used}
    key = [(text, look) for text, look in KEY if look.face in faces]
    for i, (text, look) in enumerate(key):
        box = Box(16, 300 - 13 * i, 12, 8).scaled(*scale)
        draw_box(axes, box, look, size)
        x = box.x + box.width
        axes.text(x, box.y, text, size=size, color=INK, va="center")


def known(names: Iterable[str]) -> set[str]:
    """The names of parts, after checking that there are such parts."""
    chosen = {names} if isinstance(names, str) else set(names)
    for name in sorted(chosen - set(PARTS)):
        raise InputError(
            f"Figure 1 has no part {name!r}: choose from {', '.join(PARTS)}"
        )
    return chosen


def draw_part(
    axes: Any, name: str, box: Box, look: Look, size: float, small: bool
) -> None:
    """One box of Figure 1; a frame stays pale, so that its inside can be read."""
    if look is LIT and (name == "heads" or name in ATTENTIONS):
        look = look._replace(edge=BLUES[2], width=0.7)  # else they look like one
    if name in ("encoder", "decoder"):
        face = "white" if look is LATER else BLUES[0]
        look = look._replace(face=face, width=2 * look.width if look is LIT else 0.9)
    text = box.short if small and box.short else box.text
    rotation = 90 if box.height > box.width and box.text else 0
    draw_box(axes, replace(box, text=text), look, size, rotation=rotation)


def progress(chapter: int, *, small: bool = True) -> Any:
    """Figure 1 as it stands in a chapter: its parts lit, those of earlier ones filled.

    Raises InputError for a chapter that is not in `CHAPTERS`.
    """
    if chapter not in CHAPTERS:
        raise InputError(
            f"chapter {chapter} has no part in Figure 1: choose one from "
            f"{min(CHAPTERS)} to {max(CHAPTERS)}"
        )
    built = {name for n, parts in CHAPTERS.items() if n < chapter for name in parts}
    return figure_1(CHAPTERS[chapter], built, small=small)


# --- Figure 2, left: one attention, its numbers ---

CELL = 34, 15  # of a printed matrix, in points
MOST = 6  # rows and columns that a printed matrix may have
BELOW, ABOVE = BLUES[4], "#f4a582"  # zero


def attention_steps(
    query: Float[Tensor, "query d_k"],
    key: Float[Tensor, "key d_k"],
    value: Float[Tensor, "key d_v"],
    mask: Bool[Tensor, "query key"] | None = None,
) -> dict[str, Tensor]:
    """What leaves each box of Figure 2 (left), by the operations of `attention`.

    The keys are "scores", "scaled", "masked" (if there is a mask), "weights", "output".
    """
    scores = query @ key.mT
    steps = {"scores": scores, "scaled": scores / query.size(-1) ** 0.5}
    if mask is not None:
        steps["masked"] = steps["scaled"].masked_fill(~mask, -torch.inf)
    output, weights = attention(query, key, value, mask)
    return steps | {"weights": weights, "output": output}


def figure_2_left(
    query: Float[Tensor, "query d_k"],
    key: Float[Tensor, "key d_k"],
    value: Float[Tensor, "key d_v"],
    mask: Bool[Tensor, "query key"] | None = None,
) -> Any:
    """Scaled dot-product attention as in Figure 2 (left), beside each box its matrix.

    Bottom to top, as in the paper; without a mask, its box is an outline. Blue is below
    zero and red above, on one scale for Q and K, for all scores, and for V and the
    output; weights are blue. Returns a Matplotlib figure.

    Raises InputError for matrices too large to print.
    """
    inputs = {"Q": query, "K": key, "V": value}
    for name, matrix in inputs.items():
        if matrix.dim() != 2 or max(matrix.shape) > MOST:
            raise InputError(
                f"{name} has the shape {tuple(matrix.shape)}: give a matrix of at most "
                f"{MOST} rows and {MOST} columns, so that its numbers can be read"
            )
    steps = attention_steps(query, key, value, mask)
    wide = [CELL[0] * matrix.size(1) for matrix in inputs.values()]
    # Matrices end at `edge`, and the boxes stand right of it, at `middle`.
    edge = max(24.0 + CELL[0] * max(key.size(0), value.size(1)), 160.0)
    edge = max(edge, wide[0] + wide[1] / 2 - 60)
    middle = edge + 84
    base = 60 + CELL[1] * max(query.size(0), key.size(0))  # above the inputs
    pitch = max(30 + CELL[1] * query.size(0), 50)
    right = middle + 44 + wide[1] / 2 + wide[2]
    figure, axes = sheet((right + 20) / 72, (base + 5 * pitch) / 72)
    centers = [base + pitch * (i + 0.5) - 8 for i in range(5)]
    draw_inputs(axes, inputs, middle, base, centers)
    draw_steps(axes, steps, inputs, edge, middle, centers)
    return figure


def draw_inputs(
    axes: Any, inputs: dict[str, Tensor], middle: float, base: float, centers: list
) -> None:
    """Q, K and V at the bottom of Figure 2 (left), and their ways to the products."""
    names = {"Q": "$Q$, queries", "K": "$K$, keys", "V": "$V$, values"}
    scores = max(float(inputs[name].abs().max()) for name in "QK")
    limits = {"Q": scores, "K": scores, "V": float(inputs["V"].abs().max())}
    wide = {name: CELL[0] * matrix.size(1) for name, matrix in inputs.items()}
    x = {"K": middle + 20}
    x["Q"] = x["K"] - wide["K"] / 2 - 24 - wide["Q"] / 2
    x["V"] = x["K"] + wide["K"] / 2 + 24 + wide["V"] / 2
    top, first = base - 34, centers[0] - 14
    for name, matrix in inputs.items():
        draw_matrix(axes, matrix, x[name] + wide[name] / 2, top, limits[name])
        y = top - CELL[1] * matrix.size(0) - 9
        axes.text(x[name], y, names[name], size=9, color=INK, ha="center", va="center")
    ways: list[Line] = [
        (
            (x["Q"], top),
            (x["Q"], top + 12),
            (middle - 20, top + 12),
            (middle - 20, first),
        ),
        ((x["K"], top), (x["K"], first)),
        ((x["V"], top), (x["V"], centers[4]), (middle + 46, centers[4])),
    ]
    for way in ways:
        draw_arrow(axes, way)


def draw_steps(
    axes: Any,
    steps: dict[str, Tensor],
    inputs: dict[str, Tensor],
    edge: float,
    middle: float,
    centers: list,
) -> None:
    """The boxes of Figure 2 (left) from bottom to top, and what leaves each."""
    root = inputs["Q"].size(1) ** 0.5
    boxes = {
        "scores": ("MatMul", "scores $QK^{\\top}$"),
        "scaled": ("Scale", f"divided by $\\sqrt{{d_k}}$ = {root:.3g}"),
        "masked": ("Mask (opt.)", "masked"),
        "weights": ("SoftMax", "weights"),
        "output": ("MatMul", "output: weights times $V$"),
    }
    score, value = (float(m.abs().max()) for m in (steps["scores"], inputs["V"]))
    limits = dict.fromkeys(("scores", "scaled", "masked"), score) | {"output": value}
    for (name, (box, label)), y in zip(boxes.items(), centers, strict=True):
        used = name in steps
        look = BUILT if used else LATER._replace(dashes="--")
        draw_box(axes, Box(middle, y, 92, 28, box), look, 10)
        if y != centers[-1]:
            end = y - 14 + centers[1] - centers[0]
            draw_arrow(axes, ((middle, y + 14), (middle, end)))
        if not used:
            axes.text(edge, y, "no mask", size=9, color=PALE, ha="right", va="center")
            continue
        height = CELL[1] * steps[name].size(0)
        draw_arrow(axes, ((middle - 46, y), (edge + 2, y)))
        draw_matrix(axes, steps[name], edge, y + height / 2, limits.get(name))
        at = {"x": edge, "y": y + height / 2 + 9}
        axes.text(**at, s=label, size=9, color=INK, ha="right", va="center")


def draw_matrix(
    axes: Any, matrix: Tensor, right: float, top: float, limit: float | None
) -> None:
    """Numbers in colored cells; without a limit they are weights, from 0 to 1."""
    from matplotlib.patches import Rectangle

    width, height = CELL
    left = right - width * matrix.size(1)
    for i, row in enumerate(matrix.tolist()):
        for j, number in enumerate(row):
            color = shade(number, limit)
            x, y = left + j * width, top - (i + 1) * height
            axes.add_patch(Rectangle((x, y), width, height, fc=color, ec="white"))
            center = x + width / 2, y + height / 2
            axes.text(*center, printed(number), size=8.5, color=INK, **MIDDLE)
    corner, size = (left, top - height * matrix.size(0)), matrix.size(0) * height
    frame = Rectangle(corner, right - left, size, fill=False, ec=LINE, lw=0.6)
    axes.add_patch(frame)


def shade(number: float, limit: float | None) -> Any:
    """The color of a cell: white for zero, full at the limit; gray for -infinity."""
    if number == -torch.inf:
        return "#e4e4e4"
    full = BELOW if limit is None or number < 0 else ABOVE
    strength = abs(number) / (limit or 1)
    return [1 - strength * (1 - int(full[i : i + 2], 16) / 255) for i in (1, 3, 5)]


def printed(number: float) -> str:
    """A number with two digits after the point; a large one has none, and fits."""
    form = ".2f" if abs(number) < 100 else ".0f" if abs(number) < 1e5 else ".0e"
    text = "0.00" if f"{number:.2f}" == "-0.00" else format(number, form)
    return text.replace("-inf", "−∞").replace("-", "−")


# --- Figure 2, right: several heads, their shapes ---


def head_shapes(
    batch: int, length: int, d_model: int, n_heads: int
) -> list[tuple[str, tuple[int, ...]]]:
    """The shapes on the way through `MultiHeadAttention`, in symbols and in numbers.

    They are those of its own tensors, which have shapes here but no values.
    Raises InputError if the heads cannot be equally wide.
    """
    with torch.device("meta"):
        layer = MultiHeadAttention(d_model, n_heads)
        x = torch.empty(batch, length, d_model)
    projected = layer.query_key_value(x).split(layer.sizes, -1)[0]
    query, key, value = layer.project(x)
    heads, weights = attention(query, key, value)
    tensors = {
        "(b, L, d)": x,
        "(b, L, h·d_k)": projected,
        "(b, L, h, d_k)": projected.unflatten(-1, (n_heads, -1)),
        "(b, h, L, d_k)": query,
        "(b, h, L, L)": weights,
        "(b, h, L, d_v)": heads,
        "(b, L, h·d_v)": heads.transpose(1, 2).flatten(-2),
    }
    shapes = [(symbols, tuple(tensor.shape)) for symbols, tensor in tensors.items()]
    return [*shapes, ("(b, L, d)", tuple(layer.join_heads(heads).shape))]


COLUMNS = {"V": 60, "K": 130, "Q": 200}  # where Figure 2 (right) has them

# The boxes of Figure 2 (right), from bottom to top.
HEADS = [
    *(Box(x, 78, 58, 32, f"Linear\n$W^{name}$") for name, x in COLUMNS.items()),
    Box(130, 138, 198, 32, "cut the width into heads\nx.unflatten(-1, (h, d_k))"),
    Box(130, 198, 198, 32, "heads before positions\nx.transpose(1, 2)"),
    Box(166, 270, 126, 32, "MatMul, scale,\nmask, softmax"),
    Box(130, 332, 198, 32, "MatMul: weights times $V$"),
    Box(130, 412, 198, 32, "concatenate the heads\nx.transpose(1, 2).flatten(-2)"),
    Box(130, 472, 198, 32, "Linear\n$W^O$"),
]
# The arrows, each with the columns it is drawn in, and where it starts and ends.
RISES = [
    ((60, 130, 200), 36, 62),
    ((60, 130, 200), 94, 122),
    ((60, 130, 200), 154, 182),
    ((130, 200), 214, 254),
    ((166,), 286, 316),
    ((130,), 348, 396),
    ((130,), 428, 456),
    ((130,), 488, 516),
]


def figure_2_right(batch: int, length: int, d_model: int, n_heads: int) -> Any:
    """Multi-head attention as in Figure 2 (right), the shape beside each arrow.

    Bottom to top, for self-attention: values, keys and queries all come from x. The
    sheets are the heads. Returns a Matplotlib figure.

    Raises InputError if the heads cannot be equally wide.
    """
    shapes = head_shapes(batch, length, d_model, n_heads)
    figure, axes = sheet(7, 7.75)
    for shift in (8, 4, 0):
        frame = Box(130 + shift, 306 + shift, 222, 124)
        draw_box(axes, frame, LATER._replace(face=BLUES[0], edge=BLUE), 9)
    for box in HEADS:
        draw_box(axes, box, BUILT, 9, linespacing=1.25)
    axes.text(206, 358, f"{n_heads} heads", size=9, color=INK, **MIDDLE)
    for name, x in COLUMNS.items():
        axes.text(x, 26, f"${name}$", size=11, color=INK, **MIDDLE)
    draw_arrow(axes, ((60, 214), (60, 316)))
    for (columns, start, end), shape in zip(RISES, shapes, strict=True):
        for x in columns:
            draw_arrow(axes, ((x, start), (x, end)))
        y = (start + end) / 2 + (7 if end == 396 else -7 if end == 254 else 0)
        axes.plot((max(columns) + 6, 284), (y, y), ":", color=LINE, lw=0.8)
        for x, text, color in zip((290, 400), shape, (INK, BLUE), strict=True):
            axes.text(x, y, str(text), size=10.5, color=color, va="center")
    sizes = f"b = {batch}, L = {length},\nd = {d_model}, h = {n_heads}"
    axes.text(290, 534, "shape", size=9, color=PALE, va="center")
    axes.text(400, 534, sizes, size=9, color=PALE, va="center")
    return figure


# --- The shapes of the whole model ---

Step = tuple[str, str, str]  # what happens, the name in the code, the shape that leaves


def attention_rows(name: str, query: str, key: str) -> list[Step]:
    """What happens in an attention, of `query` positions that look at `key` ones."""
    return [
        ("queries, by head", f"{name}.query", f"(b, h, {query}, d_k)"),
        ("keys, by head", f"{name}.key", f"(b, h, {key}, d_k)"),
        ("weights", f"{name}.weights", f"(b, h, {query}, {key})"),
        ("averaged values", f"{name}.heads", f"(b, h, {query}, d_v)"),
        ("heads joined", name, f"(b, {query}, d)"),
    ]


def layer_rows(attentions: list[list[Step]], length: str) -> list[Step]:
    """The rows of a layer: its attentions, feed-forward, and a residual after each."""
    feed_forward = [
        ("widened", "feed_forward.widen", f"(b, {length}, d_ff)"),
        ("narrowed", "feed_forward", f"(b, {length}, d)"),
    ]
    return [
        row
        for i, rows in enumerate([*attentions, feed_forward])
        for row in (*rows, ("residual + norm", f"residuals.{i}", f"(b, {length}, d)"))
    ]


def input_rows(side: str, length: str) -> list[Step]:
    """The rows from the ids of one language to what its first layer gets."""
    return [
        ("token ids", side, f"(b, {length})"),
        ("embeddings", f"{side}_embeddings", f"(b, {length}, d)"),
        ("+ positions", "positions", f"(b, {length}, d)"),
    ]


# Title, what stands before the names of its modules, rows.
BLOCKS: list[tuple[str, str, list[Step]]] = [
    ("Source", "", input_rows("src", "S")),
    (
        "Encoder layer",
        "encoder.layers.0.",
        layer_rows([attention_rows("self_attention", "S", "S")], "S"),
    ),
    ("Memory", "", [("after the last layer", "encoder", "(b, S, d)")]),
    ("Target so far", "", input_rows("tgt", "T")),
    (
        "Decoder layer",
        "decoder.layers.0.",
        layer_rows(
            [
                attention_rows("self_attention", "T", "T"),
                attention_rows("cross_attention", "T", "S"),
            ],
            "T",
        ),
    ),
    (
        "Output",
        "",
        [
            ("after the last layer", "decoder", "(b, T, d)"),
            ("a score for each token", "logits", "(b, T, V)"),
        ],
    ),
]


def shapes_of_a_run(
    config: TransformerConfig, batch: int, src: int, tgt: int
) -> dict[str, list[tuple[int, ...]]]:
    """The shapes that leave each module in one pass of a model, in order of its calls.

    Modules have their names in the model; the inside of an attention is its name with
    ".query", ".key", ".weights" or ".heads". The tensors have shapes, but no values.
    """
    shapes: dict[str, list[tuple[int, ...]]] = {}

    def note(name: str, tensor: Tensor) -> Tensor:
        shapes.setdefault(name, []).append(tuple(tensor.shape))
        return tensor

    def noting(name: str) -> Any:
        def attend(query: Tensor, key: Tensor, *rest: Any, dropout: float) -> Tensor:
            note(f"{name}.query", query)
            note(f"{name}.key", key)
            heads, weights = attention(query, key, *rest, dropout=dropout)
            note(f"{name}.weights", weights)
            return note(f"{name}.heads", heads)

        return attend

    with torch.device("meta"):
        model = Transformer(config)
        ids = [torch.ones(batch, length, dtype=torch.long) for length in (src, tgt)]
    for name, module in model.named_modules(remove_duplicate=False):
        module.register_forward_hook(lambda *call, name=name: note(name, call[-1]))
    with torch.no_grad(), other_attention(model, noting):
        note("logits", model(note("src", ids[0]), note("tgt", ids[1])))
    return shapes


def shapes_card(
    config: TransformerConfig, *, batch: int = 2, src: int = 7, tgt: int = 5
) -> Any:
    """The shapes of the whole model on a page, from token ids to logits.

    Each row: what happens, its name in the code, and the shape that leaves it, in
    symbols and in numbers. Shapes with another last axis than d, or with heads, stand
    out. The numbers come from one pass of a model of these sizes. Returns a figure.
    """
    shapes = shapes_of_a_run(config, batch, src, tgt)
    count = sum(len(rows) for *_, rows in BLOCKS)
    row, gap, foot = 15.5, 9, 46
    height = count * row + len(BLOCKS) * gap + foot + 26
    figure, axes = sheet(7, height / 72)
    y = height - 16
    for x, text in zip(CARD, ("", "step", "in the code", "shape", ""), strict=True):
        axes.text(x, y, text, size=8.5, color=PALE, va="center")
    for title, prefix, rows in BLOCKS:
        y -= gap
        axes.plot((10, 494), (y - 4, y - 4), color=LINE, lw=0.8)
        draw_title(axes, title, prefix, y - row, config)
        for text, name, symbols in rows:
            y -= row
            calls = shapes[prefix + name]
            numbers = calls[0 if title == "Source" else -1]
            draw_row(axes, y, (text, name, symbols, str(numbers)))
    axes.plot((10, 494), (y - gap - 2, y - gap - 2), color=LINE, lw=0.8)
    note = sizes_in_words(config, batch, src, tgt)
    axes.text(10, y - 19, note, size=8.5, color=INK, va="top", linespacing=1.5)
    return figure


CARD = 10, 100, 214, 340, 412  # the left edges of the card's columns


def draw_title(
    axes: Any, title: str, prefix: str, y: float, config: TransformerConfig
) -> None:
    """The title of a block of the card, and how often its rows happen."""
    axes.text(CARD[0], y, title, size=9, color=INK, weight="bold", va="center")
    if prefix:
        times = f"N = {config.n_layers} times" if config.n_layers > 1 else "once"
        axes.text(CARD[0], y - 14, times, size=8.5, color=INK, va="center")


def draw_row(axes: Any, y: float, cells: tuple[str, str, str, str]) -> None:
    """A row of the card: step, name in the code, shape in symbols and in numbers."""
    usual = cells[2] in ("(b, S, d)", "(b, T, d)")
    colors = INK, INK, PALE if usual else BLUE, PALE if usual else BLUE
    for x, text, color in zip(CARD[1:], cells, colors, strict=True):
        font = "monospace" if text == cells[1] else None
        size = 8 if font else 9
        axes.text(x, y, text, size=size, color=color, va="center", family=font)


def sizes_in_words(config: TransformerConfig, batch: int, src: int, tgt: int) -> str:
    """The meaning of the card's symbols, with their values."""
    words = config.tgt_vocab_size or config.vocab_size
    return (
        f"b = {batch} sentences, S = {src} source tokens, T = {tgt} target tokens, "
        f"V = {words:,} tokens in the vocabulary,\n"
        f"d = d_model = {config.d_model}, h = {config.n_heads} heads, "
        f"d_k = {config.key_size}, d_v = {config.value_size}, d_ff = {config.d_ff:,}"
    )
