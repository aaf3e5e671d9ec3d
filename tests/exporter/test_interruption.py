"""Killed in each stage: nothing half-written is accepted, and the next run finishes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from convexport.exporter.cache import StageCache
from convexport.runtime.engine import load

NET = ("build", "lenet5", "--weights", "digits", "--int8", "--offline", "--bench-seconds", "0")
STAGES = (
    "reference",
    "export",
    "simplify",
    "calibrate",
    "equalize",
    "quantize",
    "accuracy",
    "bundle",
)

# Builds once elsewhere, so that everything is imported, then forks a command line for each stage,
# and kills that as soon as the stage has done its work but nothing of it is committed: the moment
# at which most lies around. The last one is left alone. Tells of each how it ended, what it said
# and what lies where.
DRIVER = """
import contextlib, json, os, sys
from pathlib import Path

from convexport import cli
from convexport.exporter import bundle_writer
from convexport.exporter.cache import StageCache

numbers, victims = json.loads(sys.argv.pop(1)), sys.argv.pop(1).split()
arguments = sys.argv
sys.argv = [*arguments, "--cache-dir", "warm/cache", "-o", "warm/net"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(sys.stderr):
    cli.main()
stage, manifest = StageCache.stage, bundle_writer._manifest

def interrupted(self, name, inputs, produce, **options):
    def fatal(directory):
        facts = produce(directory)
        if name == victim:
            os.kill(os.getpid(), number)
        return facts
    return stage(self, name, inputs, fatal, **options)

def writing(*arguments):
    if victim == "bundle":
        os.kill(os.getpid(), number)
    return manifest(*arguments)

StageCache.stage, bundle_writer._manifest = interrupted, writing
for number in numbers:
    sys.argv = [*arguments, "--cache-dir", f"{number}/cache", "-o", f"{number}/out/net"]
    for victim in (*victims, "nobody"):
        log = Path(f"{victim}.log")
        child = os.fork()
        if child == 0:
            with log.open("w") as file:
                os.dup2(file.fileno(), 2)
            sys.stdout = sys.stderr
            try:
                cli.main()
            except SystemExit as end:  # without the seconds in which Python would tidy up
                sys.stderr.flush()
                os._exit(end.code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        ended = {"number": number, "victim": victim, "code": code, "err": log.read_text()}
        ended["hidden"] = [str(path) for path in Path(str(number), "cache").rglob(".*")]
        ended["out"] = [path.name for path in Path(str(number), "out").glob("*")]
        print(json.dumps(ended), flush=True)
"""


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """How builds ended that were killed in each stage by each signal, and where they ran."""
    folder = tmp_path_factory.mktemp("interrupted")
    program = [sys.executable, "-c", DRIVER, json.dumps(SIGNALS), " ".join(STAGES)]
    done = subprocess.run(
        [*program, *NET],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    return folder, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_interrupted_in_each_stage(
    ends: tuple[Path, list[dict[str, Any]]], number: signal.Signals
) -> None:
    folder, all_ends = ends
    *interrupted, last = (ended for ended in all_ends if ended["number"] == number)
    assert [ended["victim"] for ended in interrupted] == list(STAGES)
    for ended in interrupted:
        assert "net" not in ended["out"]
        assert "Traceback" not in ended["err"]
        if number == signal.SIGKILL:
            assert ended["code"] == -signal.SIGKILL, ended
        else:
            assert ended["code"] == 130, ended
            assert ended["out"] == [] == ended["hidden"], ended
    assert last["code"] == 0, last
    bundle = folder / str(int(number)) / "out/net"
    load(bundle)
    for file in ("manifest.json", "model.onnx", "calibration.json"):
        assert (bundle / file).read_bytes() == (folder / "warm/net" / file).read_bytes()
    report = json.loads((bundle / "report.json").read_text())
    assert all(stage["cached"] for stage in report["stages"])


@pytest.mark.slow
@pytest.mark.parametrize(("number", "delay"), [(signal.SIGINT, 0.2), (signal.SIGTERM, 1.5)])
def test_interrupted_while_torch_exports(home: Path, number: signal.Signals, delay: float) -> None:
    """From outside and at no chosen moment, in the one stage that takes seconds."""
    (home / "out").mkdir()
    arguments = (*NET, "--cache-dir", "cache", "-o", "out/net")
    with subprocess.Popen(
        [sys.executable, "-m", "convexport", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert any(line.startswith("  reference") for line in lines)
        time.sleep(delay)
        process.send_signal(number)
        rest = "".join(lines)
    # Interrupted in an exec of text, Python ends by the signal itself: to a shell 130 as well.
    assert process.returncode == 130 or process.returncode == -number == -signal.SIGINT, rest
    assert "Traceback" not in rest
    assert list((home / "out").iterdir()) == [] == list((home / "cache").rglob(".*"))


KILLED_ALONE = """
import os, pathlib, signal
from convexport.exporter.cache import StageCache

def fatal(directory):
    (directory / "half").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

StageCache(pathlib.Path("cache")).stage("stage", {"x": 1}, fatal)
"""


@pytest.fixture
def killed(home: Path) -> StageCache:
    """A cache in which a process was killed while it made the entry of stage, x = 1."""
    done = subprocess.run([sys.executable, "-c", KILLED_ALONE])
    assert done.returncode == -signal.SIGKILL
    assert list((home / "cache/stages").glob(".*/half"))
    return StageCache(home / "cache", lock_timeout=1)


def test_a_killed_build_holds_no_lock_and_gives_no_result(killed: StageCache) -> None:
    result = killed.stage("stage", {"x": 1}, lambda directory: {"made": "anew"})
    assert (result.facts, result.cached) == ({"made": "anew"}, False)


def test_what_a_killed_build_left_is_swept(killed: StageCache) -> None:
    killed.stage("stage", {"x": 1}, lambda directory: {})
    assert list(killed.root.rglob(".*")) == []
