from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from convexport import cli

# Tests that import ONNX Runtime themselves must not report to its maker either.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# How long an example takes tells of the machine, and of who else is on it.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def failed_with(self, code: int, error: str = "") -> bool:
        """Refused in our own words: that exit code, that error, and no traceback."""
        assert "Traceback" not in self.err, self.err
        assert self.code == code, f"exit code {self.code}\n{self.err}"
        assert error in self.err, self.err
        return True


Command = Callable[..., Ended]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pytest-xdist's workers have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def cache(shared: Path) -> Path:
    """A cache that builds share, where it does not matter whether a stage runs again."""
    return shared / "cache"


@pytest.fixture(scope="session")
def int8_bundle(shared: Path, cache: Path) -> Path:
    """LeNet-5 that knows digits, in INT8, built by who comes first. Copy it before changing it."""
    from convexport.exporter.options import BuildOptions
    from convexport.exporter.pipeline import build

    options = BuildOptions(
        precision="int8",
        weights="digits",
        offline=True,
        bench_seconds=0,
        cache_dir=cache,
        output=shared / "int8" / "lenet5",
    )
    return build("lenet5", options).bundle


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and working directory; nothing of the developer's own is read or written."""
    for variable in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TERM"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home/.cache"))
    # Threads that wait for each other take forever where other processes want the cores too.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(home: Path) -> Command:
    """The command line in a child process, as a shell calls it."""

    def call(*arguments: str | Path, env: dict[str, str] | None = None) -> Ended:
        done = subprocess.run(
            [sys.executable, "-m", "convexport", *map(str, arguments)],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            env={**os.environ, **(env or {})},
            timeout=300,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def invoke(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """The command line in this process: the same entry point, without starting Python again."""

    def call(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["convexport", *map(str, arguments)])
        handler = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as end:
                cli.main()
        finally:
            signal.signal(signal.SIGTERM, handler)
        return Ended(end.value.code, *capsys.readouterr())

    return call
