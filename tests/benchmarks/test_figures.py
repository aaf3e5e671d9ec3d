"""The project's own figures: a failure is told with its reason, a loaded machine is one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convexport.benchmarks.figures import Finished, succeeded

# Prints its children and is killed, inside the block or after it.
_HOLDER = """
import os, sys
from pathlib import Path
from convexport.benchmarks.meter_figures import every_core_busy
with every_core_busy():
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    print(found, flush=True)
    if sys.argv[1] == "killed":
        sys.stdin.read()
assert not Path(f"/proc/self/task/{os.getpid()}/children").read_text()
"""


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ('warned\n{"error": {"code": "E0685", "what": "no net"}}\n', "lenet5: E0685 no net"),
        ("Traceback\nValueError: no\n", "lenet5: exit code 3: ValueError: no"),
        ("", "lenet5: exit code 3"),
    ],
)
def test_a_figure_that_fails_says_why(errors: str, told: str) -> None:
    with pytest.raises(SystemExit) as end:
        succeeded(Finished(3, 1.0, 1.0, "", errors), "lenet5")
    assert end.value.code == told


@pytest.mark.parametrize("way", ["left", "killed"])
def test_the_load_ends_with_who_asked_for_it(way: str) -> None:
    command, pipe = (sys.executable, "-c", _HOLDER, way), subprocess.PIPE
    with subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout is not None
        children = [int(pid) for pid in holder.stdout.readline().split()]
        if way == "killed":
            holder.send_signal(signal.SIGKILL)
    assert holder.returncode == (0 if way == "left" else -signal.SIGKILL)
    assert len(children) == len(os.sched_getaffinity(0))
    for pid in children:
        _wait_for_end(pid)


def _wait_for_end(pid: int) -> None:
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} still runs")
