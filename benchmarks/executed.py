"""What a runtime really executes of a graph, and how long each kernel takes, by its own profile.

An optimized graph has other nodes than the file: an activation is part of its convolution, and
quantized ones carry a number behind their name. What is told here is led back to the file's names
as far as the runtime says them.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from convexport.runtime.openvino_session import OpenvinoSession
from convexport.runtime.ort_session import OrtSession
from convexport.runtime.specs import Runner

RUNS, WARM_UP = 30, 5
# What ONNX Runtime 1.20 to 1.31 puts around the name of a node that it made of another.
_MADE_OF_ANOTHER = re.compile(r"^fused |(_nchwc|_token_\d+|_quant)+$")
_KERNEL = "_kernel_time"
# Of what the runtimes call element types: the precision that products have in it, and its bytes.
_TYPES = {
    "float": ("fp32", 4), "f32": ("fp32", 4), "float16": ("fp16", 2), "f16": ("fp16", 2),
    "bfloat16": ("bf16", 2), "bf16": ("bf16", 2), "uint8": ("int8", 1), "int8": ("int8", 1),
    "u8": ("int8", 1), "i8": ("int8", 1), "int32": ("int32", 4), "int64": ("int64", 8),
    "double": ("fp64", 8), "bool": ("bool", 1),
}  # fmt: skip


@dataclass(frozen=True)
class Kernel:
    """A node of the graph that is executed.

    Attributes:
        name: as the file has it, where the runtime did not make another of it.
        op: what the runtime calls the operator.
        ms: median milliseconds a pass.
        bytes: of its inputs and outputs, as far as the runtime tells them.
        precision: of its first input.
        originals: names of the file's nodes that are part of it; of ONNX Runtime just its own.
    """

    name: str
    op: str
    ms: float
    bytes: int
    precision: str
    originals: tuple[str, ...]


def kernels(
    model: Path, image: np.ndarray, *, runtime: str, precision: str = "fp32", threads: int = 1
) -> tuple[Kernel, ...]:
    """Run a graph ``WARM_UP + RUNS`` times under its runtime's profile, and count the latter.

    Args:
        image: float32 N×C×H×W.
        runtime: ``onnxruntime`` or ``openvino``, on the CPU.
        precision: of the artefact.
        threads: of the runtime.
    """
    if runtime == "openvino":
        return _of_openvino(model, image, precision, threads)
    return _of_onnxruntime(model, image, threads)


def pass_ms(runner: Runner, image: np.ndarray) -> float:
    """The median milliseconds of a whole call, which a profile would make longer."""
    times = []
    for _ in range(WARM_UP + RUNS):
        start = time.perf_counter()
        runner.run({runner.inputs[0].name: image})
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times[WARM_UP:]))


def _of_onnxruntime(model: Path, image: np.ndarray, threads: int) -> tuple[Kernel, ...]:
    with TemporaryDirectory() as scratch:
        session = OrtSession(model, threads=threads, profile=Path(scratch) / "profile")
        for _ in range(WARM_UP + RUNS):
            session.run({session.inputs[0].name: image})
        events = json.loads(session.end_profile().read_text())
    durations: dict[str, list[float]] = defaultdict(list)
    facts: dict[str, Mapping[str, Any]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            name = event["name"].removesuffix(_KERNEL)
            durations[name].append(event["dur"] / 1e3)
            facts[name] = event["args"]
    found = []
    for name, each in durations.items():
        # Nodes may share a name: then a pass has several of it.
        passes = np.reshape(each, (WARM_UP + RUNS, -1))[WARM_UP:]
        given, args = _MADE_OF_ANOTHER.sub("", name), facts[name]
        inputs, outputs = args.get("input_type_shape", []), args.get("output_type_shape", [])
        found.append(
            Kernel(
                name=given,
                op=args.get("op_name", ""),
                ms=float(np.median(passes.sum(axis=1))),
                bytes=_bytes([*inputs, *outputs]) * passes.shape[1],
                precision=_precision(next(iter(inputs[0]), "") if inputs else ""),
                originals=(given,),
            )
        )
    return tuple(found)


def _of_openvino(
    model: Path, image: np.ndarray, precision: str, threads: int
) -> tuple[Kernel, ...]:
    session = OpenvinoSession(model, precision=precision, threads=threads, profile=True)
    passes = []
    for _ in range(WARM_UP + RUNS):
        session.run({session.inputs[0].name: image})
        passes.append(session.executed())
    return tuple(
        Kernel(
            name=node["name"],
            op=node["op"],
            ms=float(np.median([each[index]["ms"] for each in passes[WARM_UP:]])),
            bytes=node["bytes"],
            precision=_precision(node["precision"]),
            originals=tuple(node["originals"]),
        )
        for index, node in enumerate(passes[-1])
    )


def _precision(name: str) -> str:
    return _TYPES.get(name, (name, 0))[0]


def _bytes(tensors: Iterable[Mapping[str, list[int]]]) -> int:
    return sum(
        _TYPES.get(kind, ("", 0))[1] * prod(shape)
        for tensor in tensors
        for kind, shape in tensor.items()
    )
