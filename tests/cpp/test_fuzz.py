"""Hostile manifests and images end in our own errors, under the sanitizers."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import lines_of
from .test_pixels import saved

pytestmark = pytest.mark.slow  # builds the library first

SECONDS = 8


def test_mutated_files_give_errors_of_ours_alone(asan: Path, tiny: Path, tmp_path: Path) -> None:
    seeds = [path for path in saved(tmp_path / "images") if path.stat().st_size < 20_000]
    words = [str(SECONDS), "1", tiny / "manifest.json", *seeds]
    (tried,) = lines_of(asan / "fuzz", *words, folder=tmp_path)
    assert int(tried) > 500
