"""The colors of the pages, read from the style of the plots."""

import matplotlib

from annotated_transformer.plots import BLUES, STYLE


def palette() -> str:
    """CSS variables: --plot-0 to --plot-9, and the map's blues."""
    style = matplotlib.rc_params_from_file(STYLE, use_default_template=False)
    colors = style["axes.prop_cycle"].by_key()["color"]
    lines = [f"  --plot-{i}: #{color.lstrip('#')};" for i, color in enumerate(colors)]
    lines += [f"  --blue-{i}: {color};" for i, color in enumerate(BLUES)]
    return "/* From course.mplstyle. */\n:root {\n" + "\n".join(lines) + "\n}\n"
