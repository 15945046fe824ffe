"""Keep the notebooks in step with the package and with the course's address.

The package is the one source. A notebook cell whose first line is, say,
`# annotated_transformer/attention.py` names definitions of that file (a stub such as
`def attention(): ...` is enough); their source text is written into the cell. The
first code cell, which installs the course in Colab, and the Colab badges follow
`[project.urls] Repository` in pyproject.toml.

    python tools/sync.py           # rewrite what drifted
    python tools/sync.py --check   # only name it; exits with 1 if anything did
"""

import argparse
import ast
import json
import re
import sys
import tomllib
from pathlib import Path

PACKAGE = "annotated_transformer"
HEADER = re.compile(rf"# ({PACKAGE}/\w+\.py)\s*")
BADGE = re.compile(r"\[!\[Open in Colab\].*\n*")
README_BADGES = re.compile(r"(<!-- badges -->\n).*?(<!-- /badges -->)", re.DOTALL)

COLAB_CELL = """\
# In Colab: install the course. Elsewhere: nothing to do.
import sys
from importlib.util import find_spec

if "google.colab" in sys.modules and not find_spec("annotated_transformer"):
    """
NO_ADDRESS = "No public address yet: upload the wheel, then %pip install it"


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
    """A badge that opens the notebook in Colab, which can read GitHub only."""
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


def update_cells(cells: list[dict], root: Path, name: str) -> list[str]:
    """Bring one notebook's cells up to date, in place; return what had drifted."""
    address = repository(root)
    drift = []

    def update(cell: dict, new: str, what: str) -> None:
        if "".join(cell["source"]) != new:
            cell["source"] = new.splitlines(keepends=True)
            drift.append(what)

    codes = [i for i, cell in enumerate(cells) if cell["cell_type"] == "code"]
    first = codes[0] if codes else len(cells)
    if not codes or "colab" not in cells[first]["metadata"].get("tags", []):
        new_cell: dict = {
            "cell_type": "code",
            "execution_count": None,
            "id": "colab",
            "metadata": {"tags": ["colab"]},
            "outputs": [],
            "source": [],
        }
        cells.insert(first, new_cell)
    update(cells[first], colab_cell(address), f"cell {first}, which installs in Colab")

    title, line = "".join(cells[0]["source"]), badge(address, name)
    if cells[0]["cell_type"] == "markdown" and (line or BADGE.search(title)):
        update(cells[0], with_badge(title, line), "the Colab badge")

    for i, cell in enumerate(cells):
        source = "".join(cell["source"])
        header = HEADER.fullmatch(source.partition("\n")[0])
        if cell["cell_type"] == "code" and header:
            try:
                new = definitions(source, (root / header[1]).read_text("utf-8"))
            except (OSError, SyntaxError, SyncError) as error:
                where = f"notebooks/{name}, cell {i}, {header[1]}"
                raise SyncError(f"{where}: {error}") from error
            update(cell, new, f"cell {i}, which shows {header[1]}")
    return drift


def sync(root: Path, *, check: bool) -> list[str]:
    """Find all drift below `root`, repair it unless `check`, return where it was."""
    drift: list[str] = []
    texts: dict[Path, str] = {}  # written only when all are known to be good
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text("utf-8"))
        places = update_cells(notebook["cells"], root, path.name)
        if places:
            drift += [f"notebooks/{path.name}: {place}" for place in places]
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
