"""nbgrader's steps for this course: mend a submission, and run it in a sandbox.

    c.Autograde.sanitize_preprocessors = grading.SANITIZE
    c.Autograde.autograde_preprocessors = grading.AUTOGRADE

in `nbgrader_config.py` use them beside nbgrader's own.
"""

import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from nbformat import NotebookNode
from nbgrader.converters import Autograde
from nbgrader.converters.base import NbGraderException
from nbgrader.preprocessors import Execute
from traitlets import Bool

from annotated_transformer.checks import sandbox
from annotated_transformer.checks.repair import Repair

OUTPUT_CHARACTERS = 5_000_000  # that are kept of one cell, pictures included
NO_SANDBOX = (
    "{}: nothing was graded. Grade in a container, as book/teach.md says, or, if you "
    "trust your students, set c.SandboxedExecute.required = False"
)


class SandboxedKernelManager(AsyncKernelManager):
    """Starts a kernel inside `sandbox.py`, with `folder` as all that it may change."""

    folder: Path

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        """The command that nbclient would run, and the sandbox before it."""
        command: list[str] = super().format_kernel_cmd(extra_arguments)
        if sandbox.missing():
            return command
        launcher = [sys.executable, "-I", str(sandbox.__file__), str(self.folder)]
        return [*launcher, "--closed", str(Path.cwd()), "--", *command]


class SandboxedExecute(Execute):
    """Runs a submission on a copy of its folder, in a sandbox; throws the copy away."""

    required = Bool(
        True, help="Grade nothing where the operating system has no sandbox."
    ).tag(config=True)

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs["kernel_manager_class"] = SandboxedKernelManager
        super().__init__(*args, **kwargs)

    def preprocess(
        self, nb: NotebookNode, resources: Any = None, km: Any = None
    ) -> tuple[NotebookNode, Any]:
        """Run all cells, as nbgrader does, but elsewhere."""
        lack = sandbox.missing()
        if lack and self.required:
            raise NbGraderException(NO_SANDBOX.format(lack))
        if lack:
            self.log.warning("No sandbox: %s. Submissions run with your rights", lack)
        self.kept: Counter[int] = Counter()
        own = resources["metadata"]["path"]
        with (
            TemporaryDirectory(prefix="graded-", ignore_cleanup_errors=True) as folder,
            TemporaryFile() as self.log_file,  # outside, where no submission renames it
        ):
            self.folder = Path(folder).resolve()
            shutil.copytree(own, self.folder / "work", symlinks=True)
            resources["metadata"]["path"] = str(self.folder / "work")
            try:
                return super().preprocess(nb, resources, km)
            except RuntimeError:  # the kernel did not start, or ended
                self.tell_why()
                raise
            finally:
                resources["metadata"]["path"] = own

    def create_kernel_manager(self) -> AsyncKernelManager:
        """A manager that knows the folder."""
        manager = super().create_kernel_manager()
        manager.folder = self.folder
        manager.connection_file = str(self.folder / "kernel.json")
        return manager

    def start_new_kernel(self, **kwargs: Any) -> None:
        """Start the kernel, with a home of its own and without the teacher's keys."""
        if sandbox.missing():
            (self.folder / "home").mkdir()
            environment = {**os.environ, "TMPDIR": str(self.folder / "home")}
        else:
            sandbox.furnish(self.folder)
            environment = sandbox.environment(self.folder)
        said = {"stdout": self.log_file, "stderr": self.log_file}
        super().start_new_kernel(env=environment, **said, **kwargs)

    def output(
        self, outs: list, msg: dict, display_id: str | None, cell_index: int
    ) -> NotebookNode | None:
        """Keep an output, but not more of them than a page can show; every error."""
        self.kept[cell_index] += len(str(msg["content"]))
        if self.kept[cell_index] > OUTPUT_CHARACTERS and msg["msg_type"] != "error":
            return None
        return super().output(outs, msg, display_id, cell_index)

    def tell_why(self) -> None:
        """The last words of a kernel, for the teacher."""
        size = self.log_file.seek(0, os.SEEK_END)
        self.log_file.seek(max(0, size - 500))
        said = self.log_file.read().decode("utf-8", "replace")
        self.log.error("The kernel ended. Its last words: %a", said)


SANITIZE = [Repair, *Autograde.sanitize_preprocessors.default()]
AUTOGRADE = [
    SandboxedExecute if step is Execute else step
    for step in Autograde.autograde_preprocessors.default()
]
