from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

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
    "something_new": {"of a later": "minor version"},
}
Edit = Callable[[dict[str, Any]], None]
_ALIVE: list[Any] = []


def logits(batch: np.ndarray) -> np.ndarray:
    return np.asarray(batch.reshape(len(batch), -1) @ WEIGHTS.T)


def write_manifest(folder: Path, edit: Edit = lambda data: None) -> Path:
    """A manifest that agrees with the files, then edited."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    digests.pop("manifest.json", None)
    data = json.loads(json.dumps({**MANIFEST, "files": digests}))
    edit(data)
    (folder / "manifest.json").write_text(json.dumps(data))
    return folder


@pytest.fixture
def seal() -> Callable[..., Path]:
    """Write a manifest that agrees with the files of a bundle, then edit it."""
    return write_manifest


@pytest.fixture
def expected() -> Callable[[np.ndarray], np.ndarray]:
    """What the bundle's net computes, in numpy."""
    return logits


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle written by hand, so that nothing of the exporter's is trusted."""
    folder = tmp_path / "tiny"
    (folder / "sample").mkdir(parents=True)
    model = parser.parse_model(MODEL)
    model.graph.initializer.append(numpy_helper.from_array(WEIGHTS, "w"))
    onnx.save(model, folder / "model.onnx")
    sample = np.linspace(-1, 1, 4, dtype=np.float32).reshape(1, 1, 2, 2)
    np.save(folder / "sample/input.npy", sample)
    np.save(folder / "sample/expected.npy", logits(sample))
    (folder / "labels.txt").write_text("ant\nbee\ncat\n")
    return write_manifest(folder)


@pytest.fixture(scope="session")
def transforms() -> Any:
    """torchvision.transforms, an oracle for pixels."""
    torch = pytest.importorskip("torch", reason="the oracle needs torch")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("the oracle needs torchvision")
    try:
        return importlib.import_module("torchvision.transforms")
    except RuntimeError:
        # Without its compiled part torchvision misses two operators, of no use to transforms.
        library = torch.library.Library("torchvision", "DEF")
        _ALIVE.append(library)
        for op in ("nms", "qnms"):
            library.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return importlib.import_module("torchvision.transforms")
