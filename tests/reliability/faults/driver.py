"""Runs command lines in forked children, with faults; started with the shim preloaded.

A JSON line with a list of runs comes in, and one with how they ended goes out. Runs of one line
run at the same time. Forked from a process that has imported and built once, a build takes a
fraction of a second.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import locale
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from convexport import cli
from convexport.calibration.checkpoint import Checkpoint
from convexport.exporter import onnx_file
from convexport.exporter.cache import StageCache

MODES = {"once": 1, "full": 2, "signal": 3}
SHIM = ctypes.CDLL(None)
LONGEST = 200.0  # seconds, of a run


def main() -> None:
    os.environ.pop("LD_PRELOAD", None)  # what we start ourselves is not counted
    # Written after every group of images: the moment would never come in so short a pass.
    Checkpoint.__init__.__defaults__ = (0,)
    # It changes nothing on the disk, and would take most of the time.
    onnx_file.read_in_a_child = lambda path, *, run: None
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warm(sys.argv[1:])
    for line in sys.stdin:
        runs = json.loads(line)
        begun = [start(run, slot) for slot, run in enumerate(runs)]
        print(json.dumps(all_ended(begun, runs)), file=answers, flush=True)


def warm(argv: list[str]) -> None:
    """Once here, so that all is imported; its result is the undisturbed one."""
    sys.argv = ["convexport", *argv]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(sys.stderr):
        cli.main()


def start(run: dict[str, Any], slot: int) -> tuple[int, int]:
    """Fork a child that behaves as the run says; its process id, and where its stderr comes out."""
    out, into = os.pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 1 << 20)  # nobody reads before the end
    child = os.fork()
    if child:
        os.close(into)
        return child, out
    code = 70
    try:
        os.dup2(into, 2)
        prepare(run, slot)
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    except KeyboardInterrupt:  # to a shell this is 130 as well
        code = 130
        print("Traceback: interrupted outside of the command line's guard", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(KeyboardInterrupt):
            sys.stderr.flush()
        os._exit(code)  # without the seconds in which Python would tidy up


def prepare(run: dict[str, Any], slot: int) -> None:
    sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.chdir(run.get("cwd", "."))
    os.umask(run.get("umask", 0o022))
    sys.argv = ["convexport", *run["argv"]]
    if "largest_file" in run:
        resource.setrlimit(resource.RLIMIT_FSIZE, (run["largest_file"],) * 2)
    if "env" in run:
        os.environ.update(run["env"])
        time.tzset()
        locale.setlocale(locale.LC_ALL, "")
    if "user" in run:
        os.setgroups([])
        os.setgid(run["user"])
        os.setuid(run["user"])
    if "clock" in run:
        time.time = lambda now=time.time: now() + run["clock"]  # type: ignore[assignment]
    log = os.open(run["trace"], os.O_WRONLY | os.O_CREAT) if "trace" in run else -1
    mode, number = MODES.get(run.get("mode", ""), 0), run.get("number", 0)
    if "stage" in run:
        StageCache.stage = interrupted(run)  # type: ignore[method-assign]
        mode = 0
    where = os.fsencode(run.get("below", "/"))
    SHIM.faults_arm.argtypes = [ctypes.c_char_p, *[ctypes.c_int] * 4, ctypes.c_long, ctypes.c_long]
    SHIM.faults_arm(where, slot, log, mode, number, run.get("at", 0), run.get("again", 0))


def interrupted(run: dict[str, Any]) -> Any:
    """``StageCache.stage`` that meets a signal when a stage's work is done, but not committed."""
    real = StageCache.stage

    def stage(self: StageCache, name: str, inputs: Any, produce: Any, **options: Any) -> Any:
        def fatal(directory: Path) -> Any:
            facts = produce(directory)
            if name == run["stage"]:
                if run.get("twice"):
                    SHIM.faults_again_by(run["number"])
                os.kill(os.getpid(), run["number"])
            return facts

        return real(self, name, inputs, fatal, **options)

    return stage


def all_ended(begun: list[tuple[int, int]], runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Wait for all, sending each its signal ``after`` so many seconds where that is wanted."""
    start, codes, killed = time.monotonic(), {}, set()
    while len(codes) < len(begun):
        for (child, _), run in zip(begun, runs, strict=True):
            if child in codes:
                continue
            if (done := waited(child)) is not None:
                codes[child] = done
            elif child not in killed and time.monotonic() - start > run.get("after", LONGEST):
                os.kill(child, run["number"] if "after" in run else signal.SIGKILL)
                killed.add(child)
        time.sleep(0.001)
    return [
        {
            "code": codes[child],
            "err": said(out),
            "count": SHIM.faults_count(slot),
        }
        for slot, (child, out) in enumerate(begun)
    ]


def said(out: int) -> str:
    with os.fdopen(out, errors="replace") as file:
        return file.read()


def waited(child: int) -> int | None:
    """The exit code of a child that has ended."""
    pid, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


if __name__ == "__main__":
    main()
