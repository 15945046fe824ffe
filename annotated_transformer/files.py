"""Files, written whole or not at all even if the power fails, and JSON."""

import errno
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from annotated_transformer.errors import InputError

UNFINISHED = ".unfinished"  # ends the name of what is not yet, or no longer, in use


@contextmanager
def whole_or_nothing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, renamed to `path` once all went well.

    All writers of files and folders use this. After a power cut at any moment, `path`
    holds the old content or the new; once this returns, it holds the new.
    """
    make_folder(path.parent)
    temporary = unfinished(path)
    try:
        yield temporary
        sync_tree(temporary)
        if temporary.is_dir() and path.is_dir():
            remove_folder(path)
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)
        raise


def unfinished(path: Path) -> Path:
    """A new hidden name beside `path`, which `remove_unfinished` recognizes."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")


def remove_unfinished(folder: Path) -> None:
    """Delete what a writer that was killed left in a folder. None may be at work."""
    for path in folder.glob(f".*{UNFINISHED}"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def remove_folder(path: Path) -> None:
    """Delete a folder. Whoever looks for it sees all of it or nothing."""
    hidden = unfinished(path)
    os.replace(path, hidden)
    shutil.rmtree(hidden)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, each synced to the disk."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync(path.parent)


def sync_tree(path: Path) -> None:
    """Wait until a file, or a folder with all that it holds, is on the disk."""
    if path.is_dir():
        for child in path.iterdir():
            sync_tree(child)
    sync(path)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    windows = os.name == "nt"
    if windows and path.is_dir():
        return  # a folder cannot be opened there; its file system keeps a journal
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        flush_to_disk(descriptor)
    except OSError as error:
        # Some network and shared file systems do not sync folders.
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def flush_to_disk(descriptor: int) -> None:
    """fsync, and on macOS also empty the disk's own cache, where it can be done."""
    if sys.platform == "darwin":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON object, whole or not at all."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with whole_or_nothing(path) as temporary:
        # What is not Unicode, say in the name of a file, becomes JSON's \udcff.
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def read_bytes(path: Path) -> bytes:
    """All of a file. Raises InputError if it is missing."""
    check_file(path)
    return path.read_bytes()


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object. Raises InputError if it is missing or damaged."""
    data = read_bytes(path)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged ({error}): restore it or train again"
        ) from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged (no object): restore it or train again")
    return value


def check_file(path: Path) -> None:
    """Raise InputError if there is no file, or if reading it could wait forever."""
    if path.is_file():
        return
    if path.exists():
        raise InputError(f"{path} is a folder or a device, not a file: restore it")
    raise InputError(f"{path} is missing: is {path.parent} the folder of a run?")
