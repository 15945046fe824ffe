"""Build the book, or serve it.

python -m tools.book build     # book/_build/site; warnings are errors
python -m tools.book serve     # at http://localhost:8000
"""

import argparse
import functools
import http.server
import sys
from pathlib import Path

from tools.book.build import BUILD, BookError, build


def serve(folder: Path, port: int) -> None:
    """Serve a built site until interrupted."""
    if not (folder / "index.html").exists():
        raise BookError("There is no book yet: run `make book`")
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(folder)
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(
            f"http://localhost:{server.server_address[1]}  (stop with Ctrl-C)",
            flush=True,
        )
        server.serve_forever()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Build the book, or serve it.")
    parser.add_argument("command", choices=["build", "serve"])
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    try:
        if arguments.command == "build":
            build()
        else:
            serve(BUILD / "site", arguments.port)
    except (BookError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
