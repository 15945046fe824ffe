"""Keep the notebooks in step with the package and with the course's address.

The package is the one source. A notebook cell whose first line is, say,
`# annotated_transformer/attention.py` names definitions of that file (a stub such as
`def attention(): ...` is enough); their source text is written into the cell. The
first code cell, which installs the course in Colab, and the Colab badges follow
`[project.urls] Repository` in pyproject.toml. What a learner should not see at once is
folded, for JupyterLab and for the book. The reading times in each first cell follow
from the notebook's size (`tools/sizes.py`).

    python -m tools.sync           # rewrite what drifted
    python -m tools.sync --check   # only name it; exits with 1 if anything did
"""

import argparse
import ast
import json
import re
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs as a file, too
from tools import lanes, sizes

PACKAGE = "annotated_transformer"
HEADER = re.compile(rf"# ({PACKAGE}/(?:\w+/)*\w+\.py)\s*")
BADGE = re.compile(r"\[!\[Open in Colab\].*\n*")
PREDICTS = re.compile(r"^> \*\*Predict first\.\*\*", re.MULTILINE)
HEADING = re.compile(r"^#+ ", re.MULTILINE)
EXERCISE = re.compile(r"ex(\d+)-")
TITLE = re.compile(r"# Solution( of exercise \d+)?\n")
README_BADGES = re.compile(r"(<!-- badges -->\n).*?(<!-- /badges -->)", re.DOTALL)

COLAB_CELL = """\
# In Colab: install the course. Elsewhere: nothing to do.
import sys
from importlib.util import find_spec

if "google.colab" in sys.modules and not find_spec("annotated_transformer"):
    """
NO_ADDRESS = "Upload the wheel that `make wheel` built, then %pip install it"


class SyncError(Exception):
    """A notebook asks for something that cannot be written."""


def defined_names(node: ast.stmt) -> list[str]:
    """The names that a top-level statement defines; none if it is not a definition."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Assign(targets=[ast.Name(id=name)]):
            return [name]
        case ast.Assign(targets=[ast.Tuple(elts=elements)]):
            return [element.id for element in elements if isinstance(element, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def span(node: ast.stmt, lines: list[str]) -> tuple[int, int]:
    """First and last line (from 0, last excluded), with decorators and comments."""
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno] + [d.lineno for d in decorators]) - 1
    while first > 0 and lines[first - 1].startswith("#"):
        first -= 1
    return first, node.end_lineno or node.lineno


def definitions(cell: str, source: str) -> str:
    """The cell's definitions, in the cell's order, as they are in `source`."""
    lines = source.splitlines()
    known = {
        name: (span(node, lines), hasattr(node, "body"))
        for node in ast.parse(source).body
        for name in defined_names(node)
    }
    text = cell.splitlines()[0].strip()
    previous_end, previous_block = -1, False
    done: set[int] = set()
    for node in ast.parse(cell).body:
        names = defined_names(node)
        if not names:
            raise SyncError(
                f"line {node.lineno} is not a definition: move it elsewhere"
            )
        for name in names:
            if name not in known:
                raise SyncError(f"`{name}` is not in the package's file")
            (first, end), block = known[name]
            if first in done:  # a, b = ... is one statement with two names
                continue
            if not done:
                gap = 1
            elif first >= previous_end and not any(lines[previous_end:first]):
                gap = first - previous_end + 1  # neighbors keep their distance
            else:
                gap = 3 if block or previous_block else 1
            text += "\n" * gap + "\n".join(lines[first:end])
            previous_end, previous_block = end, block
            done.add(first)
    return text


def repository(root: Path) -> str | None:
    """The course's public address, if pyproject.toml has one."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    return project.get("urls", {}).get("Repository")


def colab_cell(address: str | None) -> str:
    """The source of each notebook's first code cell."""
    if address:
        return COLAB_CELL + f'%pip install -q "git+{address}"'
    return COLAB_CELL + f'raise ImportError("{NO_ADDRESS}")'


def badge(address: str | None, notebook: str) -> str:
    """A badge that opens `notebook`, below `notebooks/`, in Colab: it reads GitHub."""
    github = re.match(r"https://github\.com/([^/]+/[^/]+?)(\.git)?/?$", address or "")
    if not github:
        return ""
    colab = "https://colab.research.google.com"
    target = f"{colab}/github/{github[1]}/blob/main/notebooks/{notebook}"
    return f"[![Open in Colab]({colab}/assets/colab-badge.svg)]({target})"


def with_badge(markdown: str, line: str) -> str:
    """The title cell with the badge below the title, or with none."""
    title, _, rest = BADGE.sub("", markdown).partition("\n")
    parts = [title, line, rest.strip("\n")]
    return "\n\n".join(part for part in parts if part)


def has_tag(cell: dict, tag: str) -> bool:
    """Whether a cell is a code cell with this tag."""
    return cell["cell_type"] == "code" and tag in cell["metadata"].get("tags", [])


def predicted(cells: list[dict]) -> set[int]:
    """The code cells whose outputs answer a box "Predict first".

    They are the first ones with outputs below it, up to the next text; one text
    without a heading may stand before them.
    """
    found: set[int] = set()
    for box, cell in enumerate(cells):
        if cell["cell_type"] != "markdown" or not PREDICTS.search(
            "".join(cell["source"])
        ):
            continue
        run: set[int] = set()
        texts = 0
        for i, below in enumerate(cells[box + 1 :], box + 1):
            if below["cell_type"] == "code":
                if has_tag(below, "exercise"):
                    break
                run |= {i} if below["outputs"] else set()
            else:
                texts += 1
                if run or texts > 1 or HEADING.search("".join(below["source"])):
                    break
        found |= run
    return found


def folds(cell: dict, answers: bool) -> dict:
    """A code cell's metadata, with what is folded: solutions, predictions, plots' code.

    JupyterLab reads `jupyter`, and opens an output when its cell is run; the book
    reads the tags.
    """
    metadata = {k: v for k, v in cell["metadata"].items() if not k.endswith("_hidden")}
    tags = [tag for tag in metadata.pop("tags", []) if tag != "hide-output"]
    jupyter = dict(metadata.pop("jupyter", {}))
    for key in ("outputs_hidden", "source_hidden"):
        jupyter.pop(key, None)
    if "solution" in tags:
        tags += [] if "hide-cell" in tags else ["hide-cell"]
        jupyter |= {"outputs_hidden": True, "source_hidden": True}
    elif answers:
        tags.append("hide-output")
        jupyter["outputs_hidden"] = True
    if "hide-input" in tags:
        jupyter["source_hidden"] = True
    metadata |= {"tags": tags} if tags else {}
    metadata |= {"jupyter": dict(sorted(jupyter.items()))} if jupyter else {}
    return dict(sorted(metadata.items()))


def with_title(solution: str, identity: str) -> str:
    """A solution with a first line that gives nothing away: JupyterLab shows it."""
    exercise = EXERCISE.match(identity)
    title = f"# Solution of exercise {exercise[1]}\n" if exercise else "# Solution\n"
    return title + TITLE.sub("", solution, count=1)


def new_colab_cell() -> dict:
    """The cell that installs the course in Colab, still empty."""
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": "colab",
        "metadata": {"tags": ["colab"]},
        "outputs": [],
        "source": [],
    }


def shown(cell: dict, root: Path, where: str) -> str:
    """The source of a cell, with its definitions as the package has them."""
    source = "".join(cell["source"])
    header = HEADER.fullmatch(source.partition("\n")[0])
    if not header:
        return source
    try:
        return definitions(source, (root / header[1]).read_text("utf-8"))
    except (OSError, SyntaxError, SyncError) as error:
        raise SyncError(f"{where}, {header[1]}: {error}") from error


def update_cells(notebook: dict, root: Path, name: str) -> list[str]:
    """Bring one notebook's cells up to date, in place; return what had drifted."""
    cells, address = notebook["cells"], repository(root)
    drift = []

    def update(cell: dict, new: str, what: str) -> None:
        if "".join(cell["source"]) != new:
            cell["source"] = new.splitlines(keepends=True)
            drift.append(what)

    codes = [i for i, cell in enumerate(cells) if cell["cell_type"] == "code"]
    first = codes[0] if codes else len(cells)
    if not codes or not has_tag(cells[first], "colab"):
        cells.insert(first, new_colab_cell())
    update(cells[first], colab_cell(address), f"cell {first}, which installs in Colab")

    title, line = "".join(cells[0]["source"]), badge(address, name)
    if cells[0]["cell_type"] == "markdown" and (line or BADGE.search(title)):
        update(cells[0], with_badge(title, line), "the Colab badge")

    answers = predicted(cells)
    for i, cell in enumerate(cells):
        if cell["cell_type"] != "code":
            continue
        source = shown(cell, root, f"notebooks/{name}, cell {i}")
        first_line = source.partition("\n")[0].removeprefix("# ")
        update(cell, source, f"cell {i}, which shows {first_line}")
        if has_tag(cell, "solution"):
            named = with_title(source, cell.get("id", ""))
            update(cell, named, f"cell {i}, the first line of a solution")
        if (metadata := folds(cell, i in answers)) != cell["metadata"]:
            cell["metadata"] = metadata
            drift.append(f"cell {i}, what is folded")

    for _ in range(2):  # last: definitions count, and so do the words that it writes
        if cells[0]["cell_type"] == "markdown":
            size = sizes.size(notebook)
            timed = sizes.with_minutes("".join(cells[0]["source"]), size)
            update(cells[0], timed, "the minutes of the first cell")
    return drift


def sync(root: Path, *, check: bool) -> list[str]:
    """Find all drift below `root`, repair it unless `check`, return where it was."""
    drift: list[str] = []
    texts: dict[Path, str] = {}  # written only when all are known to be good
    for path in lanes.all_notebooks(root):
        name = lanes.below(path)
        notebook = json.loads(path.read_text("utf-8"))
        places = update_cells(notebook, root, name)
        if places:
            drift += [f"notebooks/{name}: {place}" for place in places]
            texts[path] = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"

    readme = root / "README.md"
    old = readme.read_text("utf-8")
    line = badge(repository(root), "00_start_here.ipynb")
    line += "\n" if line else ""
    new = README_BADGES.sub(lambda match: match[1] + line + match[2], old)
    if new != old:
        drift.append("README.md: the Colab badge")
        texts[readme] = new

    for path, text in [] if check else texts.items():
        partial = path.with_name(path.name + ".partial")
        partial.write_text(text, "utf-8")
        partial.replace(path)
    return drift


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Copy definitions into the notebooks.")
    parser.add_argument("--check", action="store_true", help="only name what drifted")
    arguments = parser.parse_args()
    try:
        drift = sync(Path(__file__).parents[1], check=arguments.check)
    except SyncError as error:
        print(error, file=sys.stderr)
        return 1
    for place in drift:
        print(("Drifted: " if arguments.check else "Rewritten: ") + place)
    if drift and arguments.check:
        print("Run `make sync`, then `make notebooks`.", file=sys.stderr)
        return 1
    if any(place.startswith("notebooks/") for place in drift):
        print("Now run `make notebooks`: it stores the outputs.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
