"""Print the lowest versions that pyproject.toml allows, as constraints for pip.

    python tools/lowest.py > floors.txt    # what `make lowest` installs
    python tools/lowest.py torch==2.13.0   # but this one, where its floor is too large

Needs nothing but Python.
"""

import re
import sys
import tomllib
from pathlib import Path

EXTRAS = ("lab", "test")  # the book and the classroom run with the tested versions
LOWEST = re.compile(r"([\w.-]+)(?:>=|==)([\w.]+)")


def floors(root: Path, *instead: str) -> list[str]:
    """Each direct dependency at its lower bound, or as `instead` says."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    lines = list(project["dependencies"])
    for extra in EXTRAS:
        lines += project["optional-dependencies"][extra]
    found = {}
    for line in lines:
        lowest = LOWEST.match(line)
        if not lowest:
            raise ValueError(f"pyproject.toml: {line!r} has no lower bound")
        found[lowest[1]] = f"{lowest[1]}=={lowest[2]}"
    found |= {line.partition("==")[0]: line for line in instead}
    return list(found.values())


if __name__ == "__main__":
    print("\n".join(floors(Path(__file__).parents[1], *sys.argv[1:])))
