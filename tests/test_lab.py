"""`make lab`, without a browser: chapter 00 comes first, and every link leads there."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from posixpath import join, normpath
from urllib.parse import unquote
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from trees import small_course

from tools import lanes

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
PAGE = re.compile(r"(http://\S+?:\d+)/([^?\s]+)\?token=")


def recipe(arguments):
    """The command of `make lab`, for this Python."""
    if shutil.which("make") is None:
        pytest.skip("make is not here")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFL"))}
    command = ["make", "-n", "lab", f"ARGS={arguments}"]
    told = subprocess.run(
        command, cwd=ROOT, env=clean, capture_output=True, text=True, check=True
    )
    start = told.stdout.index(".venv/bin/jupyter lab")
    python = f'exec "{sys.executable}" -m jupyter'
    return told.stdout[start:].replace(".venv/bin/jupyter", python, 1)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Runs it; yields the address that it prints, and what reads from it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("home")
    own = {f"JUPYTER_{name}_DIR": str(home) for name in ("CONFIG", "DATA", "RUNTIME")}
    arguments = f"--no-browser --ServerApp.port={port} --IdentityProvider.token=secret"
    server = subprocess.Popen(
        recipe(arguments),
        shell=True,
        cwd=ROOT,
        env=os.environ | own | {"HOME": str(home)},
        stderr=subprocess.PIPE,
        text=True,
    )
    printed = iter(server.stderr.readline, "")
    address = next(filter(None, map(PAGE.search, printed)))
    opener = build_opener(ProxyHandler({}))
    while True:  # the address is printed a moment before anybody listens
        with socket.socket() as knock:
            if not knock.connect_ex(("127.0.0.1", port)):
                break
        time.sleep(0.1)

    def ask(path):
        headers = {"Authorization": "token secret"}
        return opener.open(Request(f"{address[1]}/{path}", headers=headers), timeout=20)

    yield address[2], ask
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=20)


def places(root):
    """Where the relative links of the notebooks lead, seen from the course's folder."""
    for path in lanes.all_notebooks(root):
        folder = path.parent.relative_to(root).as_posix()
        for text in lanes.texts(path, "markdown"):
            for link in LINK.findall(text):
                yield normpath(join(folder, unquote(link)))


def test_links_start_in_the_folder_of_their_notebook(tmp_path):
    found = set(places(small_course(tmp_path)))
    assert found == {"book/glossary.md", "tools/sync.py", "notebooks/04_toy.ipynb"}


def test_the_first_page_is_chapter_00(lab):
    page, ask = lab
    assert page == f"lab/tree/notebooks/{lanes.core()[0].name}"
    assert ask(page).status == 200


def test_every_relative_link_of_the_chapters_is_found_by_the_server(lab):
    _, ask = lab
    found = set(places(ROOT))
    assert {"book/glossary.md", "annotated_transformer/pretrained/README.md"} <= found
    assert len(found) > len(lanes.core())
    for place in sorted(found):
        assert not place.startswith(".."), place
        assert ask(f"api/contents/{place}?content=0").status == 200, place
        assert ask(f"lab/tree/{place}").status == 200, place
