"""Make what the doctor's page shows: its picture, and the report that it prints.

    python -m tools.doctor_page

The picture is of patients of `tests/patients`, the report of `book/doctor/my_model.py`.
"""

import re
from pathlib import Path

import torch

from annotated_transformer.doctor import examine
from annotated_transformer.doctor.loading import examined
from annotated_transformer.files import whole_or_nothing
from annotated_transformer.plots import heatmap, panels, use_style
from tests.patients.cases import collect

BOOK = Path(__file__).parents[1] / "book"
PAGE, PICTURE = BOOK / "doctor.md", BOOK / "images" / "leak.png"
PRINTED = re.compile(r"(?<=<!-- printed -->\n).*(?=<!-- /printed -->)", re.DOTALL)
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


def printed() -> str:
    """The report on the example that forgets a mask, as a block of Markdown."""
    torch.set_num_threads(1)
    report = examined(str(BOOK / "doctor" / "my_model.py") + ":broken", None)
    return f"```text\n{report.text()}```\n"


def write(path: Path, text: str) -> None:
    """Write a page, whole or not at all."""
    with whole_or_nothing(path) as temporary:
        temporary.write_text(text, "utf-8")


def main() -> None:
    """Run from the command line."""
    block = printed()
    write(PAGE, PRINTED.sub(lambda _: block, PAGE.read_text("utf-8")))
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
