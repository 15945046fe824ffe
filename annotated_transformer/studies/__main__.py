"""Do a study: `python -m annotated_transformer.studies NAME`.

Each run is stored as soon as it ends; a study that was stopped goes on where it was.
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from annotated_transformer import studies
from annotated_transformer.errors import InputError
from annotated_transformer.files import read_json, write_json
from annotated_transformer.terminal import one_line_errors


def done(path: Path, runs: Sequence[studies.Settings]) -> dict[int, dict[str, Any]]:
    """The runs that a file holds, by their place in the study; others are let go."""
    rows = read_json(path)["runs"] if path.exists() else []
    return {
        i: row
        for i, settings in enumerate(runs)
        for row in rows
        if settings.items() <= row.items()
    }


def do(name: str, number: int) -> dict[str, Any]:
    """One run of a study, with one thread: settings, measures, CPU-seconds."""
    torch.set_num_threads(1)
    study = studies.study(name)
    settings = study.runs[number]
    started = time.process_time()
    measures = study.measure(settings)
    seconds = round(time.process_time() - started, 1)
    return {**settings, **measures, "cpu_seconds": seconds}


def do_all(name: str, out: Path, processes: int) -> Path:
    """Do what is missing of a study, and return the file with its results."""
    study, path = studies.study(name), out / f"{name}.json"
    rows = done(path, study.runs)
    missing = [i for i in range(len(study.runs)) if i not in rows]
    print(f"{name}: {len(rows)} runs stored, {len(missing)} to do: {study.about}")
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(do, name, i): i for i in missing}
        try:
            for future in as_completed(futures):
                rows[futures[future]] = row = future.result()
                print(row, flush=True)
                write_json(path, {
                    "about": study.about,
                    "processor": studies.processor(),
                    "torch": torch.__version__.split("+")[0],
                    "runs": [rows[i] for i in sorted(rows)],
                })  # fmt: skip
        finally:
            pool.shutdown(cancel_futures=True)
    return path


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m annotated_transformer.studies", description=__doc__
    )
    known = ", ".join(studies.names())
    parser.add_argument("name", help=f"one of: {known}")
    where = "the folder of its results (default: runs/studies)"
    parser.add_argument("--out", type=Path, default=Path("runs/studies"), help=where)
    many = "how many runs at a time, one thread each (default: 1)"
    parser.add_argument("--processes", type=int, default=1, help=many)
    options = parser.parse_args()
    with one_line_errors():
        if options.processes < 1:
            given = options.processes
            raise InputError(f"--processes is {given}: it must be at least 1")
        print(do_all(options.name, options.out, options.processes))


if __name__ == "__main__":
    # Under a name that the other processes can import: they have a main of their own.
    from annotated_transformer.studies import __main__ as command

    command.main()
