"""An engine is built by a child process: what kills that one leaves this one to say so."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from convexport.runtime.board import free_memory
from convexport.runtime.children import answer, run_child
from convexport.runtime.cuda import cuda
from convexport.runtime.errors import MachineError, rebuilt
from convexport.runtime.files import sha256_of, storage_errors, write_atomically
from convexport.runtime.trt_builder import build_plan, memory_needed
from convexport.runtime.trt_config import TrtOptions
from convexport.runtime.trt_engine import import_tensorrt, load_engine, tensors
from convexport.runtime.trt_layers import read_layers, summary
from convexport.runtime.trt_plan import PlanFacts, read_facts, this_platform

TIMEOUT_S = 4 * 3600.0
_CRASHED = "E0410"
_TAIL = 5  # lines of TensorRT's log


@dataclass(frozen=True)
class BuiltEngine:
    """An engine that was built here.

    Attributes:
        facts: the same as in the file beside the plan.
        layers: with their precisions, as ``trt_layers.summary`` tells them.
        seconds: that the build took.
        cache_taken: whether it could use the timing cache.
    """

    facts: PlanFacts
    layers: Mapping[str, Any]
    seconds: float
    cache_taken: bool


def build_engine(
    onnx: Path,
    plan: Path,
    options: TrtOptions,
    *,
    timing_cache: Optional[Path] = None,
    timeout_s: float = TIMEOUT_S,
) -> BuiltEngine:
    """Write a plan, the facts beside it, and TensorRT's log, ``<plan>.log``.

    Args:
        timing_cache: read if it is there, and written anew. No two builds may use one at a time.

    Raises:
        ConvexportError: as ``trt_builder.build_plan``.
        MachineError: E0412, the build was killed, most often for want of memory; E0411, it took
            too long.
    """
    request = {
        "onnx": str(onnx),
        "plan": str(plan),
        "options": options.to_dict(),
        "timing_cache": str(timing_cache or ""),
    }
    gpu, host = cuda().memory()[0] >> 20, free_memory() >> 20
    try:
        stdout, _ = run_child(
            (sys.executable, "-m", "convexport.runtime.trt_child"),
            json.dumps(request).encode(),
            timeout_s=timeout_s,
            env=os.environ,
            purpose="building",
        )
    except MachineError as error:
        if error.code != _CRASHED:
            raise
        free = f"{gpu} MiB of the GPU's memory, {host} MiB of the host's"
        least = [size >> 20 for size in memory_needed(onnx, options)]
        free += f"; needed at least, by estimate: {least[0]} and {least[1]} MiB"
        raise _killed(error, plan, free) from error
    built = json.loads(stdout)
    if "error" in built:
        raise rebuilt(built["error"])
    return BuiltEngine(read_facts(plan), **built)


def main() -> None:
    """Answer one request on stdin with JSON on stdout."""
    answer(_build)


def _build(request: Mapping[str, Any]) -> Dict[str, Any]:
    plan = Path(request["plan"])
    logging.basicConfig(
        filename=str(_log_of(plan)), level=logging.INFO, format="%(levelname)s %(message)s"
    )
    trt = import_tensorrt("building an engine")
    onnx, options = Path(request["onnx"]), TrtOptions.from_dict(request["options"])
    cache = Path(request["timing_cache"]) if request["timing_cache"] else None
    start = time.perf_counter()
    made = build_plan(onnx, options, cache.read_bytes() if cache and cache.is_file() else b"")
    seconds = time.perf_counter() - start
    with storage_errors(plan):
        plan.write_bytes(made.plan)
    if cache and made.timing_cache:
        write_atomically(cache, made.timing_cache)
    gpu = cuda().gpu
    PlanFacts(
        sha256=sha256_of(plan),
        onnx_sha256=sha256_of(onnx),
        tensorrt=trt.__version__,
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        platform=this_platform(),
        driver=gpu.driver,
        options=options,
    ).write(plan)
    engine, _keep = load_engine(trt, plan, plan.read_bytes(), options)
    return {
        "layers": summary(read_layers(_inspected(trt, engine, options))),
        "seconds": round(seconds, 3),
        "cache_taken": made.cache_taken,
    }


def _inspected(trt: Any, engine: Any, options: TrtOptions) -> str:
    """What the inspector says of the layers, as JSON."""
    inspector = engine.create_engine_inspector()
    # Types of tensors are only told of shapes that are settled.
    context = engine.create_execution_context()
    if context is not None:
        for spec in tensors(trt, engine, "INPUT"):
            shape = tuple(options.batch[1] if isinstance(dim, str) else dim for dim in spec.shape)
            context.set_input_shape(spec.name, shape)
        inspector.execution_context = context
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _killed(error: MachineError, plan: Path, free: str) -> MachineError:
    log = _log_of(plan).read_text(errors="replace") if _log_of(plan).is_file() else ""
    return MachineError(
        "E0412",
        f"TensorRT's build did not survive: {error.what}",
        where=f"free before it: {free}",
        why="\n".join((error.why, *log.splitlines()[-_TAIL:])).strip(),
        hint="SIGKILL is the system's answer to a lack of memory: close other programs, add swap, "
        "or ask for a smaller workspace or batch"
        if "SIGKILL" in error.what
        else f"all that TensorRT said is in {_log_of(plan).name}",
    )


def _log_of(plan: Path) -> Path:
    return plan.with_name(f"{plan.name}.log")


if __name__ == "__main__":
    main()
