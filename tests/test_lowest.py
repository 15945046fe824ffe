"""The lower bounds of pyproject.toml, as `make lowest` installs them."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tools.lowest import EXTRAS, floors

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_each_direct_dependency_is_installed_at_its_lower_bound():
    wanted = [*PROJECT["dependencies"]]
    for extra in EXTRAS:
        wanted += PROJECT["optional-dependencies"][extra]
    found = {Requirement(line).name: Requirement(line) for line in floors(ROOT)}
    assert set(found) == {Requirement(line).name for line in wanted}
    for line in wanted:
        allowed = Requirement(line)
        (floor,) = found[allowed.name].specifier
        assert floor.operator == "==" and allowed.specifier.contains(floor.version)
        (bound,) = (s for s in allowed.specifier if s.operator in (">=", "=="))
        assert floor.version == bound.version


def test_one_floor_can_be_lifted():
    lifted = floors(ROOT, "torch==2.13.0")
    assert "torch==2.13.0" in lifted
    assert len(lifted) == len(floors(ROOT))


def test_a_dependency_without_a_lower_bound_is_named(tmp_path):
    text = '[project]\ndependencies = ["torch<3"]\n[project.optional-dependencies]\n'
    (tmp_path / "pyproject.toml").write_text(text + "lab = []\ntest = []\n", "utf-8")
    with pytest.raises(ValueError, match="'torch<3' has no lower bound"):
        floors(tmp_path)
