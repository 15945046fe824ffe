"""The package as a whole: quick to import, documented, and checked by its own types."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

import annotated_transformer
from annotated_transformer.attention import attention

FOLDER = Path(annotated_transformer.__file__).parent
FILES = {
    ".".join(path.relative_to(FOLDER).with_suffix("").parts): path
    for path in sorted(FOLDER.rglob("*.py"))
    if path.name != "__init__.py"
    and not path.name.startswith("with_")  # scripts that leave with an exported model
}
FILES |= {path.parent.name: path for path in FOLDER.glob("*/__init__.py")}
HEAVY = {
    *("altair", "matplotlib", "seaborn", "pandas", "vl_convert"),
    *("spacy", "torchtext", "sentencepiece", "sacrebleu", "pooch", "tensorboard"),
}
each_module = pytest.mark.parametrize("module", FILES)


def imported_by(code: str) -> set[str]:
    """Top-level modules that a fresh Python has loaded after running the code."""
    report = "; import json, sys; print(json.dumps(list(sys.modules)))"
    python = [sys.executable, "-c", code + report]
    result = subprocess.run(
        python, cwd=FOLDER.parent, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in json.loads(result.stdout)}


def test_importing_every_module_loads_no_heavy_library():
    names = ", ".join(f"annotated_transformer.{module}" for module in FILES)
    assert len(FILES) > 15
    loaded = imported_by(f"import {names}")
    assert "torch" in loaded
    assert not loaded & HEAVY


def definitions(tree: ast.Module) -> list[tuple[str, ast.AST]]:
    """Public functions, classes and methods, with their names."""
    found: list[tuple[str, ast.AST]] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append((node.name, node))
        if isinstance(node, ast.ClassDef):
            methods = [m for m in node.body if isinstance(m, ast.FunctionDef)]
            found += [(f"{node.name}.{method.name}", method) for method in methods]
    return [
        (name, node)
        for name, node in found
        if not any(part.startswith("_") for part in name.split("."))
        and not is_stub(node)
    ]


def is_stub(node: ast.AST) -> bool:
    """A method of a protocol, with `...` for a body."""
    body = node.body[0]
    return isinstance(body, ast.Expr) and getattr(body.value, "value", "") is ...


@each_module
def test_every_public_definition_says_in_a_sentence_what_it_is(module):
    tree = ast.parse(FILES[module].read_text("utf-8"))
    for name, node in [("the module", tree), *definitions(tree)]:
        docstring = ast.get_docstring(node)
        assert docstring, f"{module}: {name} has no docstring"
        first, *rest = docstring.splitlines()
        assert first.endswith((".", "?", "!")), f"{module}: {name}: {first!r}"
        assert len(first.split()) > 2, f"{module}: {name}: {first!r}"
        assert not rest or rest[0] == "", f"{module}: {name}: no blank line after it"


@each_module
def test_asserts_stand_only_in_tests(module):
    tree = ast.parse(FILES[module].read_text("utf-8"))
    assert not any(isinstance(node, ast.Assert) for node in ast.walk(tree))


def test_every_public_name_exists():
    for name in annotated_transformer.__all__:
        assert getattr(annotated_transformer, name).__module__.startswith(
            "annotated_transformer."
        )


def test_shapes_are_checked_while_tests_run():
    query, key = torch.zeros(2, 3, 5), torch.zeros(2, 7, 11)
    with pytest.raises(TypeCheckError, match="key"):
        attention(query, key, key)
