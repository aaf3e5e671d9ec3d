"""Models in the runtimes that the comparison runs them by: from an array to an array.

convexport's own sessions take these functions' place as they come.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from arrays import Array

Run = Callable[[Array], Array]


@dataclass(frozen=True)
class Runtime:
    """How a file is run.

    Attributes:
        open: from model, threads (0: the runtime chooses) and batch (None: any) to a call.
        suffixes: of the files that it loads.
        foreign: whether it runs in the peers' interpreter.
    """

    open: Callable[[Path, int, int | None], Run]
    suffixes: tuple[str, ...]
    foreign: bool


def _ort(model: Path, threads: int, batch: int | None) -> Run:
    from convexport.runtime.ort_session import OrtSession

    session = OrtSession(model, threads=threads)
    name, output = session.inputs[0].name, session.outputs[0].name
    return lambda images: session.run({name: images})[output]


def _openvino(precision: str | None) -> Callable[[Path, int, int | None], Run]:
    def load(model: Path, threads: int, batch: int | None) -> Run:
        import openvino

        core = openvino.Core()
        config: dict[str, str | int] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if precision:
            able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            if {"f32": "FP32", "bf16": "BF16"}[precision] not in able:
                raise ValueError(f"this CPU has no {precision}: {able}")
            config["INFERENCE_PRECISION_HINT"] = precision
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        network = core.read_model(model)
        if batch:
            # The shape is known while it compiles, as its makers advise for latency.
            shape = network.input(0).partial_shape
            shape[0] = batch
            network.reshape(shape)
        compiled = core.compile_model(network, "CPU", config)
        return lambda images: np.asarray(compiled(images)[0])

    return load


def _session(model: Path, threads: int, batch: int | None) -> Run:
    """As ``convexport.load`` runs an INT8 bundle for OpenVINO."""
    from convexport.runtime.openvino_session import OpenvinoSession

    session = OpenvinoSession(model, threads=threads)
    name, output = session.inputs[0].name, session.outputs[0].name
    return lambda images: session.run({name: images})[output]


def _torch(runtime: str) -> Callable[[Path, int, int | None], Run]:
    def load(model: Path, threads: int, batch: int | None) -> Run:
        from convexport.benchmarks.torch_session import TorchSession

        net = json.loads(model.with_suffix(".json").read_text())
        threads = threads or len(os.sched_getaffinity(0))
        session = TorchSession(model, net, runtime=runtime, threads=threads)
        return lambda images: session.run({"input": images})["logits"]

    return load


RUNTIMES = {
    "torch": Runtime(_torch("torch"), (".pt",), foreign=False),
    "torch.compile": Runtime(_torch("torch.compile"), (".pt",), foreign=False),
    "onnxruntime": Runtime(_ort, (".onnx",), foreign=False),
    "openvino-convexport": Runtime(_session, (".onnx",), foreign=True),
    "openvino": Runtime(_openvino(None), (".onnx", ".xml"), foreign=True),
    "openvino-f32": Runtime(_openvino("f32"), (".onnx", ".xml"), foreign=True),
    "openvino-bf16": Runtime(_openvino("bf16"), (".onnx", ".xml"), foreign=True),
}
