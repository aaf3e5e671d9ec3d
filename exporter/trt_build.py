"""The stage that builds a TensorRT engine for this machine, kept like every other stage's result.

Its bytes differ from build to build, since kernels are chosen by measuring them; so does the speed,
a little. What is found in the cache is hashed again, as everything there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from convexport.exporter.cache import acquire
from convexport.runtime.cuda import cuda
from convexport.runtime.files import sha256_of, storage_errors
from convexport.runtime.trt_child import build_engine
from convexport.runtime.trt_config import TrtOptions
from convexport.runtime.trt_engine import import_tensorrt

PLAN = "model.plan"


def engine_inputs(onnx: Path, options: TrtOptions) -> dict[str, Any]:
    """Everything that an engine depends on, for the stage's key.

    The timing cache is no part of it: each build changes that one, and it only spares measuring.

    Raises:
        MachineError: E0401 or E0404, TensorRT or a GPU is not there.
        UnsupportedError: E0601, TensorRT is too old.
    """
    return {
        "onnx": sha256_of(onnx),
        "tensorrt": import_tensorrt("building an engine").__version__,
        "gpu": asdict(cuda().gpu),
        "options": options.to_dict(),
    }


def engine_stage(
    onnx: Path, options: TrtOptions, cache_root: Path, out: Path, *, lock_timeout: float = 600.0
) -> Mapping[str, Any]:
    """Write ``model.plan`` and the facts beside it; the layers are in what is returned.

    Args:
        cache_root: the build cache; timings of kernels are kept below it for all builds.
        lock_timeout: seconds to wait for another engine's build on this GPU.

    Raises:
        ConvexportError: as ``runtime.trt_child.build_engine``.
        BusyError: E0780, another build holds the GPU for too long.
    """
    with _gpu_to_itself(cache_root / "timing", lock_timeout) as timing_cache:
        made = build_engine(onnx, out / PLAN, options, timing_cache=timing_cache)
    return {
        "tensorrt": made.facts.tensorrt,
        "gpu": made.facts.gpu,
        "driver": made.facts.driver,
        "options": options.to_dict(),
        "build_seconds": made.seconds,
        "timing_cache_taken": made.cache_taken,
        "engine": dict(made.layers),
    }


@contextmanager
def _gpu_to_itself(folder: Path, timeout: float) -> Iterator[Path]:
    """One engine at a time: two would disturb each other's measurements, not only the file."""
    gpu, version = cuda().gpu, import_tensorrt("building an engine").__version__
    name = re.sub(r"\W+", "-", f"{gpu.name} {gpu.compute_capability} {gpu.driver} trt {version}")
    with storage_errors(folder):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    lock = FileLock(folder / f"{name}.lock")
    acquire(lock, timeout, "this GPU")
    try:
        yield folder / f"{name}.cache"
    finally:
        lock.release()
