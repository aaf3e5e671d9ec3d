from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from convexport.runtime.children import run_child
from convexport.runtime.errors import MachineError

# Waits for ever, in a child of its own too; tells both ids in the file named first.
_STUCK = (
    "import os, subprocess, sys, time\n"
    "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "open(sys.argv[1] + '~', 'w').write(f'{os.getpid()} {other.pid}')\n"
    "os.rename(sys.argv[1] + '~', sys.argv[1])\n"
    "print('still at it', file=sys.stderr, flush=True)\n"
    "time.sleep(600)\n"
)


def _run(code: str, *arguments: str, timeout_s: float = 60) -> tuple[bytes, list[str]]:
    command = (sys.executable, "-c", code, *arguments)
    return run_child(command, b"question", timeout_s=timeout_s, env=os.environ)


def _wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def _gone(pid: int) -> bool:
    """Dead, or a zombie that nobody has reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_answer_and_stderr_come_back() -> None:
    code = "import sys; print(sys.stdin.read()[::-1]); print('hm', file=sys.stderr)"
    assert _run(code) == (b"noitseuq\n", ["hm"])


def test_a_crash_tells_what_the_child_said_last() -> None:
    with pytest.raises(MachineError, match="E0410") as caught:
        _run("import sys; [print('line', i, file=sys.stderr) for i in range(50)]; 1 / 0")
    assert "exit code 1" in caught.value.what
    assert caught.value.why.endswith("ZeroDivisionError: division by zero")
    assert "line 49" in caught.value.why and "line 10\n" not in caught.value.why


def test_a_signal_is_named() -> None:
    with pytest.raises(MachineError, match="SIGABRT"):
        _run("import os, signal; os.kill(os.getpid(), signal.SIGABRT)")


def test_a_hung_child_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(MachineError, match="E0411"):
        _run(_STUCK, str(pids), timeout_s=3)
    for pid in map(int, pids.read_text().split()):
        assert _wait_until(partial(_gone, pid))


def test_ctrl_c_kills_the_child_with_its_children(tmp_path: Path) -> None:
    pids, stuck = tmp_path / "pids", tmp_path / "stuck.py"
    stuck.write_text(_STUCK)
    code = (
        "import os, sys; from convexport.runtime.children import run_child\n"
        "run_child((sys.executable, *sys.argv[1:]), b'', timeout_s=600, env=os.environ)"
    )
    command = [sys.executable, "-c", code, str(stuck), str(pids)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as parent:
        assert _wait_until(pids.exists)
        parent.send_signal(signal.SIGINT)
        _, stderr = parent.communicate(timeout=30)
    assert b"KeyboardInterrupt" in stderr
    for pid in map(int, pids.read_text().split()):
        assert _wait_until(partial(_gone, pid))
