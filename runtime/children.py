"""A child process that answers one request and never outlives its parent's patience."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import Any, Callable, Iterator, List, Mapping, Sequence, Tuple

from convexport.runtime.errors import ConvexportError, MachineError

_TAIL_LINES = 20


def run_child(
    command: Sequence[str],
    request: bytes,
    *,
    timeout_s: float,
    env: Mapping[str, str],
    purpose: str = "measuring",
    started: Callable[[int], object] = lambda pid: None,
) -> Tuple[bytes, List[str]]:
    """Give ``request`` to a command's stdin and wait for its stdout.

    The child leads a process group; whatever ends the wait, Ctrl-C included, ends all of it first.
    From 3.11 on, Python imports nothing from the current directory there: it may be a stranger's.

    Args:
        purpose: of the child, for errors.
        started: told the child's process id, before it has the request.

    Returns:
        Its stdout, and the last lines of its stderr.

    Raises:
        MachineError: E0410, it crashed; E0411, it took longer than ``timeout_s``.
    """
    pipe, safe = subprocess.PIPE, {**env, "PYTHONSAFEPATH": "1"}
    process = subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, env=safe, start_new_session=True
    )
    with process, _killed_on_the_way_out(process):
        started(process.pid)
        try:
            stdout, stderr = process.communicate(request, timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise MachineError(
                "E0411",
                f"a {purpose} process was stopped: it took longer than {timeout_s:.0f} s",
                where="\n".join(_tail(error.stderr or b"")),
                hint="allow more time",
            ) from None
    if process.returncode:
        raise _crash(purpose, process.returncode, _tail(stderr))
    return stdout, _tail(stderr)


def answer(job: Callable[[Any], Any]) -> None:
    """The child's side: one JSON request on stdin, what ``job`` makes of it as JSON on stdout.

    An error of ours is the answer ``{"error": ...}``, for ``errors.rebuilt``; anything else ends
    the process with a traceback.
    """
    answers = os.dup(1)
    # What native libraries print, even while they are unloaded, would spoil it: to stderr with it.
    os.dup2(2, 1)
    request = json.loads(sys.stdin.buffer.read())
    try:
        value = job(request)
    except ConvexportError as error:
        value = {"error": {**error.to_dict(), "kind": type(error).__name__}}
    with os.fdopen(answers, "wb") as stdout:
        stdout.write(json.dumps(value, allow_nan=False).encode())


@contextlib.contextmanager
def _killed_on_the_way_out(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _crash(purpose: str, code: int, lines: List[str]) -> MachineError:
    return MachineError(
        "E0410",
        f"a {purpose} process crashed ({_ending(code)})",
        why="\n".join(lines),
        hint="the same model may crash your application: try one model, one thread",
    )


def _ending(code: int) -> str:
    if code > 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _tail(stderr: bytes) -> List[str]:
    return stderr.decode(errors="replace").strip().splitlines()[-_TAIL_LINES:]
