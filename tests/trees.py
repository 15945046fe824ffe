"""A small made-up course: two chapters, what goes deeper, the paper in one sitting."""

import shutil
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools.run_notebooks import KERNEL, LANGUAGE

ROOT = Path(__file__).parents[1]
FILE = "annotated_transformer/special.py"  # its one module; the chapter shows a half
SHOWN, DEEPER_SHOWN = f"# {FILE}\nSPECIALS = ...", f"# {FILE}\nPAD = ..."
CHAPTER, OTHER = "04_toy", "05_other"
DEEPER, SITTING = "deeper/04_toy", "the_paper_in_one_sitting"
FRAME = """\
# {title}

| **Question** | Why? |
| :-- | :-- |
{goes_on}| **In the paper** | §3.2.2 |
| **Know first** | Nothing |
| **Words and symbols** | [glossary]({up}book/glossary.md), [code]({up}tools/sync.py) |
| **Read** | about 20 minutes; the exercises take an hour more |"""
GOES_ON = "| **Goes on from** | [04 Toy, section 5](../04_toy.ipynb) |\n"
CAPTION = "**Fig. {}** A caption, and Fig. 4.1 with chapter 05."


def frame(title, up="../", goes_on=""):
    return FRAME.format(title=title, up=up, goes_on=goes_on)


NOTEBOOKS = {  # Markdown, or code if it is not Markdown's turn: every second cell
    CHAPTER: [
        frame("04 Toy"),
        SHOWN,
        "## 5. The class\n\n$$a = b$$\n\nA look-up of keys: attention.",
        "print(1)",
        CAPTION.format("4.1"),
    ],
    OTHER: [frame("05 Other"), "print(2)", "## 1. Begin\n\nSee section 1."],
    DEEPER: [
        frame("04 Deeper: toy", "../../", GOES_ON),
        DEEPER_SHOWN,
        "## 1. More zebras\n\n$$c = d$$\n\n> **Departs from the paper: a toy.** So.",
        "print(3)",
        CAPTION.format("D4.1"),
    ],
    SITTING: [
        "# The paper in one sitting\n\nAll of it.",
        SHOWN,
        "## 3.2 Attention\n\n$$e = f$$",
        "print(4)",
        CAPTION.format("1") + " Fig. 1 again.",
    ],
}


def write(root, name, sources):
    """A notebook of these cells: Markdown and code by turns."""
    path = root / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = [new_markdown_cell, new_code_cell]
    cells = [kinds[i % 2](text, id=f"c{i}") for i, text in enumerate(sources)]
    metadata = {"kernelspec": KERNEL, "language_info": LANGUAGE}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return path


def small_course(root):
    """The course below `root`, without what the book needs; returns `root`."""
    (root / "annotated_transformer").mkdir()
    shutil.copy(ROOT / FILE, root / FILE)
    (root / "pyproject.toml").write_text('[project]\nname = "course"\n', "utf-8")
    (root / "README.md").write_text("# Course\n", "utf-8")
    for name, sources in NOTEBOOKS.items():
        write(root, name, sources)
    return root


def with_book(root):
    """What the book is made from beside the notebooks, all of it as small as can be."""
    kept = ("book", "assignments/wrong_answers.md", "annotated_transformer/pretrained")
    for name in kept:
        skip = shutil.ignore_patterns("_build", "node_modules", "*.safetensors")
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=skip)
        else:
            (root / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    texts = {
        "teach.md": "# Teach\n",
        "doctor.md": "# The doctor\n",
        "notation.md": "# Notation\n",
        "glossary.md": "- **zebra**: An animal. [04](../notebooks/deeper/04_toy.ipynb)",
        "paper_map.yml": f"- {{where: §3.2.2, says: X., cells: ['{DEEPER}#c3']}}\n",
        "departures.yml": (
            "- {topic: Toy, paper: P., reference: R., source: [harvard], ours: O.,"
            f" tests: [], boxes: ['{DEEPER}#c2']}}\n"
        ),
        "references.bib": (ROOT / "book" / "references.bib").read_text("utf-8"),
    }
    for name, text in texts.items():
        (root / "book" / name).write_text(text, "utf-8")
    (root / "assignments" / "wrong_answers.md").write_text("# Wrong answers\n")
    return root
