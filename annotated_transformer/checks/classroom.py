"""An IPython extension for grading: a seat belt around what strangers wrote.

    c.Execute.extra_arguments = ["--ext=annotated_transformer.checks.classroom"]

in `nbgrader_config.py` loads it into the kernel of each submission, before its first
cell. It stops a cell that prints without end or takes all memory, and answers with a
sentence when one writes, renames or deletes files outside the submission's own folder.
It stops accidents. What stops malice is `sandbox.py`, around the whole kernel.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

LIMIT = 100_000  # characters that one cell may print
MEMORY = 4_000_000_000  # bytes
DELETING = {"os.remove", "os.rmdir", "os.truncate", "shutil.rmtree", "shutil.move"}
CHANGING = {"os.chmod", "os.chown", "os.mkdir", "os.utime", "os.symlink", "os.link"}
RUNNING = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class TooMuchOutput(Exception):
    """Raised in the cell that prints; what it has printed so far stays."""


class LimitedStream:
    """A stream of the kernel that takes LIMIT characters a cell, and no more."""

    def __init__(self, stream: Any):
        self.stream, self.left = stream, LIMIT

    def write(self, text: str) -> int:
        """Pass the text on, up to the limit; beyond it, stop the cell."""
        part, self.left = text[: self.left], self.left - len(text)
        self.stream.write(part)
        if self.left < 0:
            self.left = 0
            raise TooMuchOutput(f"a cell may print {LIMIT:,} characters: cut here")
        return len(text)

    def writelines(self, lines: Any) -> None:
        """As `write`, line by line."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def own_folder_only(*own: Path) -> Any:
    """An audit hook that refuses to change files outside these folders."""
    places = [folder.resolve() for folder in own]

    def refuse(path: Any) -> None:
        if isinstance(path, int) or path is None:  # an open file
            return
        place = Path(os.path.realpath(os.fsdecode(path)))
        if any(folder in place.parents for folder in places):
            return
        if str(place) == os.devnull:
            return
        raise PermissionError(
            f"{place.name}: a submission may change its own files only"
        )

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = set("wax+") & set(mode) if mode else (flags or 0) & WRITING
            if writes:
                refuse(path)
        elif event in DELETING or event in CHANGING:
            refuse(arguments[0])
        elif event == "os.rename":
            refuse(arguments[0])
            refuse(arguments[1])
        elif event in RUNNING:
            raise PermissionError("a submission may not start other programs")

    return hook


def limit_memory() -> None:
    """Let the submission take MEMORY bytes beyond what Python and PyTorch hold."""
    if sys.platform != "linux":
        return
    import resource

    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))


def load_ipython_extension(shell: Any) -> None:
    """Called by IPython when the kernel starts, in the submission's folder."""
    sys.stdout, sys.stderr = LimitedStream(sys.stdout), LimitedStream(sys.stderr)

    def refill(*_: Any) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, LimitedStream):
                stream.left = LIMIT

    shell.events.register("pre_run_cell", refill)
    # Some libraries start a program when they are imported: let them do it first.
    import torch  # noqa: F401

    limit_memory()
    sys.addaudithook(own_folder_only(Path.cwd(), Path(tempfile.gettempdir())))
