"""Graphs of a convolution or two, each a question to TensorRT: how Q/DQ may stand, and INT64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import parser

from tests.gpu.nets import written

CHANNELS = 32  # fewer would not be worth INT8 to TensorRT
_IN = "qx = QuantizeLinear (input, sx, z) x = DequantizeLinear (qx, sx, z)"
_W = "qw = QuantizeLinear<axis = 0> (w_in, sw, zs) w = DequantizeLinear<axis = 0> (qw, sw, zs)"
_STORED = "w = DequantizeLinear<axis = 0> (w_int8, sw, zs)"
_CONV = "c = Conv<pads = [1, 1, 1, 1]> (x, w, b)"
_TWO = f"""{_CONV} r1 = Relu (c) n = Neg (x) d = Conv<pads = [1, 1, 1, 1]> (n, w, b)
        r2 = Relu (d)"""
# What of it is in question -> the nodes between input and r.
FORMS = {
    "float weights before Q and DQ": f"{_IN} {_W} {_CONV} r = Relu (c)",
    "stored INT8 weights before DQ": f"{_IN} {_STORED} {_CONV} r = Relu (c)",
    "residual, quantized": f"{_IN} {_W} {_CONV} a = Add (c, x) r = Relu (a)",
    "residual, in floats": f"{_IN} {_W} {_CONV} a = Add (c, input) r = Relu (a)",
    "concat, Q/DQ on each branch": f"""{_IN} {_W} {_TWO}
        q1 = QuantizeLinear (r1, sx, z) d1 = DequantizeLinear (q1, sx, z)
        q2 = QuantizeLinear (r2, sx, z) d2 = DequantizeLinear (q2, sx, z)
        r = Concat<axis = 1> (d1, d2)""",
    "concat, Q/DQ behind it": f"""{_IN} {_W} {_TWO} j = Concat<axis = 1> (r1, r2)
        q1 = QuantizeLinear (j, sx, z) r = DequantizeLinear (q1, sx, z)""",
    "INT64 input": f"""f = Cast<to = 1> (input)
        {_IN.replace("input", "f")} {_W} {_CONV} r = Relu (c)""",
}


def write_form(path: Path, form: str) -> Path:
    """The graph as a file: a free batch of 32×16×16, and the mean of each channel."""
    kind = "int64" if form == "INT64 input" else "float"
    width = 2 * CHANNELS if "concat" in form else CHANNELS
    model = parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        net ({kind}[batch, {CHANNELS}, 16, 16] input) => (float[batch, {width}] logits) {{
            {FORMS[form]} pool = GlobalAveragePool (r) logits = Flatten<axis = 1> (pool)
        }}""")
    read = {name for node in model.graph.node for name in node.input}
    return written(model, {n: value for n, value in _values().items() if n in read}, path)


def batch_for(form: str, count: int) -> np.ndarray:
    """Input for a graph."""
    values = np.random.default_rng(count).standard_normal((count, CHANNELS, 16, 16))
    return values.round().astype(np.int64) if form == "INT64 input" else values.astype(np.float32)


def _values() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((CHANNELS, CHANNELS, 3, 3), dtype=np.float32) / 17
    weights = weights.astype(np.float32)
    scales = np.abs(weights).max(axis=(1, 2, 3)) / np.float32(127)
    return {
        "w_in": weights,
        "w_int8": np.round(weights / scales[:, None, None, None]).astype(np.int8),
        "sw": scales,
        "zs": np.zeros(CHANNELS, np.int8),
        "sx": np.float32(4 / 127) * np.ones((), np.float32),
        "z": np.zeros((), np.int8),
        "b": rng.standard_normal(CHANNELS, dtype=np.float32) / 8,
    }
