"""How near to the machine's limit a net runs: its operations against a matrix product's.

The roof is measured, not read off a data sheet: the fastest matrix product that a runtime of this
machine does in the same precision (S. Williams et al., Roofline, CACM 52, 2009). The slope that
memory sets is in ``bandwidth``, and both together in ``limits``.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from convexport.benchmarks.file_layers import FileLayers
from convexport.runtime.errors import ConvexportError
from convexport.runtime.optional import require
from convexport.runtime.sessions import Session, open_session
from convexport.runtime.specs import Runner

# Rows, and both sides of the constant, which stay in a core's cache; and so many products in a
# row that what comes before and after them costs nothing.
ROWS, SIDE, PRODUCTS = 512, 1024, 16
_RUNTIMES = (("onnxruntime", "CPUExecutionProvider"), ("openvino", "CPU"))


@dataclass(frozen=True)
class Peak:
    """The fastest matrix product found.

    Attributes:
        runtime: that did it, with its version.
        precision: ``fp32``, ``bf16`` or ``int8``.
        threads: of the runtime.
        operations_per_s: two for each product that is added.
    """

    runtime: str
    precision: str
    threads: int
    operations_per_s: float


def measured_peak(precision: str, *, threads: int, seconds: float = 1.0) -> Peak:
    """The best that a runtime of this machine does.

    Args:
        threads: 0 lets each runtime choose.
        seconds: measured, each runtime.

    Raises:
        ConvexportError: no runtime computes in that precision here; why the last does not.
    """
    found, why = [], None
    with TemporaryDirectory() as scratch:
        model = Path(scratch) / "product.onnx"
        model.write_bytes(matrix_product(precision))
        for runtime, provider in _RUNTIMES:
            if precision == "bf16" and runtime == "onnxruntime":
                continue  # it has no such kernels on a CPU, and would compute in FP32
            try:
                session = open_session(
                    model, runtime=runtime, provider=provider, threads=threads, precision=precision
                )
            except ConvexportError as error:
                why = error
                continue
            rate = 2 * PRODUCTS * ROWS * SIDE**2 / _fastest(session, seconds)
            found.append(Peak(session.runtime, precision, threads, rate))
    if not found and why is not None:
        raise why
    return max(found, key=lambda peak: peak.operations_per_s)


def operations(model: Path, batch: int = 1) -> int:
    """Operations of a forward pass: two for each product that a convolution or a matrix adds.

    Args:
        model: an ONNX file whose one input has no free dimension but the batch.
    """
    return FileLayers(model, batch).operations


def matrix_product(precision: str) -> bytes:
    """y = x w w ... w as an ONNX file; for INT8 with integers between all of them."""
    onnx = require("onnx", extra="export", purpose="measuring the machine's peak")
    if precision == "int8":
        body = ["q0 = QuantizeLinear (x, s, z)", "b = DequantizeLinear (w, n)"]
        for i in range(PRODUCTS):
            body.append(f"x{i} = DequantizeLinear (q{i}, s, z)")
            body.append(f"p{i} = MatMul (x{i}, b)")
            body.append(f"q{i + 1} = QuantizeLinear (p{i}, s, z)")
        body.append(f"y = DequantizeLinear (q{PRODUCTS}, s, z)")
    else:
        names = ["x", *(f"p{i}" for i in range(1, PRODUCTS)), "y"]
        body = [f"{after} = MatMul ({before}, w)" for before, after in pairwise(names)]
    proto = onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["": 19]>
        product (float[N, {SIDE}] x) => (float[N, {SIDE}] y) {{ {chr(10).join(body)} }}""")
    # Columns of few and even weights: a product has the size of what went in.
    weights = np.random.default_rng(0).choice([-1, 0, 0, 1], (SIDE, SIDE)).astype(np.int8)
    constants: dict[str, Any] = {"w": weights / np.float32(SIDE**0.5)}
    if precision == "int8":
        step, zero = np.float32(8 / 255), np.uint8(128)
        constants = {"w": weights, "n": np.float32(SIDE**-0.5), "s": step, "z": zero}
    for name, array in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return bytes(proto.SerializeToString())


def _fastest(session: Session | Runner, seconds: float) -> float:
    """Of at least ten calls, in seconds: whatever slows one down is not the machine's limit."""
    x = {"x": np.random.default_rng(1).standard_normal((ROWS, SIDE), dtype=np.float32)}
    best, end, calls = math.inf, time.perf_counter() + seconds, 0
    while calls < 10 or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(x)
        best, calls = min(best, time.perf_counter() - start), calls + 1
    return best
