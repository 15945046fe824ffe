"""A simulated power cut: what a disk shows that has kept only what was synced."""

import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest.mock import patch

CALLS = "fsync replace rename mkdir unlink remove rmdir".split()


class PowerCut(BaseException):
    """Not an Exception, like what ends a program from outside."""


class Disk:
    """Watches the calls that change a folder, and knows what a power cut would leave.

    A file keeps what it held when it was last synced. A folder keeps the names of its
    last sync; each name that has changed since then may be the old or the new one.
    """

    def __init__(self, root: Path, seed: int = 0):
        self.root, self.random = root, random.Random(seed)
        self.files: dict[int, bytes] = {}  # by inode: content when last synced
        self.folders: dict[int, dict[str, int]] = {}  # by inode: names and inodes
        self.open: list[int] = []  # so that no inode is used a second time
        self.calls, self.busy = 0, False
        for path in [root, *root.rglob("*")]:
            self.keep(path)

    def keep(self, path: Path | str) -> None:
        """Note the present state of a file or of a folder as safe."""
        inode = os.stat(path).st_ino
        self.open.append(os.open(path, os.O_RDONLY))
        if os.path.isdir(path):
            entries = os.scandir(path)
            self.folders[inode] = {entry.name: entry.inode() for entry in entries}
        else:
            self.files[inode] = Path(path).read_bytes()

    def holds(self, place: Path | str | int) -> bool:
        """Whether a path, or what an open file's number stands for, is on this disk."""
        if isinstance(place, int):
            place = os.readlink(f"/proc/self/fd/{place}")
        return str(place).startswith(str(self.root))

    def watch(
        self, before: Callable[[int], None], action: Callable[[], object]
    ) -> None:
        """Run an action; `before(n)` is called before its n-th call that writes."""
        real = {name: getattr(os, name) for name in CALLS}

        def watched(name):
            def call(*arguments, **options):
                if self.busy or not self.holds(arguments[0]):
                    return real[name](*arguments, **options)
                self.calls += 1
                self.busy = True
                before(self.calls)
                self.busy = False
                result = real[name](*arguments, **options)
                if name == "fsync":
                    self.keep(os.readlink(f"/proc/self/fd/{arguments[0]}"))
                return result

            return call

        with patch.multiple(os, **{name: watched(name) for name in CALLS}):
            action()

    def after_cut(self, image: Path) -> Path:
        """Build in `image` what the root would hold if the power failed now."""
        present = {os.stat(p).st_ino: p for p in [self.root, *self.root.rglob("*")]}
        self.build(os.stat(self.root).st_ino, image, present)
        return image

    def build(self, inode: int, image: Path, present: dict[int, Path]) -> None:
        """Write a file or a folder as the disk would show it."""
        path = present.get(inode)
        if inode not in self.folders and not (path and path.is_dir()):
            image.write_bytes(self.files.get(inode, b""))
            return
        image.mkdir()
        old = self.folders.get(inode, {})
        new = {entry.name: entry.inode() for entry in os.scandir(path)} if path else old
        for name in sorted(old.keys() | new.keys()):
            kept = self.random.choice((old, new)).get(name)
            if kept is not None:
                self.build(kept, image / name, present)

    def close(self) -> None:
        """Let the inodes go."""
        while self.open:
            os.close(self.open.pop())


def disk_after_cuts(
    root: Path,
    action: Callable[[], object],
    images: Path,
    moments: Iterable[int] | None = None,
) -> list[Path]:
    """Run an action to its end; return what a cut at each moment would have left.

    The moments are numbers of calls, from 1; without them, before each call and after
    the last.
    """
    images.mkdir()
    disk, cuts = Disk(root), []
    chosen = None if moments is None else set(moments)

    def cut(number: int) -> None:
        if chosen is None or number in chosen:
            cuts.append(disk.after_cut(images / f"cut-{number:04d}"))

    try:
        disk.watch(cut, action)
        if chosen is None:
            cut(disk.calls + 1)
    finally:
        disk.close()
    return cuts
