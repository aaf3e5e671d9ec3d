"""The C++ sources are formatted, and small, as the Python ones are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from .toolchain import ROOT, SOURCES, MissingToolError, call, tool

FOLDERS = ("runtime/cpp", "tests/cpp", "examples/cpp")
FILES = [
    path
    for folder in FOLDERS
    for suffix in ("cpp", "hpp")
    for path in sorted((ROOT / folder).rglob(f"*.{suffix}"))
    if "build" not in path.relative_to(ROOT).parts
]


def test_files_are_formatted() -> None:
    try:
        program = tool("clang-format")
    except MissingToolError as error:
        pytest.skip(str(error))
    done = subprocess.run([program, "--dry-run", "-Werror", *FILES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["src/engine", "src/ort_library", "src/ort_session", "programs/convexport_run"],
)
def test_clang_tidy_finds_nothing(release: Path, name: str) -> None:
    try:
        program = tool("clang-tidy")
    except MissingToolError:
        pytest.skip("no clang-tidy")
    (version,) = re.findall(r"version (\d+)", call("clang-tidy", "--version"))
    if int(version) < 18:
        pytest.skip("a clang-tidy that knows other checks")
    # What the library is compiled with; clang alone would take an older C++ for granted.
    words = [program, "-p", release, "--quiet", "--extra-arg=-std=c++17"]
    done = subprocess.run(
        [*words, SOURCES / f"{name}.cpp"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout[:3000] + done.stderr[-1000:]


def test_files_are_short() -> None:
    assert len(FILES) > 30
    assert [path for path in FILES if len(path.read_text().splitlines()) > 300] == []
