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
_NEVER = 999


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
        runs_plans_of: the majors whose version-compatible plans it runs; where there is none,
            nor does it build such plans.
        levels: whether one may say how long the builder searches.
        hardware: the names of other GPUs that a plan may be for.
        libraries: whether cuBLAS and cuDNN are sources of kernels that can be left out.
        core_libraries: whether its core opens them all the same, unless a preview feature is on.
    """

    since: Version
    types: str
    prefers_graph: bool
    int64: bool
    dla: bool
    runs_plans_of: Tuple[int, ...]
    levels: bool
    hardware: Tuple[str, ...]
    libraries: bool
    core_libraries: bool


_AMPERE, _BOTH = ("ampere_plus",), ("ampere_plus", "same_compute_capability")
# Sources: NVIDIA's release notes and support matrices. None of the rows was confirmed by a
# build on a GPU yet.
GENERATIONS = (
    Generation((8, 5), "builder", False, False, True, (), False, (), True, True),
    Generation((8, 6), "builder", False, False, True, (8,), True, _AMPERE, True, True),
    Generation((10, 0), "either", False, True, True, (8, 10), True, _AMPERE, True, False),
    Generation((10, 8), "either", False, True, False, (8, 10), True, _AMPERE, True, False),
    Generation((10, 12), "either", True, True, False, (8, 10), True, _BOTH, True, False),
    Generation((11, 0), "graph", True, True, False, (10, 11), True, _BOTH, False, False),
    Generation((11, 4), "graph", True, True, True, (10, 11), True, _BOTH, False, False),
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
    found, (least, end) = _numbers(version), _range(versions)
    return found >= least and (not end or found < end)


def generations(versions: str) -> Tuple[Generation, ...]:
    """The rows of all versions in a range such as ``>=10.13,<12``.

    Raises:
        UnsupportedError: E0601, that says something else.
    """
    least, end = _range(versions)
    ends = [row.since for row in GENERATIONS[1:]] + [(_NEVER, 0)]
    return tuple(
        row for row, last in zip(GENERATIONS, ends) if last > least and (not end or row.since < end)
    )


def _range(versions: str) -> Tuple[Tuple[int, ...], Tuple[int, ...]]:
    """The first version, and the first beyond; each empty where there is no bound."""
    least: Tuple[int, ...] = ()
    end: Tuple[int, ...] = ()
    for part in versions.split(","):
        bound = _numbers(part.lstrip("<>="))
        if part.startswith(">="):
            least = max(least, bound)
        elif part.startswith("<") and not part.startswith("<="):
            end = min(end or bound, bound)
        else:
            raise UnsupportedError("E0601", f"{part!r} is no range of versions")
    return least, end


def bits(trt: Any, enumeration: str, *names: str) -> int:
    """The mask of those names that the enumeration has."""
    kinds = getattr(trt, enumeration)
    return sum(1 << int(getattr(kinds, name)) for name in names if hasattr(kinds, name))


def _numbers(text: str) -> Tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", text)
    if not found:
        raise UnsupportedError("E0601", f"{text[:40]!r} is no version of TensorRT")
    return tuple(int(part) for part in found[0].split("."))
