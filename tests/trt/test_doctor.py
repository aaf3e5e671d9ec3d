"""``doctor`` tells what there is of a GPU and of TensorRT; with the recording double."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from convexport.exporter.doctor import examine, failed
from convexport.exporter.doctor_packages import Finding
from convexport.runtime import cuda

from .conftest import Says


def told(tmp_path: Path) -> dict[str, Finding]:
    findings = examine(tmp_path / "cache")
    assert not failed([each for each in findings if each.what in ("GPU", "tensorrt")])
    return {each.what: each for each in findings}


def test_a_gpu_and_tensorrt_are_told(tensorrt: Says, tmp_path: Path) -> None:
    tensorrt("8.5")
    here = told(tmp_path)
    assert here["GPU"].state == here["tensorrt"].state == "ok"
    assert here["GPU"].detail == (
        "Orin, compute capability 8.7, driver for CUDA 12.6, 4096 of 8192 MiB free"
    )
    assert here["tensorrt"].detail == "8.5.3.1"


def test_without_them_the_fix_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(cuda, "_LIBRARY", "libnone.so.1")
    cuda.cuda.cache_clear()
    here = told(tmp_path)
    assert here["GPU"].state == here["tensorrt"].state == "missing"
    assert "driver" in here["GPU"].fix
    assert "convexport[tensorrt]" in here["tensorrt"].fix


def test_an_old_tensorrt_is_told(tensorrt: Says, tmp_path: Path) -> None:
    tensorrt("8.5", says_version="8.4.1")
    assert "too old" in told(tmp_path)["tensorrt"].detail
