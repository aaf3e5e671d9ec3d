"""Which ONNX Runtime a program finds, and what it says where that will not do."""

from __future__ import annotations

import ctypes.util
import subprocess
from pathlib import Path

import pytest

from .conftest import Probe, lines_of
from .toolchain import BUILD, SOURCES, call, compiler, places

pytestmark = pytest.mark.slow  # builds the library first

# Of a release that knows no API so new as is asked for.
OLD = """
typedef struct { const void* (*get)(unsigned); const char* (*version)(void); } Base;
static const void* get(unsigned version) { return version <= 16 ? &get : 0; }
static const char* version(void) { return "1.16.3"; }
const Base* OrtGetApiBase(void) { static const Base base = {get, version}; return &base; }
"""
NEEDED = "E0401 loading a bundle needs ONNX Runtime 1.17 or newer"
HINT = "hint: install it where the loader looks for libraries, or say LD_LIBRARY_PATH"


def library(folder: Path, code: str) -> Path:
    """A folder with a library of ONNX Runtime's name."""
    folder.mkdir()
    (folder / "code.c").write_text(code)
    made = ["-shared", "-fPIC", "-o", str(folder / "libonnxruntime.so.1")]
    subprocess.run([compiler(), "-x", "c", str(folder / "code.c"), *made], check=True)
    return folder


@pytest.mark.skipif(
    ctypes.util.find_library("onnxruntime") is not None, reason="the machine has one of its own"
)
def test_without_a_library_a_program_starts_and_says_so(
    asan: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    (told,) = lines_of(asan / "probe-elsewhere", "load", tiny)
    problem, where, why, hint = told.split("\x1f")
    assert (problem, where, hint) == (NEEDED, "where: libonnxruntime.so.1", HINT)
    assert "cannot open shared object file" in why
    strange = library(tmp_path / "strange", "int nothing;")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(strange))
    (told,) = lines_of(asan / "probe-elsewhere", "load", tiny)
    assert told.startswith(NEEDED) and "OrtGetApiBase" in told


def test_an_older_library_is_refused_by_its_version(
    asan: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library(tmp_path / "old", OLD)))
    (told,) = lines_of(asan / "probe-elsewhere", "load", tiny)
    assert told == f"{NEEDED}\x1fwhere: found: 1.16.3\x1f{HINT}"


def test_one_that_will_do_is_found_where_the_loader_looks_or_where_it_was(
    asan: Path, probe: Probe, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(BUILD / "onnxruntime"))
    assert lines_of(asan / "probe-elsewhere", "load", tiny)[0].startswith("ok onnxruntime ")
    # The folder that the library was built with comes after one that will not do.
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library(tmp_path / "old", OLD)))
    assert probe("load", tiny)[0].startswith("ok onnxruntime ")


def test_only_the_headers_are_needed_to_build(release: Path, tmp_path: Path) -> None:
    options = [each for each in places() if "OnnxRuntime_LIBRARY" not in each]
    said = call("cmake", "-S", SOURCES, "-B", tmp_path, *options, "-DOnnxRuntime_LIBRARY=")
    assert "Found OnnxRuntime" in said
