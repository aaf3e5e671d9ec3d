"""A child reads a stranger's model within limits, and its end is an error about the file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convexport.exporter import onnx_child
from convexport.runtime.errors import InputError

# Stands in for onnx in the child, which finds it first.
DOUBLES = {
    "import os, signal\nload = lambda *_, **__: os.kill(os.getpid(), signal.SIGSEGV)": "SIGSEGV",
    "import time\nload = lambda *_, **__: time.sleep(600)": "longer than 3 s",
    "load = lambda *_, **__: bytearray(16 << 40)": "MemoryError",
    "load = lambda *_, **__: print('noise') or exit(3)": "exit code 3",
}


@pytest.mark.parametrize(("double", "why"), DOUBLES.items(), ids=DOUBLES.values())
def test_how_a_child_ends_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, double: str, why: str
) -> None:
    (tmp_path / "onnx.py").write_text(double)
    (tmp_path / "net.onnx").write_bytes(b"x")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(onnx_child, "TIMEOUT_S", 3)
    with pytest.raises(InputError) as error:
        onnx_child.read_in_a_child(tmp_path / "net.onnx", run=False)
    assert error.value.code == "E0394" and why in error.value.why


def test_a_sound_model_passes_also_below_a_limit_of_the_systems_own(
    tmp_path: Path, small_onnx: Callable[..., Any]
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(small_onnx().SerializeToString())
    onnx_child.read_in_a_child(path, run=True)
    code = (
        "import pathlib, resource, sys\n"
        "from convexport.exporter.onnx_child import read_in_a_child\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({3 << 30},) * 2)\n"
        "read_in_a_child(pathlib.Path(sys.argv[1]), run=True)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)


def test_the_memory_grows_with_the_model(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"x")
    small = onnx_child._memory_for(path)
    (tmp_path / "net.data").write_bytes(bytes(1 << 20))
    assert onnx_child._memory_for(path) - small in (8 << 20, 0)
    assert small >= 4 << 30
