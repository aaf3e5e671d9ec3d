"""A net of each family on this GPU in each precision, beside PyTorch and ONNX Runtime, as one JSON:

    python -m tests.gpu.zoo OUT.json [NET...]

Weights are random where none are published, and only latency and form are looked at then: what is
compared with PyTorch is in each row's parity. Latencies are of batch 1: ``host_ms`` from NumPy to
NumPy, copies included, one call after another; ``gpu_ms`` of the GPU alone, by CUDA's events. What
cannot be measured says why. It was never run: no machine with a GPU and TensorRT was in hand.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import convexport
from convexport.architectures.registry import create, variants
from convexport.exporter.findings import versions
from convexport.exporter.options import BuildOptions, Precision
from convexport.exporter.pipeline import build
from convexport.runtime.cuda import cuda
from convexport.runtime.ort_session import OrtSession
from convexport.runtime.trt_layers import require_int8

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
WARM_UP, RUNS = 50, 200
Row = dict[str, Any]


def nets() -> dict[str, str]:
    """Family -> its first net."""
    found: dict[str, str] = {}
    for name, row in variants().items():
        found.setdefault(row.family, name)
    return found


def rows(names: list[str], folder: Path) -> Iterator[Row]:
    """One a net and precision; a net that fails is a row, too."""
    for name in names:
        for precision in PRECISIONS:
            yield measured(lambda n=name, p=precision: row(n, p, folder / f"{n}-{p}"), name)


def row(name: str, precision: Precision, folder: Path, **more: Any) -> Row:
    """What came of a build for this machine's TensorRT, and how fast the engine and others are."""
    options = BuildOptions(
        precision=precision, target="tensorrt", output=folder, bench_seconds=0, **more
    )
    manifest = build(name, options).manifest
    about = manifest.data["tensorrt"]["engine"]["engine"]
    loaded = convexport.load(folder, cuda_graph=True)
    session: Any = loaded.runner
    shape = [dim if isinstance(dim, int) else 1 for dim in manifest.input.shape]
    batch = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    reference = folder / manifest.data["reference"]
    return {
        "net": manifest.name,
        "precision": precision,
        "parity": manifest.data["parity"]["target"],
        "layers": {key: about[key] for key in ("counts", "convolutions", "reformats")},
        "int8": require_int8(about, manifest.data["layers"]) if precision == "int8" else None,
        "engine": {
            **host_ms(lambda: loaded(batch)),
            "gpu_ms": percentiles(session.compute_ms(len(batch), WARM_UP + RUNS)),
        },
        "onnxruntime": measured(lambda: in_onnxruntime(reference, batch)),
        "torch.compile": measured(lambda: compiled(name, batch)),
    }


def in_onnxruntime(reference: Path, batch: np.ndarray) -> Row:
    """The FP32 graph by ONNX Runtime's CUDA provider."""
    session = OrtSession(reference, provider="CUDAExecutionProvider")
    feed = {session.inputs[0].name: batch}
    return {**host_ms(lambda: session.run(feed)), "gpu_ms": "not measured"}


def compiled(name: str, batch: np.ndarray) -> Row:
    """``torch.compile`` of the same net in FP16, channels last."""
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("PyTorch finds no CUDA")
    module: Any = create(name).eval().cuda().half().to(memory_format=torch.channels_last)
    module = torch.compile(module)
    on_gpu = torch.from_numpy(batch).cuda().half().to(memory_format=torch.channels_last)

    def call() -> object:
        image = torch.from_numpy(batch).cuda().half().to(memory_format=torch.channels_last)
        return module(image).float().cpu()

    def gpu_ms() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        module(on_gpu)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    with torch.inference_mode():
        times = host_ms(call)
        return {**times, "gpu_ms": percentiles([gpu_ms() for _ in range(WARM_UP + RUNS)])}


def host_ms(call: Callable[[], object]) -> Row:
    """Of one call after another."""
    times = []
    for _ in range(WARM_UP + RUNS):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return {"host_ms": percentiles(times)}


def percentiles(times: list[float]) -> Row:
    """Without those that warm up."""
    kept = sorted(times[WARM_UP:])
    return {"median": statistics.median(kept), "p95": kept[int(0.95 * (len(kept) - 1))]}


def measured(work: Callable[[], Row], net: str = "") -> Row:
    """What it gives, or why it gives nothing."""
    try:
        return work()
    except Exception as error:  # whatever one runtime says, the other nets are measured
        return {"net": net, "not measured": f"{type(error).__name__}: {error}"[:2000]}


def main(out: Path, names: list[str]) -> Mapping[str, Any]:
    """Measure, and write the file after each row: the hours before a crash are kept."""
    conditions = {"gpu": asdict(cuda().gpu), "versions": versions(), "runs": RUNS, "batch": 1}
    found: Row = {"conditions": conditions, "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        for each in rows(names or sorted(nets().values()), Path(folder)):
            found["rows"].append(each)
            out.write_text(json.dumps(found, indent=1))
            print(json.dumps(each), flush=True)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
