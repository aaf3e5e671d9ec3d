"""Small nets as ONNX files, in the kinds that TensorRT is to build, and what they give.

A machine with a GPU that has no more than numpy and tensorrt gets bundles that were written here:

    python -m tests.gpu.nets OUT          # then, over there, python3 OUT/…/build_on_device.py
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from convexport.exporter.device_bundle import add_device_files, device_facts, write_sums
from convexport.runtime.files import json_bytes, sha256_of
from convexport.runtime.specs import Preprocess
from convexport.runtime.trt_config import TrtOptions

KINDS = ("fp32", "fp16", "int8")
# How far an engine may be off, relative to the largest logit.
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "int8": 3e-2}
CHANNELS = 32  # fewer would not be worth INT8 to TensorRT
_BODY = """
    <ir_version: 8, opset_import: ["": 17]>
    net ({type}[batch, 3, 16, 16] input) => ({type}[batch, 10] logits) {{
        {first}
        conv1 = Conv<pads = [1, 1, 1, 1]> ({x1}, {w1}, b1)
        relu1 = Relu (conv1)
        {second}
        conv2 = Conv<pads = [1, 1, 1, 1], strides = [2, 2]> ({x2}, {w2}, b2)
        relu2 = Relu (conv2)
        pool = GlobalAveragePool (relu2)
        flat = Flatten<axis = 1> (pool)
        logits = Gemm<transB = 1> (flat, w3, b3)
    }}"""
_QDQ = """
        q_x{n} = QuantizeLinear (x{n}_in, s_x{n}, zero)
        x{n} = DequantizeLinear (q_x{n}, s_x{n}, zero)
        q_w{n} = QuantizeLinear<axis = 0> (w{n}_in, s_w{n}, zeros)
        w{n} = DequantizeLinear<axis = 0> (q_w{n}, s_w{n}, zeros)"""


def write_net(path: Path, kind: str) -> Path:
    """Two convolutions, a pool and a classifier, with fixed random weights and a free batch.

    Args:
        kind: ``fp32``; ``fp16``, all tensors and weights; ``int8``, Q/DQ in an FP32 graph with
            signed values, zeros as zero points and a scale a channel of the weights.
    """
    dtype, kind_of_tensor = (np.float16, "float16") if kind == "fp16" else (np.float32, "float")
    qdq = kind == "int8"
    inner = [_QDQ.format(n=n).replace(f"x{n}_in", source) for n, source in _SOURCES] * qdq
    names = {f"{letter}{n}": f"{letter}{n}" for letter in "xw" for n in (1, 2)}
    if not qdq:
        names.update(x1="input", x2="relu1")
    first, second = inner or ("", "")
    text = _BODY.format(type=kind_of_tensor, first=first, second=second, **names)
    model = parser.parse_model(text)
    values = _values(qdq).items()
    return written(
        model, {n: v.astype(dtype) if v.dtype == np.float32 else v for n, v in values}, path
    )


def written(model: onnx.ModelProto, values: Mapping[str, np.ndarray], path: Path) -> Path:
    """The graph with these initializers and named nodes, checked, in a file."""
    for name, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    for node in model.graph.node:
        node.name = f"{node.output[0]}/{node.op_type}"
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def images(count: int, kind: str) -> np.ndarray:
    """Input for a net of that kind."""
    values = np.random.default_rng(count).standard_normal((count, 3, 16, 16))
    return values.astype(np.float16 if kind == "fp16" else np.float32)


def expected(path: Path, batch: np.ndarray) -> np.ndarray:
    """The logits by ONNX's reference implementation."""
    model = onnx.load(path)
    # The reference has Q/DQ from 19 on only; with FP32 scales they are the same.
    model.opset_import[0].version = 19
    logits = ReferenceEvaluator(model).run(None, {"input": batch})[0]
    return np.asarray(logits, np.float32)


def write_bundle(folder: Path, kind: str, options: TrtOptions) -> Path:
    """A bundle for a device: a graph in FP32, or with Q/DQ."""
    (folder / "sample").mkdir(parents=True)
    batch, net = images(1, "fp32"), "int8" if kind == "int8" else "fp32"
    np.save(folder / "sample/input.npy", batch)
    wanted = expected(write_net(folder / "model.onnx", net), batch)
    np.save(folder / "sample/expected.npy", wanted)
    manifest = {
        "schema_version": 1,
        "name": "small",
        "precision": kind,
        "target": "tensorrt",
        "runtime": "tensorrt",
        "provider": "CUDA",
        "model": "model.onnx",
        "reference": "model.onnx",
        "input": {"name": "input", "shape": ["batch", 3, 16, 16], "dtype": "float32"},
        "output": {"name": "logits", "shape": ["batch", 10], "dtype": "float32"},
        "preprocess": Preprocess(crop=(16, 16), resize=(16,)).to_dict(),
        "weights": {"kind": "random", "source": "numpy"},
        "output_kind": "logits",
        "golden_tolerance": TOLERANCE[kind],
        **device_facts(options, ">=8.5,<12"),
    }
    add_device_files(folder, manifest)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    files = {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}
    (folder / "manifest.json").write_bytes(json_bytes({**manifest, "files": files}))
    write_sums(folder)
    return folder


_SOURCES = ((1, "input"), (2, "relu1"))


def _values(qdq: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = ((CHANNELS, 3, 3, 3), (CHANNELS, CHANNELS, 3, 3))
    weights = [rng.standard_normal(s, dtype=np.float32) / np.sqrt(9 * s[1]) for s in shapes]
    weights = [weight.astype(np.float32) for weight in weights]
    values = {f"b{n}": rng.standard_normal(CHANNELS, dtype=np.float32) / 8 for n in (1, 2)}
    values["w3"] = rng.standard_normal((10, CHANNELS), dtype=np.float32)
    values["b3"] = rng.standard_normal(10, dtype=np.float32)
    for n, weight in enumerate(weights, start=1):
        values[f"w{n}_in" if qdq else f"w{n}"] = weight
        if qdq:
            values[f"s_w{n}"] = np.abs(weight).max(axis=(1, 2, 3)) / np.float32(127)
            values[f"s_x{n}"] = np.float32(4 / 127) * np.ones((), np.float32)
    if qdq:
        values |= {"zero": np.zeros((), np.int8), "zeros": np.zeros(CHANNELS, np.int8)}
    return values


if __name__ == "__main__":
    for each in KINDS:
        asked = TrtOptions.of_graph(each, False, batch=(1, 4, 8), own_kernels=True)
        print(write_bundle(Path(sys.argv[1]) / f"small-{each}", each, asked))
