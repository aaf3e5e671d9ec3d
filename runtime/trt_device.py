"""On the device: build a bundle's engine, hold it against the golden sample, then put it in place.

The engine that stood there before stays until the new one has passed.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple

import numpy as np

from convexport.runtime.board import describe_board, free_memory
from convexport.runtime.bundle import SAMPLE_INPUT, Manifest, read_labels, read_manifest
from convexport.runtime.cuda import cuda
from convexport.runtime.engine import Engine
from convexport.runtime.errors import ConvexportError, InputError, MachineError, UsageError
from convexport.runtime.files import json_bytes, new_directory, sha256_of
from convexport.runtime.trt_child import build_engine
from convexport.runtime.trt_config import TrtOptions
from convexport.runtime.trt_engine import import_tensorrt
from convexport.runtime.trt_layers import counts, require_int8
from convexport.runtime.trt_plan import ENGINE
from convexport.runtime.trt_session import TrtSession
from convexport.runtime.trt_versions import fits

SUMS = "SHA256SUMS"
TIMING_CACHE = "timing.cache"
REPORT = "report.json"
FAILED = "engine.failed"

_WARM_UP = 20


def main(bundle: Path, arguments: Sequence[str]) -> int:
    """The command line of ``build_on_device.py``: its last line is PASS, or FAIL and the reason.

    Returns:
        The exit code: 0, or that of the error's kind.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="to measure; 0: none")
    parser.add_argument("--timeout", type=float, default=4 * 3600.0, help="seconds for the build")
    chosen = parser.parse_args(arguments)
    try:
        build_on_device(bundle, runs=chosen.runs, timeout_s=chosen.timeout)
    except ConvexportError as error:
        print("\n".join(error.lines()), file=sys.stderr)
        print(f"FAIL {error.code} {error.what.splitlines()[0]}")
        return error.exit_code
    except KeyboardInterrupt:
        print("FAIL interrupted")
        return 130
    except Exception as error:  # a bug of ours, or a board that is odder than we thought
        traceback.print_exc()
        print(f"FAIL {type(error).__name__}: {error}".splitlines()[0])
        return 1
    print("PASS")
    return 0


def build_on_device(bundle: Path, *, runs: int = 200, timeout_s: float = 4 * 3600.0) -> None:
    """Build, test and put in place; what was found goes to stdout and ``engine/report.json``.

    Args:
        runs: forward passes to measure; 0 for none.
        timeout_s: for the build.

    Raises:
        ConvexportError: the engine that was there stays; what was logged lies in ``FAILED``.
    """
    _require_sense(runs, timeout_s)
    verify_sums(bundle)
    manifest = read_manifest(bundle)
    options = _options(manifest)
    facts = _describe(manifest)
    for name, value in facts.items():
        print(f"{name}: {value}")
    final, failed = (bundle / ENGINE).parent, bundle / FAILED
    with new_directory(final) as scratch, _kept_on_failure(scratch, failed):
        cache = scratch / TIMING_CACHE
        for place in (final, failed):  # what failed went on from there
            if (place / TIMING_CACHE).is_file():
                shutil.copyfile(str(place / TIMING_CACHE), str(cache))
        print("building the engine; this takes minutes", flush=True)
        plan = scratch / ENGINE.name
        onnx = bundle / manifest.model
        made = build_engine(onnx, plan, options, timing_cache=cache, timeout_s=timeout_s)
        print(f"engine: {counts(made.layers)}, built in {made.seconds:.0f} s")
        if manifest.precision == "int8":
            print(require_int8(made.layers, manifest.data.get("layers", {})))
        engine = Engine(manifest, read_labels(bundle, manifest), TrtSession(plan))
        tested = _tested(engine, bundle, runs)
        report = {**tested, "device": facts, "build_seconds": made.seconds}
        (scratch / REPORT).write_bytes(json_bytes({**report, "engine": dict(made.layers)}))
    shutil.rmtree(str(failed), ignore_errors=True)
    if runs:
        print(_latency_line(tested["latency_ms"], tested["board_after"]))


def _require_sense(runs: int, timeout_s: float) -> None:
    if runs < 0 or not 0 < timeout_s < float("inf"):
        raise UsageError(
            "E0206",
            f"no build can have {runs} runs and {timeout_s:g} seconds",
            hint="--runs is 0 or more, --timeout above 0",
        )


def _tested(engine: Engine, bundle: Path, runs: int) -> Dict[str, Any]:
    """The golden sample's error and the latency, for the report."""
    error = engine.self_test(bundle)
    print(f"golden sample: off by {error:.2g} of its largest value")
    latency = _latency(engine, np.load(str(bundle / SAMPLE_INPUT)), runs) if runs else {}
    board = describe_board()  # again: clocks rise under load
    return {"golden_error": error, "latency_ms": latency, "board_after": board}


@contextlib.contextmanager
def _kept_on_failure(scratch: Path, failed: Path) -> Iterator[None]:
    """Put TensorRT's log and what it measured where a next try, or a person, finds them."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # as on a full disk: the first error is the one to tell
            failed.mkdir(exist_ok=True)
            for name in (f"{ENGINE.name}.log", TIMING_CACHE):
                if (scratch / name).is_file():
                    shutil.copyfile(str(scratch / name), str(failed / name))
            print(f"what TensorRT logged and measured is in {failed}", file=sys.stderr)
        raise


def verify_sums(bundle: Path) -> None:
    """Compare every file with ``SHA256SUMS``, as ``sha256sum -c`` would.

    Raises:
        InputError: E0306, a file is missing or was changed.
    """
    try:
        lines = (bundle / SUMS).read_text(encoding="utf-8").splitlines()
        sums = [(name, digest) for digest, name in (line.split("  ", 1) for line in lines)]
    except (OSError, ValueError) as error:
        raise _changed(bundle / SUMS) from error
    for name, expected in sums:
        path = bundle / name
        actual = sha256_of(path) if path.is_file() else "nothing"
        if actual != expected:
            raise _changed(path)


def _changed(path: Path) -> InputError:
    return InputError(
        "E0306",
        f"{path.name} is missing or was changed",
        where=str(path),
        hint="copy the bundle again from where it was built",
    )


def _options(manifest: Manifest) -> TrtOptions:
    """What to build with, if the bundle is for the TensorRT that is here."""
    about = manifest.data.get("tensorrt")
    if not isinstance(about, dict) or not {"options", "versions"} <= set(about):
        raise InputError("E0318", "the manifest does not say how to build an engine")
    version = import_tensorrt("building an engine").__version__
    if not fits(version, str(about["versions"])):
        raise MachineError(
            "E0413",
            f"the bundle is not for TensorRT {version}",
            where=f"it is for {about['versions']}",
            why="another version reads the graph otherwise, or wants another kind of it",
            hint="build the bundle for this device's target",
        )
    return TrtOptions.from_dict(about["options"])


def _describe(manifest: Manifest) -> Dict[str, Any]:
    gpu = cuda().gpu
    return {
        "net": f"{manifest.name}, {manifest.precision}, for {manifest.target}",
        **describe_board(),
        "gpu": f"{gpu.name} ({gpu.compute_capability})",
        "driver": f"CUDA {gpu.driver}",
        "tensorrt": import_tensorrt("building an engine").__version__,
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "memory_free": f"{cuda().memory()[0] >> 20} MiB GPU, {free_memory() >> 20} MiB host",
    }


def _latency(engine: Engine, batch: np.ndarray, runs: int) -> Dict[str, Any]:
    for _ in range(_WARM_UP):
        engine(batch)
    times: List[float] = []
    for _ in range(runs):
        start = time.perf_counter()
        engine(batch)
        times.append(1e3 * (time.perf_counter() - start))
    times.sort()
    p95 = times[min(len(times) - 1, int(0.95 * len(times)))]
    return {"median": statistics.median(times), "p95": p95, "runs": runs, "batch": len(batch)}


def _latency_line(latency: Mapping[str, Any], board: Mapping[str, str]) -> str:
    clocks: Tuple[str, ...] = tuple(
        f"{name} {board[name]}" for name in ("power_mode", "gpu_hz", "gpu_max_hz") if name in board
    )
    return (
        f"latency: median {latency['median']:.3f} ms, 95 % below {latency['p95']:.3f} ms; "
        f"{latency['runs']} runs of batch {latency['batch']}, host copies included; "
        f"{', '.join(clocks) or 'clocks not told'}"
    )
