"""Processes and their terminal: no network, Ctrl-C, odd environments, any encoding."""

import os
import signal
import subprocess
import sys
import time

import pytest

from annotated_transformer import processes
from annotated_transformer.errors import InputError
from annotated_transformer.grammar import grammar_corpus
from annotated_transformer.processes import is_main, launch, launched_as

SMALL_RUN = (
    "train --corpus grammar --size 300 --vocab-size 120 --d-model 16 --d-ff 24 "
    "--n-heads 2 --n-layers 1 --batch-tokens 300 --validate-every 4 --warmup 3"
).split()
LAUNCHED = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}


def cli(*arguments, **changes):
    environment = {**os.environ, **changes}
    command = [sys.executable, "-m", "annotated_transformer", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, timeout=300, env=environment, stdin=-3
    )


def refused(done, *words):
    line = done.stderr.decode()
    assert done.returncode == 2 and line.startswith("Error: "), line
    assert len(line.splitlines()) == 1
    assert all(word in line for word in words), line


def environment(monkeypatch, **told):
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)


def test_a_process_alone_is_the_main_one(monkeypatch):
    environment(monkeypatch, LOCAL_RANK="3", MASTER_PORT="1")
    assert launched_as() is None and is_main()


def test_what_torchrun_tells_is_read(monkeypatch):
    environment(monkeypatch, **LAUNCHED)
    launched = launched_as()
    assert (launched.rank, launched.count, launched.local_rank) == (1, 2, 0)
    assert not is_main()


@pytest.mark.parametrize(
    "told",
    [
        {"WORLD_SIZE": "2"},
        {"RANK": "0"},
        {"RANK": "one", "WORLD_SIZE": "2"},
        {**LAUNCHED, "RANK": "2"},
        {**LAUNCHED, "RANK": "-1"},
        {**LAUNCHED, "RANK": "²"},
        {**LAUNCHED, "WORLD_SIZE": ""},
        {**LAUNCHED, "MASTER_ADDR": ""},
        {**LAUNCHED, "LOCAL_RANK": "gpu"},
    ],
)
def test_half_of_what_torchrun_tells_is_refused(monkeypatch, told):
    environment(monkeypatch, **told)
    with pytest.raises(InputError, match="unset RANK and WORLD_SIZE"):
        launched_as()


def test_the_command_line_refuses_it_before_anything_is_written(tmp_path):
    for told in ({"WORLD_SIZE": "1"}, {"RANK": "captain"}):
        refused(cli(*SMALL_RUN, "--run", tmp_path / "run", **told), "torchrun")
    assert not list(tmp_path.iterdir())


def tell(folder, host):
    """In each process: join the others, note their ranks and where they met."""
    import torch.distributed as dist

    group = processes.Processes.join("cpu")
    ranks = group.gather(group.rank)
    where = os.environ["MASTER_ADDR"], os.environ.get("GLOO_SOCKET_IFNAME", "lo")[:2]
    (folder / str(group.rank)).write_text(repr((ranks, *where)))
    assert dist.is_initialized()


def test_processes_meet_where_no_host_name_resolves(tmp_path, monkeypatch):
    def unknown(*arguments):
        raise OSError("Name or service not known")

    environment(monkeypatch)
    for name in ("getfqdn", "gethostname", "gethostbyname"):
        monkeypatch.setattr(f"socket.{name}", unknown)
    launch(tell, tmp_path, "here", processes=2)
    for rank in (0, 1):
        told = (tmp_path / str(rank)).read_text()
        assert told == repr(([0, 1], "127.0.0.1", "lo"))


def test_without_a_loopback_there_is_one_line(tmp_path, monkeypatch):
    def unreachable(*arguments, **options):
        raise OSError(101, "Network is unreachable")

    environment(monkeypatch)
    monkeypatch.setattr("socket.create_connection", unreachable)
    with pytest.raises(InputError, match=r"loopback 127.0.0.1 .* --processes 1"):
        launch(tell, tmp_path, "here", processes=2)


def fail(how):
    """End one of two processes in some way while the other waits for it."""
    group = processes.Processes.join("cpu")
    if group.rank == 1:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyError("a fault of the program") if how == "bug" else InputError("bad")
    group.gather(0)


def test_a_process_that_is_killed_is_named(monkeypatch):
    environment(monkeypatch)
    with pytest.raises(InputError, match=r"ended by SIGKILL.*--resume"):
        launch(fail, "killed", processes=2)
    with pytest.raises(SystemExit) as caught:
        launch(fail, "input", processes=2)
    assert caught.value.code == 2


def start(folder, count, ignore=False):
    """A long run in a process group of its own, as a shell would start it."""
    command = [sys.executable, "-m", "annotated_transformer", *SMALL_RUN]
    command += ["--steps", "100000", "--run", folder, "--processes", str(count)]
    shell = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"] if ignore else []
    run = subprocess.Popen(
        shell + command, stderr=-1, stdout=-1, start_new_session=True
    )
    deadline = time.monotonic() + 200
    while not list(folder.glob("checkpoints/step-*")):
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.05)
    return run


def alive(group):
    """The states of a group's processes, without those that wait to be collected."""
    listed = subprocess.run(
        ["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True
    )
    pairs = [line.split() for line in listed.stdout.splitlines()]
    return [state for pgid, state in pairs if int(pgid) == group and state[0] != "Z"]


@pytest.mark.parametrize("count", [1, 2])
def test_ctrl_c_is_one_line_and_130_in_all_processes(tmp_path, count):
    run = start(tmp_path / "run", count)
    os.killpg(run.pid, signal.SIGINT)
    output, errors = run.communicate(timeout=60)
    steps = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))
    last = int(steps[-1].name.removeprefix("step-"))
    lines = [line for line in errors.decode().splitlines() if "step/s" not in line]
    told = [line for line in lines if line and "/100000" not in line]
    told = [line for line in told if not line.startswith("Warning: ")]
    assert told == [f"stopped after step {last}; --resume goes on"]
    assert run.returncode == 130 and output == b""
    deadline = time.monotonic() + 20
    while any(alive(run.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("seconds", [0.6, 1.5])
def test_ctrl_c_while_python_loads_is_one_line_too(seconds):
    command = [sys.executable, "-m", "annotated_transformer", "translate"]
    run = subprocess.Popen(command, stdin=-1, stderr=-1, stdout=-1)
    time.sleep(seconds)
    run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=60) == (b"", b"stopped\n")
    assert run.returncode == 130


@pytest.mark.parametrize("count", [1, 2])
def test_a_signal_ignored_at_the_start_stays_ignored(tmp_path, count):
    run = start(tmp_path / "run", count, ignore=True)
    os.killpg(run.pid, signal.SIGINT)
    time.sleep(1)
    assert run.poll() is None
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-16"])
def test_output_is_utf8_whatever_the_environment_says(encoding):
    text = cli("--help", PYTHONIOENCODING=encoding).stdout.decode()
    assert "“Attention Is All You Need”" in " ".join(text.split())
    done = cli("translate", "Ein Hund läuft.", "--json", PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and "läuft" in done.stdout.decode()
    refused(cli("evaluate", "--split", "prüfung", PYTHONIOENCODING=encoding), "prüfung")


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_closed_stream_is_no_traceback(tmp_path, closed):
    program = f"""
import os, subprocess, sys
os.close({closed})
done = subprocess.call([sys.executable, "-m", "annotated_transformer", "info"],
    close_fds=False)
open({str(tmp_path / "code")!r}, "w").write(str(done))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert (tmp_path / "code").read_text() == "0" and b"Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_one_line():
    command = f"{sys.executable} -m annotated_transformer info > /dev/full"
    done = subprocess.run(command, shell=True, capture_output=True)
    refused(done, "No space left")
    command = f"({sys.executable} -m annotated_transformer info; echo $? >&2) | true"
    done = subprocess.run(command, shell=True, capture_output=True)
    assert done.stderr == b"1\n"


def test_a_run_may_have_a_name_that_is_not_utf8(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9"
    run = [*SMALL_RUN, "--steps", "4", "--processes", "1", "--run", os.fsdecode(name)]
    done = cli(*run, "--json")
    assert done.returncode == 0, done.stderr.decode()
    assert b'caf\\udce9", "step": 4' in done.stdout
    german = grammar_corpus(300)["test"][0][0]
    assert cli("translate", german, "--model", os.fsdecode(name)).returncode == 0


def test_a_run_in_the_current_folder_is_averaged_beside_it(tmp_path):
    run = [*SMALL_RUN, "--steps", "4", "--processes", "1", "--run", tmp_path / "run"]
    assert cli(*run).returncode == 0
    command = [sys.executable, "-m", "annotated_transformer", "average", "."]
    done = subprocess.run(
        [*command, "--last", "1"], cwd=tmp_path / "run", capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "run-average" / "model.safetensors").is_file()
