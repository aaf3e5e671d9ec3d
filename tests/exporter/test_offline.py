"""Nothing is sent anywhere: with every socket refused, all commands but downloads work."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Read by Python at its start, in the command and in each of its children.
REFUSE = """
import sys

def hook(event, arguments):
    if event in ("socket.__new__", "socket.connect", "socket.getaddrinfo", "socket.bind"):
        with open({log!r}, "a") as file:
            print(event, arguments, file=file)
        raise OSError("a socket was opened")

sys.addaudithook(hook)
"""


@pytest.fixture
def sealed(command: Any, home: Path) -> Callable[..., Any]:
    """A command that may open no socket, and must not have tried."""
    (home / "site").mkdir()
    log = home / "sockets.log"
    (home / "site/sitecustomize.py").write_text(REFUSE.format(log=str(log)))
    env = {"PYTHONPATH": str(home / "site"), "ORT_DISABLE_TELEMETRY": ""}

    def call(*arguments: str | Path) -> Any:
        done = command(*arguments, env=env)
        assert not log.exists(), log.read_text()
        return done

    return call


def test_the_seal_holds(sealed: Any, home: Path) -> None:
    """Otherwise the tests below would prove nothing: a download does try."""
    with pytest.raises(AssertionError, match="socket"):
        sealed("build", "resnet18", "--weights", "pretrained", "-o", "out")


@pytest.mark.slow
def test_a_build_offline_opens_no_socket(sealed: Any, home: Path) -> None:
    done = sealed("build", "resnet18", "--weights", "pretrained", "--offline", "-o", "out")
    assert done.failed_with(4, "E0420")
    quick = ("--offline", "--bench-seconds", "0.2", "--cache-dir", "cache")
    done = sealed("build", "lenet5", "--weights", "digits", "--int8", *quick, "-o", "out")
    assert done.code == 0, done.err


@pytest.mark.slow
def test_other_commands_open_no_socket(sealed: Any, int8_bundle: Path) -> None:
    assert sealed("verify", int8_bundle, "--data", "digits").code == 0
    assert sealed("inspect", int8_bundle / "model.onnx").code == 0
    assert sealed("show", "lenet5").code == 0
    assert sealed("doctor").code in (0, 4)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_native_code_opens_no_socket_either(int8_bundle: Path, home: Path) -> None:
    """Python's hooks do not see what ONNX Runtime does by itself."""
    trace = ["strace", "-f", "-qq", "-e", "trace=connect", "-o", "trace"]
    program = [sys.executable, "-m", "convexport", "verify", str(int8_bundle)]
    done = subprocess.run([*trace, *program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "AF_INET" not in (home / "trace").read_text()
