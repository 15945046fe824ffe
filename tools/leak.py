"""Draw the picture of the doctor's page: what a later word changes, in three models.

    python -m tools.leak

The models are patients of `tests/patients`; the maps are those of the doctor's report.
"""

from pathlib import Path

import torch

from annotated_transformer.doctor import examine
from annotated_transformer.files import whole_or_nothing
from annotated_transformer.plots import heatmap, panels, use_style
from tests.patients.cases import collect

PICTURE = Path(__file__).parents[1] / "book" / "images" / "leak.png"
SHOWN = {
    "classic: post-norm, logits": "healthy",
    "classic: causal mask unused": "no causal mask",
    "classic: mask multiplied after softmax": "mask after softmax",
}


def leak_maps() -> dict[str, list[list[float]]]:
    """The map (logits' position, token changed) of each model, by its title."""
    cases = {case.name: case for case in collect("HEALTHY") + collect("SICK")}
    maps = {}
    for name, title in SHOWN.items():
        torch.manual_seed(0)
        maps[title] = examine(cases[name].build()).pictures["leak"]["target"]
    return maps


def main() -> None:
    """Run from the command line."""
    use_style()
    maps = leak_maps()
    figure, axes = panels(len(maps), width=3.2 * len(maps), height=3)
    for place, (title, values) in zip(axes, maps.items(), strict=True):
        heatmap(
            values,
            title=title,
            xlabel="target token changed",
            ylabel="logits at position" if place is axes[0] else "",
            axes=place,
        )
        ahead = torch.tensor(values).triu(1).max()
        print(f"{title}: a later word changes the logits by up to {ahead:.2g}")
    with whole_or_nothing(PICTURE) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


if __name__ == "__main__":
    main()
