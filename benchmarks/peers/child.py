"""One fresh process: it reads one JSON request on stdin and writes one JSON answer on stdout.

    quantize   one tool, one set of images                     -> seconds, parts, hash of the file
    logits     a file in a runtime, over many images           -> an .npy file
    latency    a file in a runtime, again and again            -> raw samples

Started by its path, by the interpreter that has the tool: ``python benchmarks/peers/child.py``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from arrays import batches
from guard import HOW_TO
from runners import RUNTIMES, Run
from tools import Quantize, Work

from convexport.benchmarks.meter import LatencyOptions, measure
from convexport.runtime.files import sha256_of

_PACKAGES = ("numpy", "nncf", "nvidia-modelopt", "onnx", "onnxruntime", "openvino", "torch")
_LOGITS_BATCH = 8

Request = Mapping[str, Any]
Answer = dict[str, Any]


def main() -> None:
    """Answer one request; anything that goes wrong travels in the answer."""
    answer = os.dup(1)
    # What a tool prints would spoil the answer: it goes to stderr instead.
    os.dup2(2, 1)
    request = json.loads(sys.stdin.buffer.read())
    try:
        value = {"status": "ok", **_JOBS[request["job"]](request)}
    except _NotInstalledError as error:
        value = {"status": "not installed", "why": f"{error}: {HOW_TO}"}
    except MemoryError as error:
        value = {"status": "out of memory", "why": repr(error)[:300]}
    except Exception as error:  # a peer may raise whatever it likes: that is its result
        status = "out of memory" if "bad_alloc" in str(error) else "failed"
        value = {"status": status, "why": f"{type(error).__name__}: {error}"[-500:]}
    value |= {"peak_bytes": _peak_rss(), "versions": _versions()}
    with os.fdopen(answer, "wb") as stdout:
        stdout.write(json.dumps(value, allow_nan=False).encode())


class _NotInstalledError(Exception):
    pass


def _quantize(request: Request) -> Answer:
    work = Work(
        Path(request["model"]),
        request["input_name"],
        Path(request["images"]),
        request["count"],
        request["batch"],
        Path(request["output"]),
    )
    started = time.perf_counter()
    quantize = _imported(request["module"], request["options"])
    imported = time.perf_counter()
    parts = quantize(work)
    seconds = time.perf_counter() - imported
    written = {"sha256": sha256_of(work.output)} if work.output.exists() else {}
    return {"seconds": seconds, "import_s": imported - started, "parts": dict(parts), **written}


def _imported(module: str, options: Mapping[str, Any]) -> Quantize:
    quantizer: Callable[[Mapping[str, Any]], Quantize] = importlib.import_module(module).quantizer
    try:
        return quantizer(options)
    except ImportError as error:
        raise _NotInstalledError(str(error)) from error


def _logits(request: Request) -> Answer:
    run = _opened(request, None)
    images = batches(Path(request["images"]), request["count"], _LOGITS_BATCH)
    np.save(request["output"], np.concatenate([run(batch) for batch in images]))
    return {}


def _latency(request: Request) -> Answer:
    batch = request["batch"]
    start = time.perf_counter()
    run = _opened(request, batch)
    load_ms = (time.perf_counter() - start) * 1e3
    (images,) = batches(Path(request["images"]), batch, batch)
    options = LatencyOptions(**request["measure"], processes=1, batch=batch)
    samples = measure({"": lambda: run(images)}, options)[""]
    return {"load_ms": load_ms, "samples": samples.to_dict()}


_JOBS: dict[str, Callable[[Request], Answer]] = {
    "quantize": _quantize,
    "logits": _logits,
    "latency": _latency,
}


def _opened(request: Request, batch: int | None) -> Run:
    try:
        open_file = RUNTIMES[request["runtime"]].open
        return open_file(Path(request["model"]), request["threads"], batch)
    except ImportError as error:
        raise _NotInstalledError(str(error)) from error


def _versions() -> dict[str, str]:
    """Of what was imported; the others that are installed had no part in it."""
    modules = {"nvidia-modelopt": "modelopt"}
    names = [name for name in _PACKAGES if modules.get(name, name) in sys.modules]
    return {name: importlib.metadata.version(name) for name in names}


def _peak_rss() -> int | None:
    """VmHWM: getrusage would count what the parent had when it forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


if __name__ == "__main__":
    main()
