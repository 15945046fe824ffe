"""Write the tables of `book/teach.md`: minutes, weeks, problems; `make sync` runs this.

    python -m tools.syllabus

The minutes are read from the notebooks: from the table that opens each chapter, and
from each problem. Chapters of the plans that are not written yet are left out.
"""

import re
import sys
from importlib import import_module
from pathlib import Path

import nbformat

from annotated_transformer.files import whole_or_nothing
from tools import lanes
from tools.wrong_answers import ROOT, SOURCES, problems

PAGE = ROOT / "book" / "teach.md"
AMOUNTS = {
    "an hour and a half": 90,
    "an hour and a quarter": 75,
    "half an hour": 30,
    "two hours": 120,
    "an hour": 60,
}
# Weeks, each with its chapters and the problem set that is due at its end.
PLANS: dict[str, list[tuple[range, str]]] = {
    "4 weeks": [
        (range(5), ""),
        (range(5, 9), "ps1_model"),
        (range(9, 13), "ps2_training"),
        (range(13, 18), "ps3_translation"),
    ],
    "8 weeks": [
        (range(3), ""),
        (range(3, 5), ""),
        (range(5, 7), ""),
        (range(7, 9), "ps1_model"),
        (range(9, 11), ""),
        (range(11, 13), "ps2_training"),
        (range(13, 16), ""),
        (range(16, 18), "ps3_translation"),
    ],
    "12 weeks": [
        (range(3), ""),
        (range(3, 5), ""),
        (range(5, 7), ""),
        (range(7, 9), "ps1_model"),
        (range(9, 11), ""),
        (range(11, 13), "ps2_training"),
        (range(13, 15), ""),
        (range(15, 17), ""),
        (range(17, 18), "ps3_translation"),
        (range(18, 20), ""),
        (range(20, 22), ""),
        (range(22, 23), "ps4_today"),
    ],
}


def minutes(words: str) -> tuple[int, int]:
    """Reading and exercises, from "50 minutes; the exercises take an hour more"."""
    found = re.findall("|".join([*AMOUNTS, r"\d+"]), words)
    if len(found) < 2:
        raise ValueError(f"no minutes for reading and exercises in {words!r}")
    reading, exercises = (AMOUNTS.get(x) or int(x) for x in found[:2])
    return reading, exercises


def chapters() -> dict[int, tuple[str, int, int]]:
    """Title and minutes of each chapter that exists; what goes deeper is no duty."""
    found = {}
    for path in lanes.core(ROOT):
        frame = nbformat.read(path, as_version=4).cells[0].source
        (words,) = re.findall(r"^\| \*\*Read\*\* \| (.*) \|$", frame, re.MULTILINE)
        title = frame.splitlines()[0].removeprefix("# ")
        link = f"[{title}](../notebooks/{path.name})"
        found[int(path.name[:2])] = (link, *minutes(words))
    return found


def sets() -> dict[str, tuple[str, int, int]]:
    """Title, minutes and points of each problem set."""
    found = {}
    for path in SOURCES:
        frame = nbformat.read(path, as_version=4).cells[0].source
        numbers = re.findall(r"\*\*(?:Minutes|Points)\*\* \| (\d+)", frame)
        title = frame.splitlines()[0].removeprefix("# ")
        found[path.stem] = (title, int(numbers[0]), int(numbers[1]))
    return found


def minutes_table() -> str:
    """How long each chapter takes."""
    rows = ["| chapter | to read | exercises |", "| :-- | --: | --: |"]
    rows += [
        f"| {link} | {read} | {work} |" for link, read, work in chapters().values()
    ]
    read = sum(read for _, read, _ in chapters().values())
    work = sum(work for _, _, work in chapters().values())
    return "\n".join([*rows, f"| **all** | **{read}** | **{work}** |"])


def weeks_table(plan: list[tuple[range, str]]) -> str:
    """What each week holds, in minutes: reading, exercises, graded problems."""
    rows = ["| week | chapters | reading | exercises | due | graded | hours |"]
    rows += ["| --: | :-- | --: | --: | :-- | --: | --: |"]
    written, graded = chapters(), sets()
    for week, (numbers, due) in enumerate(plan, start=1):
        here = [written[n] for n in numbers if n in written]
        names = ", ".join(f"{n:02}" for n in numbers if n in written) or "(to come)"
        read, work = sum(row[1] for row in here), sum(row[2] for row in here)
        title, grade, _ = graded.get(due, ("", 0, 0))
        hours = f"{(read + work + grade) / 60:.1f}"
        row = week, names, read, work, title, grade or "", hours
        rows.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(rows)


def problems_table() -> str:
    """All problems, and how many wrong answers their tests are tried on."""
    rows = ["| problem | | minutes | points | wrong answers tried |"]
    rows += ["| :-- | :-- | --: | --: | --: |"]
    total = [0, 0, 0]
    for path in SOURCES:
        wrong = import_module(f"tests.wrong_answers.{path.stem}").WRONG
        text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells)
        heads = r"\n\n\*(\w+) · (\d+) minutes · (\d+) points"
        for problem in problems(path):
            (head,) = re.findall(re.escape(problem.title) + heads, text)
            numbers = int(head[1]), int(head[2]), len(wrong[problem.name])
            total = [a + b for a, b in zip(total, numbers, strict=True)]
            title = problem.title.removeprefix("Problem ")
            rows.append(f"| {title} | {head[0]} | {' | '.join(map(str, numbers))} |")
    rows.append(f"| **all** | | {' | '.join(f'**{n}**' for n in total)} |")
    return "\n".join(rows)


def written(page: str) -> str:
    """The page with every table between its markers."""
    tables = {"minutes": minutes_table(), "problems": problems_table()}
    tables |= {name: weeks_table(plan) for name, plan in PLANS.items()}
    for name, table in tables.items():
        marked = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not marked.search(page):
            raise ValueError(f"{PAGE.name} has no place for the table {name!r}")
        page = marked.sub(rf"\g<1>\n{table}\n\n\g<2>", page)
    return page


def main(page: Path = PAGE) -> int:
    """Write the tables into the page, if one of them changed."""
    text = page.read_text("utf-8")
    new = written(text)
    if new != text:
        with whole_or_nothing(page) as temporary:
            temporary.write_text(new, "utf-8")
        print(f"{page.name}: tables written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
