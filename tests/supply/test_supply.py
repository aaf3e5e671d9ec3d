"""Everything that is installed is pinned and its licence known; a wheel is the same everywhere."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.supply.dependencies import LICENCES, ROOT, closure, licence_rows, locked, version_of


@pytest.fixture(scope="module")
def installed() -> set[str]:
    try:
        return closure("dev")
    except importlib.metadata.PackageNotFoundError as error:
        pytest.skip(f"convexport[dev] is not whole here: {error}")


def test_everything_is_pinned(installed: set[str]) -> None:
    assert installed - locked().keys() == set(), "python -m tests.supply.dependencies lock"


def test_pins_are_exact_and_given_once() -> None:
    lines = [line for line in (ROOT / "constraints-dev.txt").read_text().splitlines() if line]
    pins = [line for line in lines if not line.startswith("#")]
    assert len(pins) == len(locked()) and all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)


def test_licences_are_those_of_the_packages(installed: set[str]) -> None:
    lines = LICENCES.read_text(encoding="utf-8").splitlines()
    told = {
        line.split("|")[1].strip(): line for line in lines[lines.index("|---|---|---|---|") + 1 :]
    }
    assert told.keys() == locked().keys()
    rows = licence_rows()
    for name in installed:
        if version_of(name) == locked()[name]:
            assert told[name] == rows[name], "python -m tests.supply.dependencies licences"


@pytest.mark.slow
def test_a_wheel_is_the_same_wherever_it_is_built(tmp_path: Path) -> None:
    """With one umask, as CONTRIBUTING.md says: a wheel records the modes of files."""
    hashes = {}
    for place, seed in (("here", "1"), ("there/and/deeper", "2")):
        checkout, out = tmp_path / place, tmp_path / f"out-{seed}"
        clone = ["git", "clone", "-q", str(ROOT), str(checkout)]
        subprocess.run(clone, check=True, umask=0o022)
        os.utime(checkout / "README.md", (int(seed) * 10**8,) * 2)
        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(out), "."],
            cwd=checkout,
            env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "PYTHONHASHSEED": seed},
            umask=0o022,
            capture_output=True,
            check=True,
        )
        (wheel,) = out.glob("*.whl")
        hashes[place] = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert len(set(hashes.values())) == 1
