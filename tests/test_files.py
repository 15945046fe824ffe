"""Files: whole or not at all, whatever stops the writer, and JSON that is checked."""

import errno
import json
import os

import pytest

from annotated_transformer.errors import InputError
from annotated_transformer.files import (
    read_json,
    remove_folder,
    remove_unfinished,
    unfinished,
    whole_or_nothing,
    write_json,
)
from tests.power import PowerCut, disk_after_cuts


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "settings.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    with pytest.raises(OSError), whole_or_nothing(path) as temporary:
        temporary.write_text("half of")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert read_json(path) == {"old": 1} and names(tmp_path) == ["settings.json"]


def write_folder(path, text):
    with whole_or_nothing(path) as temporary:
        temporary.mkdir()
        (temporary / "inner").mkdir()
        write_json(temporary / "inner" / "a.json", text)
        (temporary / "b.txt").write_text(text)


def contents(path):
    """What a file or a folder holds, all together; None if it is missing."""
    if path.is_dir():
        return {name: contents(path / name) for name in sorted(os.listdir(path))}
    return path.read_text() if path.exists() else None


@pytest.mark.parametrize("kind", ["new", "replaced", "folder", "deep"])
def test_a_power_cut_at_any_moment_leaves_the_old_or_the_new(tmp_path, kind):
    disk = tmp_path / "disk"
    disk.mkdir()
    path = disk / ("a/b/c/file" if kind == "deep" else "file")
    if kind == "replaced":
        write_json(path, "old" * 1000)
    old = contents(path)
    write = write_folder if kind == "folder" else write_json
    cuts = disk_after_cuts(disk, lambda: write(path, "new" * 1000), tmp_path / "cuts")
    new = contents(path)
    found = [contents(cut / path.relative_to(disk)) for cut in cuts]
    assert len(found) >= 4 and all(content in (old, new) for content in found)
    assert found[0] == old and found[-1] == new != old  # at the end, it is sure


def test_the_simulation_loses_what_was_not_synced(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()

    def careless():
        (disk / "part").write_text("new")
        os.replace(disk / "part", disk / "file")
        os.mkdir(disk / "later")

    found = [contents(c) for c in disk_after_cuts(disk, careless, tmp_path / "cuts")]
    assert {"file": ""} in found or {"file": "", "later": {}} in found


def test_a_stop_between_two_calls_leaves_nothing_unfinished(tmp_path):
    with pytest.raises(PowerCut), whole_or_nothing(tmp_path / "file") as temporary:
        temporary.write_text("half of")
        raise PowerCut
    assert names(tmp_path) == []


def test_leftovers_of_a_killed_writer_never_stop_another_and_are_swept(tmp_path):
    unfinished(tmp_path / "step-1").mkdir()
    (unfinished(tmp_path / "settings.json")).write_text("half of")
    (tmp_path / f".step-1.{os.getpid()}").mkdir()  # a name that could be ours
    (tmp_path / ".mine").write_text("a hidden file of the user")
    write_folder(tmp_path / "step-1", "new")
    remove_unfinished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".mine", f".step-1.{os.getpid()}", "step-1"]


def test_a_folder_of_the_same_name_is_not_deleted_for_a_file(tmp_path):
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "precious").write_text("mine")
    with pytest.raises(OSError):
        write_json(tmp_path / "file", {})
    assert names(tmp_path) == ["file", "file/precious"]


def test_a_folder_is_deleted_whole_or_seen_whole(tmp_path, monkeypatch):
    write_folder(tmp_path / "step-1", "old")
    monkeypatch.setattr("shutil.rmtree", lambda path: os.unlink(path / "missing"))
    with pytest.raises(OSError):
        remove_folder(tmp_path / "step-1")
    assert not (tmp_path / "step-1").exists()


def test_a_disk_that_cannot_sync_folders_is_used_all_the_same(tmp_path, monkeypatch):
    sync = os.fsync

    def no_folders(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", no_folders)
    write_json(tmp_path / "a.json", {"a": 1})
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_a_file_that_cannot_be_synced_is_not_written(tmp_path, monkeypatch):
    def broken(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        write_json(tmp_path / "a.json", {"a": 1})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5_000, b"\0"]
)
def test_damaged_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a.json is damaged") as caught:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_or_a_folder_posing_as_json_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    for name in ("pipe.json", "folder.json"):
        with pytest.raises(InputError, match="not a file"):
            read_json(tmp_path / name)


def test_names_that_are_not_unicode_survive_json(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    write_json(tmp_path / "a.json", {"corpus": name})
    assert json.loads((tmp_path / "a.json").read_bytes().decode())["corpus"] == name
    assert read_json(tmp_path / "a.json") == {"corpus": name}
