"""A bundle written by hand, so that nothing of the exporter's is trusted."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

Edit = Callable[[dict[str, Any]], object]

WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4) - 5
MODEL = """
    <ir_version: 8, opset_import: ["": 17]>
    net (float[batch, 1, 2, 2] input) => (float[batch, 3] logits) {
        flat = Flatten<axis = 1> (input)
        logits = Gemm<transB = 1> (flat, w)
    }"""
MANIFEST: dict[str, Any] = {
    "schema_version": 1,
    "name": "tiny",
    "precision": "fp32",
    "target": "cpu",
    "runtime": "onnxruntime",
    "provider": "CPUExecutionProvider",
    "model": "model.onnx",
    "reference": "model.onnx",
    "input": {"name": "input", "shape": ["batch", 1, 2, 2], "dtype": "float32"},
    "output": {"name": "logits", "shape": ["batch", 3], "dtype": "float32"},
    "preprocess": {
        "crop": [2, 2],
        "resize": [2, 2],
        "interpolation": "bilinear",
        "channels": "L",
        "mean": [0.0],
        "std": [1.0],
        "exif": "apply",
    },
    "weights": {"kind": "file", "source": "tiny"},
    "output_kind": "logits",
    "golden_tolerance": 1e-4,
}


def logits(batch: np.ndarray) -> np.ndarray:
    """What the net computes, in numpy."""
    return np.asarray(batch.reshape(len(batch), -1) @ WEIGHTS.T)


def write_bundle(folder: Path, model: str = MODEL, expected: np.ndarray | None = None) -> Path:
    """A whole bundle of a net with one layer."""
    (folder / "sample").mkdir(parents=True)
    graph = parser.parse_model(model)
    graph.graph.initializer.append(numpy_helper.from_array(WEIGHTS, "w"))
    onnx.save(graph, folder / "model.onnx")
    sample = np.linspace(-1, 1, 4, dtype=np.float32).reshape(1, 1, 2, 2)
    np.save(folder / "sample/input.npy", sample)
    answer = logits(sample) if expected is None else expected
    np.save(folder / "sample/expected.npy", answer)
    (folder / "labels.txt").write_text("ant\nbee\ncat\n")
    return seal(folder)


def seal(folder: Path, edit: Edit = lambda data: None) -> Path:
    """A manifest that agrees with the files, then edited."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    data = copy.deepcopy(MANIFEST)
    data["files"] = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
    }
    edit(data)
    (folder / "manifest.json").write_text(json.dumps(data))
    return folder
