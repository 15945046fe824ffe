"""Files, written whole or not at all, and JSON."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from annotated_transformer.errors import InputError


@contextmanager
def whole_or_nothing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, renamed to `path` once all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write one JSON object, whole or not at all."""
    with whole_or_nothing(path) as temporary:
        temporary.write_text(
            json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8"
        )


def read_bytes(path: Path) -> bytes:
    """All of a file. Raises InputError if it is missing."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing: is {path.parent} the folder of a run?"
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object. Raises InputError if it is missing or damaged."""
    try:
        value = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is damaged ({error}): restore it or train again"
        ) from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged (no object): restore it or train again")
    return value
