"""``doctor``: what this machine can do, what is missing, and the exact fix."""

from __future__ import annotations

import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Group

from convexport.exporter.console import line, table
from convexport.exporter.doctor_packages import (
    Finding,
    State,
    clashes,
    cuda_libraries,
    onnxruntime,
    packages,
    version_of,
)
from convexport.exporter.options import default_cache
from convexport.exporter.targets import TARGETS
from convexport.runtime.board import free_memory
from convexport.runtime.cuda import cuda
from convexport.runtime.errors import ConvexportError, MachineError
from convexport.runtime.sessions import require_runtime
from convexport.runtime.trt_engine import import_tensorrt

_CUDA = (
    "with an NVIDIA driver, CUDA and cuDNN: pip uninstall onnxruntime, "
    "then pip install onnxruntime-gpu"
)
_CUDA_LIBRARIES = (
    "pip install 'onnxruntime-gpu[cuda,cudnn]', or install the CUDA and cuDNN that it names"
)
_NEEDED_MB = 2000


def examine(cache_dir: Path | None = None) -> list[Finding]:
    """Look at everything; nothing heavy is imported but the runtimes."""
    cache = cache_dir or default_cache()
    return [
        Finding("python", "ok", sys.version.split()[0]),
        *packages(),
        *clashes(),
        *onnxruntime(),
        *_gpu(),
        *_targets(),
        _compiler(),
        _cache(cache),
        _disk(cache),
        _memory(),
    ]


def failed(findings: list[Finding]) -> bool:
    """Whether anything stands in the way of the main job."""
    return any(finding.state == "problem" for finding in findings)


def as_text(findings: list[Finding]) -> Any:
    """The findings for a terminal."""
    marks = {"ok": "ok", "missing": "–", "problem": "!!"}
    rows = [(each.what, marks[each.state], each.detail) for each in findings]
    made = table(("", "", ""), rows, texts=3)
    fixes = [line(f"{each.what}: {each.fix}") for each in findings if each.fix]
    return Group(made, line(""), *fixes) if fixes else made


def _gpu() -> Iterator[Finding]:
    absent: State = "missing"
    try:
        here, (free, total) = cuda().gpu, cuda().memory()
    except MachineError as error:
        yield Finding("GPU", "missing", f"{error.what} ({error.why})", error.hint)
    else:
        absent = "problem"
        memory = f"{free >> 20} of {total >> 20} MiB free"
        kind = f"{here.name}, compute capability {here.compute_capability}"
        yield Finding("GPU", "ok", f"{kind}, driver for CUDA {here.driver}, {memory}")
    if missing := cuda_libraries():
        # Without a GPU the CPU's half of the package may be all that is wanted.
        yield Finding("CUDA libraries", absent, missing, _CUDA_LIBRARIES)
    try:
        version = import_tensorrt("running engines").__version__
    except ConvexportError as error:
        yield Finding("tensorrt", "missing", error.what, error.hint)
    else:
        yield Finding("tensorrt", "ok", version)


def _targets() -> Iterator[Finding]:
    for target in TARGETS.values():
        if target.device:
            continue  # what is built for another machine needs nothing here
        try:
            require_runtime(target.runtime, target.provider)
        except ConvexportError as error:
            fix = _CUDA if target.name == "cuda" else error.hint
            state: State = "problem" if target.name == "cpu" else "missing"
            yield Finding(f"target {target.name}", state, error.what, fix)
        else:
            here = ", ".join(each for each in target.precisions if not target.refusal(each))
            # ONNX Runtime has a line of its own above.
            version = "" if target.runtime == "onnxruntime" else f" ({version_of(target.runtime)})"
            yield Finding(f"target {target.name}", "ok", f"{here}{version}")


def _compiler() -> Finding:
    found = {name: shutil.which(name) for name in ("cmake", "c++")}
    lacking = [name for name, path in found.items() if path is None]
    if lacking:
        fix = "apt-get install cmake g++ ninja-build"
        return Finding("C++", "missing", f"no {', no '.join(lacking)}; for the C++ library", fix)
    return Finding("C++", "ok", ", ".join(str(path) for path in found.values()))


def _cache(cache: Path) -> Finding:
    if not cache.exists():
        return Finding("cache", "ok", f"{cache} (empty)")
    if cache.stat().st_mode & stat.S_IWOTH:
        return Finding("cache", "problem", f"anybody may write to {cache}", f"chmod o-w {cache}")
    size = sum(_size(path) for path in cache.rglob("*"))
    return Finding("cache", "ok", f"{cache} ({size / 1e6:.0f} MB; may be deleted at any time)")


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # it was deleted meanwhile
        return 0


def _disk(cache: Path) -> Finding:
    place = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(place).free / 1e6
    return _enough("disk", free, f"{free:.0f} MB free at {place}", "free some space")


def _memory() -> Finding:
    free = free_memory() / 1e6
    if not free:
        return Finding("memory", "missing", "not known on this system")
    return _enough("memory", free, f"{free:.0f} MB available", "close other programs")


def _enough(what: str, free: float, detail: str, fix: str) -> Finding:
    if free < _NEEDED_MB:
        return Finding(what, "problem", f"{detail}; a build wants {_NEEDED_MB} MB", fix)
    return Finding(what, "ok", detail)
