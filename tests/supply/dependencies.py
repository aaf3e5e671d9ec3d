"""What comes with an installation: which versions, and under which licences.

    python -m tests.supply.dependencies lock       writes constraints-dev.txt
    python -m tests.supply.dependencies licences   writes docs/licences.md

Both read the environment that they run in, where ``convexport[dev]`` must be installed.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCK, LICENCES = ROOT / "constraints-dev.txt", ROOT / "docs/licences.md"
_LOCK_HEAD = """\
# What the figures in the documentation were measured with, and what CI runs: every package that
# convexport[dev] brings, those that others bring included. To renew it: raise what is to be raised
# in a fresh environment, run the tests, then python -m tests.supply.dependencies lock
# Not here: what the CUDA builds of torch and onnxruntime-gpu ask for.
"""
_LICENCES_HEAD = """\
# Licences of what is installed

convexport itself is Apache-2.0. These are the packages that an installation brings, in the versions
of `constraints-dev.txt`, with the licence that each states in its metadata; some wheels contain
further libraries with licences of their own, in the files of their `dist-info`. `run` is brought by
the package alone, `cpu` to build (`convexport[cpu]`), `dev` for development and the other runtimes.
`python -m tests.supply.dependencies licences` writes this file.

| Package | Version | Licence | For |
|---|---|---|---|
"""


def closure(*extras: str) -> set[str]:
    """Names of all packages that ``convexport`` with these extras brings, normalized.

    Raises:
        PackageNotFoundError: one of them is not installed.
    """
    seen: set[tuple[str, str]] = set()
    waiting = [("convexport", extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for text in importlib.metadata.requires(name) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(needed.name), each) for each in ("", *needed.extras)]
    return {name for name, _ in seen} - {"convexport"}


def version_of(name: str) -> str:
    """The installed version as PyPI has it, without the mark of a local build."""
    return Version(importlib.metadata.version(name)).public


def lock() -> str:
    """The text of constraints-dev.txt."""
    return _LOCK_HEAD + "".join(f"{name}=={version_of(name)}\n" for name in sorted(closure("dev")))


def locked() -> dict[str, str]:
    """Name -> version in constraints-dev.txt."""
    pins = re.findall(r"^([\w.-]+)==(\S+)$", LOCK.read_text(), re.M)
    return {canonicalize_name(name): version for name, version in pins}


def licence_of(name: str) -> str:
    """What a package's metadata says."""
    data = importlib.metadata.metadata(name)
    if expression := data.get("License-Expression"):
        return str(expression)
    prefix = "License :: OSI Approved :: "
    classes = [each for each in data.get_all("Classifier", ()) if each.startswith(prefix)]
    named = [each.removeprefix(prefix) for each in classes]
    first = (data.get("License") or "").strip().partition("\n")[0]
    return ", ".join(named) or first[:80] or "not stated"


def licence_rows() -> dict[str, str]:
    """Name -> line of Markdown."""
    run, cpu = closure(), closure("cpu")
    rows = {}
    for name in sorted(closure("dev")):
        use = "run" if name in run else "cpu" if name in cpu else "dev"
        rows[name] = f"| {name} | {version_of(name)} | {licence_of(name)} | {use} |"
    return rows


if __name__ == "__main__":
    if sys.argv[1:] == ["lock"]:
        LOCK.write_text(lock(), encoding="utf-8")
    elif sys.argv[1:] == ["licences"]:
        text = _LICENCES_HEAD + "".join(f"{row}\n" for row in licence_rows().values())
        LICENCES.write_text(text, encoding="utf-8")
    else:
        sys.exit(__doc__)
