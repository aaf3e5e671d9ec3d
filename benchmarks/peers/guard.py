"""A child process that may neither take the machine's memory nor run for ever.

Resident memory is looked at, not the address space, of which runtimes reserve far more than they
use. It is that of the child and of all its descendants; pages that they share count for each.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

HOW_TO = "benchmarks/peers/README.md tells how"
_INTERVAL_S = 0.05
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Nothing is sent to the makers of the tools, nor asked of them.
_QUIET = {"CI": "true", "NNCF_CI": "1", "ORT_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one child may take.

    Attributes:
        memory_bytes: resident, with its descendants.
        left_bytes: what must stay available to the rest of the machine.
        seconds: of wall time.
    """

    memory_bytes: int = 18_000_000_000
    left_bytes: int = 500_000_000
    seconds: float = 3600


def ask(command: Sequence[str], request: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """Give a child its request, and wait for its answer.

    Returns:
        The answer, or a ``status`` other than ``ok`` and its reason ``why``; in both cases with
        ``peak_bytes`` and ``cpu_s``.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out:
        given.write(json.dumps(request).encode())
        given.seek(0)
        with tempfile.TemporaryFile() as errors:
            before = _children_cpu_s()
            start = time.monotonic()
            process = subprocess.Popen(
                command,
                stdin=given,
                stdout=out,
                stderr=errors,
                env={**os.environ, **_QUIET},
                start_new_session=True,
            )
            peak, ended = _watched(process, limits)
            answer = ended or _answer(process.returncode, out, errors)
            cpu_s = _children_cpu_s() - before
    # Its own account misses no moment, but its descendants.
    whole = max(peak, answer.get("peak_bytes") or 0)
    return {**answer, "peak_bytes": whole, "cpu_s": cpu_s, "wall_s": time.monotonic() - start}


def _watched(process: subprocess.Popen[bytes], limits: Limits) -> tuple[int, dict[str, Any]]:
    """The most that was resident, and why it was ended, if it was. It is gone in any case."""
    peak, deadline = 0, time.monotonic() + limits.seconds
    try:
        while process.poll() is None:
            resident = _resident(process.pid)
            peak = max(peak, resident)
            if resident > limits.memory_bytes:
                why = f"more than {limits.memory_bytes / 1e9:.1f} GB resident"
                return peak, {"status": "out of memory", "why": why}
            if _available() < limits.left_bytes:
                why = f"the machine had less than {limits.left_bytes / 1e9:.1f} GB left"
                return peak, {"status": "out of memory", "why": why}
            if time.monotonic() > deadline:
                return peak, {"status": "timed out", "why": f"more than {limits.seconds:.0f} s"}
            time.sleep(_INTERVAL_S)
        return peak, {}
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answer(code: int, out: IO[bytes], errors: IO[bytes]) -> dict[str, Any]:
    for file in (out, errors):
        file.seek(0)
    with contextlib.suppress(ValueError):
        answer: dict[str, Any] = json.loads(out.read())
        return answer
    tail = errors.read().decode(errors="replace").strip()[-500:]
    if code == -signal.SIGKILL:
        return {"status": "out of memory", "why": "the kernel killed it"}
    if "bad_alloc" in tail:
        return {"status": "out of memory", "why": tail}
    if "No module named 'convexport'" in tail:
        return {"status": "not installed", "why": f"{tail.splitlines()[-1]}: {HOW_TO}"}
    return {"status": "failed", "why": f"exit code {code}: {tail}"}


def _resident(pid: int) -> int:
    """Bytes of a process and of all that descend from it."""
    total, waiting = 0, [pid]
    while waiting:
        process = Path(f"/proc/{waiting.pop()}")
        with contextlib.suppress(OSError):  # it may end while it is looked at
            total += int((process / "statm").read_text().split()[1]) * _PAGE
            for task in (process / "task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
    return total


def _available() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
