"""The map of the code: Figure 1 of the paper, drawn with our names, to click on."""

from tools.book.course import LESSONS, Course

WIDTH, BOX = 300, 58  # of the model's boxes
NARROW = 272  # the width of the boxes below the model
LEFT, RIGHT = 40, 500  # where the encoder's and the decoder's boxes begin
BELOW, ROW = 930, 66  # where the columns below the model begin, and a row's height

# text, chapter, module, x, y, kind
Box = tuple[str, str, str, int, int, str]
MODEL: list[Box] = [
    ("Scores for every word", "08", "transformer", RIGHT, 60, "out"),
    ("Residual and norm", "07", "layers", RIGHT, 176, "norm"),
    ("Feed-forward", "05", "layers", RIGHT, 238, "feed"),
    ("Residual and norm", "07", "layers", RIGHT, 336, "norm"),
    ("Cross-attention", "04", "attention", RIGHT, 398, "attention"),
    ("Residual and norm", "07", "layers", RIGHT, 496, "norm"),
    ("Masked self-attention", "03", "masks", RIGHT, 558, "attention"),
    ("Positions", "06", "layers", RIGHT, 690, "embed"),
    ("Embeddings", "05", "layers", RIGHT, 752, "embed"),
    ("Residual and norm", "07", "layers", LEFT, 336, "norm"),
    ("Feed-forward", "05", "layers", LEFT, 398, "feed"),
    ("Residual and norm", "07", "layers", LEFT, 496, "norm"),
    ("Self-attention", "02", "attention", LEFT, 558, "attention"),
    ("Positions", "06", "layers", LEFT, 690, "embed"),
    ("Embeddings", "05", "layers", LEFT, 752, "embed"),
]
AROUND: list[tuple[str, list[tuple[str, str, str]]]] = [
    (
        "What feeds it",
        [
            ("Text, in one form", "13", "text"),
            ("Text to ids", "13", "tokenizers"),
            ("Special tokens", "03", "special"),
            ("Batches", "09", "batches"),
            ("The built-in corpus", "00", "grammar"),
            ("Trees of the grammar", "19", "constituents"),
            ("Real captions", "14", "corpora"),
            ("The copy task", "12", "copy_task"),
            ("Sizes and presets", "08", "config"),
            ("Settings, checked", "08", "settings"),
            ("Files, all or nothing", "09", "files"),
        ],
    ),
    (
        "What trains it",
        [
            ("Loss, label smoothing", "11", "loss"),
            ("Objectives", "11", "objectives"),
            ("BLEU as the goal", "16", "risk"),
            ("The loop", "09", "training"),
            ("Learning rate", "10", "schedule"),
            ("Other optimizers", "19", "optimizers"),
            ("Checkpoints, averages", "09", "checkpoints"),
            ("History, best weights", "09", "progress"),
            ("Many processes", "09", "processes"),
            ("One gradient", "20", "parallel"),
            ("A ladder of speed", "20", "ladder"),
            ("Operations, seconds", "20", "speed"),
            ("Recipes", "14", "recipes"),
            ("A run, end to end", "14", "runs"),
            ("Fast paths", "20", "devices"),
        ],
    ),
    (
        "What uses it",
        [
            ("Decoding", "15", "decoding"),
            ("The cache", "15", "cache"),
            ("Later layers", "19", "variations"),
            ("One stack alone", "21", "families"),
            ("Eight bits", "22", "quantization"),
            ("Pruned heads", "22", "pruning"),
            ("Attention maps", "04", "recording"),
            ("Text in, text out", "00", "translator"),
            ("Lines of sentences", "00", "lines"),
            ("Scores", "16", "scores"),
            ("Figures", "02", "plots"),
            ("The paper's figures", "00", "pictures"),
            ("Claims, small models", "01", "lessons"),
            ("The command line", "00", "cli"),
            ("The terminal", "00", "terminal"),
            ("Errors", "00", "errors"),
        ],
    ),
]


def box(
    course: Course, text: str, number: str, module: str, x: int, y: int, width: int
) -> str:
    """A box's text: the title links to the chapter, the file name to the module."""
    chapter = course.chapter(number)
    place = f"chapter {number}" + ("" if chapter else ", planned")
    title = (
        f'<text x="{x + 14}" y="{y + 25}" class="title">{text}</text>'
        f'<text x="{x + 14}" y="{y + 45}" class="place">{place}</text>'
    )
    if chapter:
        title = f'<a href="../{chapter.doc}.html">{title}</a>'
    name = f"{module}/" if module == LESSONS else f"{module}.py"
    file = f'<text x="{x + width - 14}" y="{y + 45}" class="file">{name}</text>'
    return f'{title}<a href="../api/{module}.html">{file}</a>'


def arrow(*points: tuple[int, int]) -> str:
    """An arrow that runs from point to point."""
    path = "M" + " L".join(f"{x} {y}" for x, y in points)
    return f'<path class="arrow" d="{path}" marker-end="url(#head)"/>'


def stacks() -> list[str]:
    """The frames around the layers of the encoder and of the decoder."""
    shapes = []
    for x, y, height, name in (
        (LEFT, 314, 324, "encoder layer, N times"),
        (RIGHT, 154, 484, "decoder layer, N times"),
    ):
        shapes.append(
            f'<rect class="stack" x="{x - 20}" y="{y}" width="{WIDTH + 40}" '
            f'height="{height}" rx="16"/>'
        )
        side = x - 8
        shapes.append(f'<text class="stack-name" x="{side}" y="{y - 8}">{name}</text>')
    return shapes


def model_boxes(course: Course) -> list[str]:
    """The parts of the model."""
    return [
        f'<rect class="box {kind}" x="{x}" y="{y}" width="{WIDTH}" '
        f'height="{BOX}" rx="8"/>' + box(course, text, number, module, x, y, WIDTH)
        for text, number, module, x, y, kind in MODEL
    ]


def flow() -> list[str]:
    """The arrows between the parts of the model, and what flows in and out."""
    left, right = LEFT + WIDTH // 2, RIGHT + WIDTH // 2
    rises = [(848, 812), (690, 640), (496, 458)]  # between the pairs of boxes
    shapes = [arrow((left, start), (left, end)) for start, end in rises]
    rises += [(336, 298), (152, 120)]
    shapes += [arrow((right, start), (right, end)) for start, end in rises]
    shapes.append(arrow((left, 314), (left, 280), (420, 280), (420, 427), (498, 427)))
    shapes.append('<text class="flow" x="370" y="270">memory</text>')
    shapes.append(f'<text class="flow" x="{left}" y="866">German ids</text>')
    shapes.append(f'<text class="flow" x="{right}" y="866">English ids so far</text>')
    shapes.append(f'<text class="flow" x="{right}" y="42">the next English id</text>')
    shapes.append(arrow((right, 60), (right, 50)))
    return shapes


def columns_below(course: Course) -> list[str]:
    """The modules around the model, in columns below it."""
    shapes = []
    for column, (name, entries) in enumerate(AROUND):
        x = 8 + column * 283
        shapes.append(f'<text class="group" x="{x}" y="{BELOW - 15}">{name}</text>')
        for i, (text, number, module) in enumerate(entries):
            y = BELOW + i * ROW
            shapes.append(
                f'<rect class="box plain" x="{x}" y="{y}" '
                f'width="{NARROW}" height="{BOX}" rx="8"/>'
                + box(course, text, number, module, x, y, NARROW)
            )
    return shapes


def code_map(course: Course) -> str:
    """The picture as SVG, its colors left to the page's style."""
    described = (
        "Map of the model's code. Left, the encoder: embeddings, positions, layers of "
        "self-attention and feed-forward, each with a residual and a norm. Right, the "
        "decoder: the same with masked self-attention, and cross-attention that reads "
        "the encoder's memory. Every box links to a chapter and to a module."
    )
    height = BELOW + ROW * max(len(entries) for _, entries in AROUND) + 14
    shapes = [*stacks(), *model_boxes(course), *flow(), *columns_below(course)]
    return (
        f'<figure class="code-map"><svg viewBox="0 0 860 {height}" role="group" '
        f'aria-label="{described}"><defs>'
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z"/></marker>'
        f"</defs>{''.join(shapes)}</svg></figure>"
    )
