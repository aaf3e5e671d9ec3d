"""The C++ sources are formatted, and small, as the Python ones are."""

from __future__ import annotations

import subprocess

import pytest

from .toolchain import ROOT, MissingToolError, tool

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


def test_files_are_short() -> None:
    assert len(FILES) > 30
    assert [path for path in FILES if len(path.read_text().splitlines()) > 300] == []
