"""What differs between TensorRT 8.5 and 11 where names alone do not tell.

Whether a flag, an attribute or a method is there is asked of the module itself, by name: the
numbers behind the names changed from one major version to the next.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Tuple

from convexport.runtime.errors import UnsupportedError

Version = Tuple[int, int]


@dataclass(frozen=True)
class Generation:
    """The versions from one on, up to the next row.

    Attributes:
        since: major and minor version.
        types: who chooses the layers' types: ``builder``, by its precision flags; ``graph``;
            ``either``, as the network was created.
        prefers_graph: whether types from the graph are complete there, or all there is.
        int64: whether INT64 inputs and outputs stay INT64; they became INT32 before.
        dla: whether it drives a DLA at all.
        runs_plans_of: the majors whose version-compatible plans it runs.
    """

    since: Version
    types: str
    prefers_graph: bool
    int64: bool
    dla: bool
    runs_plans_of: Tuple[int, ...]


# Sources: NVIDIA's release notes and support matrices. None of the rows was confirmed by a
# build on a GPU yet.
GENERATIONS = (
    Generation((8, 5), "builder", False, False, True, ()),
    Generation((8, 6), "builder", False, False, True, (8,)),
    Generation((10, 0), "either", False, True, True, (8, 10)),
    Generation((10, 8), "either", False, True, False, (8, 10)),
    Generation((10, 12), "either", True, True, False, (8, 10)),
    Generation((11, 0), "graph", True, True, False, (10, 11)),
    Generation((11, 4), "graph", True, True, True, (10, 11)),
)


def parse_version(text: str) -> Version:
    """Major and minor of a version string, the minor 0 where it is not there.

    Raises:
        UnsupportedError: E0601, it is none.
    """
    major, minor = (*_numbers(text), 0)[:2]
    return major, minor


def generation(version: str) -> Generation:
    """The row of a TensorRT version such as ``10.3.0``.

    Raises:
        UnsupportedError: E0601, it is older than the first row.
    """
    wanted = parse_version(version)
    rows = [row for row in GENERATIONS if row.since <= wanted]
    if not rows:
        raise UnsupportedError(
            "E0601",
            f"TensorRT {version} is too old",
            why="named tensors and execute_async_v3 came with 8.5",
            hint="JetPack 5.1 or later has one that will do",
        )
    return rows[-1]


def fits(version: str, versions: str) -> bool:
    """Whether a version is one of ``versions``, such as ``>=8.5.2,<8.6``.

    Raises:
        UnsupportedError: E0601, that says something else.
    """
    found = _numbers(version)
    for part in versions.split(","):
        bound = _numbers(part.lstrip("<>="))
        if part.startswith(">="):
            inside = found >= bound
        elif part.startswith("<") and not part.startswith("<="):
            inside = found < bound
        else:
            raise UnsupportedError("E0601", f"{part!r} is no range of versions")
        if not inside:
            return False
    return True


def bits(trt: Any, enumeration: str, *names: str) -> int:
    """The mask of those names that the enumeration has."""
    kinds = getattr(trt, enumeration)
    return sum(1 << int(getattr(kinds, name)) for name in names if hasattr(kinds, name))


def _numbers(text: str) -> Tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", text)
    if not found:
        raise UnsupportedError("E0601", f"{text[:40]!r} is no version of TensorRT")
    return tuple(int(part) for part in found[0].split("."))
