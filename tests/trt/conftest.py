"""A TensorRT and a CUDA driver that are not there: see ``double`` and ``fake_libcuda.c``."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from convexport.runtime import cuda
from tests.tiny import WEIGHTS

HERE = Path(__file__).parent
VERSIONS = ("8.5", "8.6", "10.3", "10.16", "11.1")
Says = Callable[..., ModuleType]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake driver, compiled."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler for the fake CUDA driver")
    made = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    source = str(HERE / "fake_libcuda.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(made), source], check=True)
    return made


@pytest.fixture
def driver(library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The fake driver, found by this process and its children."""
    monkeypatch.setenv("FAKE_LIBCUDA", str(library))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library.parent))
    monkeypatch.setattr(cuda, "_LIBRARY", str(library))
    cuda.cuda.cache_clear()
    yield library
    cuda.cuda.cache_clear()


@pytest.fixture
def tensorrt(driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Says:
    """Makes ``import tensorrt`` give the double of a version, here and in children."""

    def says(version: str, **more: Any) -> ModuleType:
        about = tmp_path / "double.json"
        about.write_text(json.dumps({"version": version, "weights": WEIGHTS.tolist(), **more}))
        monkeypatch.setenv("TRT_DOUBLE", str(about))
        monkeypatch.setenv("PYTHONPATH", str(HERE / "double"))
        path = HERE / "double" / "tensorrt" / "__init__.py"
        spec = importlib.util.spec_from_file_location("tensorrt", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        spec.loader.exec_module(module)
        return module

    return says


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    """Bytes that only have to be there: the double does not read them."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an ONNX file")
    return path


def sha256(path: Path) -> str:
    """Of a file, by hashlib."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
