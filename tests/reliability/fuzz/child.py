"""Reads files of one format in forked children with limits; started with FORMAT and a folder.

The names of a batch of files come in as a line of JSON, and what became of each goes out: refused
with an error of ours, accepted, crashed, hung, or a finding, which is any other exception.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from convexport.runtime.errors import ConvexportError
from tests.reliability.fuzz.loaders import LOADERS

LONGEST = 30  # seconds, for one file
MEMORY = 2 << 30  # beyond what the process has mapped when it begins
Outcome = dict[str, Any]


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    warm(kind, folder)
    os.dup2(silent, 2)
    for line in sys.stdin:
        print(json.dumps(read_all(kind, json.loads(line), folder)), file=answers, flush=True)


def warm(kind: str, folder: Path) -> None:
    """Whatever is imported on demand, before the limits are set."""
    good = next(iter(sorted(folder.glob("good*"))))
    outcome = read_one(kind, good, folder)
    assert outcome["what"] == "accepted", outcome


def read_all(kind: str, names: list[str], folder: Path) -> list[Outcome]:
    """Each file's outcome; a child that dies takes only the file that it was at with it."""
    outcomes: list[Outcome] = []
    while len(outcomes) < len(names):
        outcomes += in_a_child(kind, names[len(outcomes) :], folder)
    return outcomes


def in_a_child(kind: str, names: list[str], folder: Path) -> list[Outcome]:
    told = folder / "told.jsonl"
    told.write_text("")
    child = os.fork()
    if not child:
        try:
            limit()
            with told.open("w") as file:
                for name in names:
                    signal.alarm(LONGEST)
                    print(json.dumps(read_one(kind, Path(name), folder)), file=file, flush=True)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    done = [json.loads(line) for line in told.read_text().splitlines()]
    if len(done) < len(names):
        code = os.waitstatus_to_exitcode(status)
        what = "hung" if code == -signal.SIGALRM else "crashed"
        done.append({"file": names[len(done)], "what": what, "why": str(code)})
    return done


def limit() -> None:
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def read_one(kind: str, path: Path, folder: Path) -> Outcome:
    try:
        LOADERS[kind](path, folder)
    except (ConvexportError, click.ClickException) as error:
        why = getattr(error, "code", "E02")
        small = error.exit_code > 1 and len(str(error).splitlines()) < 24 and len(str(error)) < 5000
        what = "refused" if small else "finding"
        return {"file": str(path), "what": what, "why": why if small else str(error)[:3000]}
    except BaseException:
        return {"file": str(path), "what": "finding", "why": traceback.format_exc()[-3000:]}
    return {"file": str(path), "what": "accepted", "why": ""}


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
