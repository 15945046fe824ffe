"""What a hostile submission tries on COURSE, the folder of the course.

Each attack is a few lines that do no lasting harm outside that folder. `run` executes
them all and says of each whether it got through; the tests run it with the sandbox, and
without, to see that it is the sandbox that stops them.
"""

import json
import sys
from pathlib import Path

FILES = {  # they change or read files of the course
    "sqlite3": """
        import sqlite3
        with sqlite3.connect(f"{COURSE}/gradebook.db") as book:
            book.execute("update grade set auto_score = 1980")
    """,
    "sqlite3 reads": """
        import sqlite3
        sqlite3.connect(f"{COURSE}/gradebook.db").execute("select * from grade")
    """,
    "read another's work": 'open(f"{COURSE}/submitted/weak/ps.ipynb").read()',
    "list the students": """
        import os
        os.listdir(f"{COURSE}/submitted")
    """,
    "read the solutions": 'open(f"{COURSE}/source/ps.ipynb").read()',
    "open": 'open(f"{COURSE}/new.txt", "w")',
    "torch.save": """
        import torch
        torch.save(torch.ones(3), f"{COURSE}/submitted/weak/a.ipynb")
    """,
    "safetensors": """
        import torch
        from safetensors.torch import save_file
        save_file({"x": torch.ones(3)}, f"{COURSE}/submitted/weak/b.ipynb")
    """,
    "sentencepiece": """
        import io, sentencepiece
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["ein Hund schläft", "a dog sleeps"] * 50),
            model_prefix=f"{COURSE}/submitted/weak/c", vocab_size=40,
            hard_vocab_limit=False, minloglevel=2)
    """,
    "os.open with dir_fd": """
        import os
        folder = os.open(f"{COURSE}/submitted/weak", os.O_RDONLY)
        os.open("d.ipynb", os.O_WRONLY | os.O_CREAT, dir_fd=folder)
    """,
    "os.unlink with dir_fd": """
        import os
        folder = os.open(f"{COURSE}/submitted/gone", os.O_PATH)
        os.unlink("ps.ipynb", dir_fd=folder)
    """,
    "rename": """
        import os
        os.rename(f"{COURSE}/submitted/moved", f"{COURSE}/submitted/mine")
    """,
    "link": """
        import os
        os.link(f"{COURSE}/gradebook.db", "mine.db")
    """,
    "symbolic link": """
        import os
        os.symlink(f"{COURSE}/gradebook.db", "mine")
        open("mine", "rb").read()
    """,
    "truncate": """
        import os
        os.truncate(f"{COURSE}/cut.txt", 0)
    """,
    "ctypes": """
        import ctypes
        c = ctypes.CDLL(None)
        c.open.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
        if c.open(f"{COURSE}/e.txt".encode(), 0o101, 0o600) < 0:
            raise PermissionError
    """,
    "mkfifo": """
        import os
        os.mkfifo(f"{COURSE}/pipe")
    """,
    "a thread of another library": """
        import concurrent.futures
        with concurrent.futures.ThreadPoolExecutor() as pool:
            pool.submit(open, f"{COURSE}/f.txt", "w").result()
    """,
    "another user": """
        import os
        if os.getuid() != 0:
            raise PermissionError
        os.seteuid(1)
        os.seteuid(0)
    """,
}
PROCESSES = {  # they start, stop or read other processes
    "os.fork": """
        import os
        if os.fork() == 0:
            os._exit(0)
    """,
    "fork by ctypes": """
        import ctypes, os
        child = ctypes.CDLL(None).fork()
        if child == 0:
            os._exit(0)
        if child < 0:
            raise PermissionError
    """,
    "subprocess": """
        import subprocess
        subprocess.run(["true"])
    """,
    "os.system": """
        import os
        if os.system("true"):
            raise PermissionError
    """,
    "multiprocessing": """
        import multiprocessing
        child = multiprocessing.get_context("fork").Process(target=int)
        child.start()
        child.join()
    """,
    "signal to the parent": """
        import os
        os.kill(os.getppid(), 0)
    """,
    "limits of the parent": """
        import os, resource
        resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0))
    """,
    "environment of the parent": """
        import os
        open(f"/proc/{os.getppid()}/environ").read()
    """,
}
NETWORK = {
    "connect": """
        import socket
        socket.create_connection(("127.0.0.1", PORT))
    """,
    "datagram": """
        import socket
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    """,
    "local service": """
        import socket
        socket.socket(socket.AF_UNIX)
    """,
    "fast open": """
        import socket
        socket.socket().sendto(b"x", socket.MSG_FASTOPEN, ("127.0.0.1", PORT))
    """,
}
RESOURCES = {
    "memory": """
        import mmap
        mmap.mmap(-1, 6_000_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    """,
    "a large file": """
        with open("large", "wb") as file:
            file.truncate(300_000_000)
    """,
    "a larger limit": """
        import resource
        resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    """,
}
ALL = {**FILES, **PROCESSES, **NETWORK, **RESOURCES}


def code(attack: str) -> str:
    """The lines of an attack, without the indentation that they have here."""
    from textwrap import dedent

    return dedent(ALL[attack]).strip()


def run(course: str, port: int) -> dict[str, str]:
    """Try every attack; what stopped each, or "done"."""
    found = {}
    for name in ALL:
        try:
            exec(code(name), {"COURSE": course, "PORT": port})
            found[name] = "done"
        except BaseException as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


if __name__ == "__main__":
    Path("found.json").write_text(json.dumps(run(sys.argv[1], int(sys.argv[2]))))
