"""A folder of labelled images, and a bundle that answers otherwise than its reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from tests.tiny import MANIFEST, seal, write_bundle

REFERENCE = np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32)
MODEL = REFERENCE + 0.3 * np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)
NAMES = ("ant", "bee", "cat")


@pytest.fixture
def tiny(home: Path) -> Path:
    """A bundle whose model multiplies by other numbers than its reference does."""
    folder = write_bundle(home / "tiny")
    model = onnx.load(folder / "model.onnx")
    for name, weights in (("reference", REFERENCE), ("model", MODEL)):
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w"))
        onnx.save(model, folder / f"{name}.onnx")
    sample = np.load(folder / "sample/input.npy")
    np.save(folder / "sample/expected.npy", sample.reshape(1, -1) @ MODEL.T)
    return sealed(folder)


def sealed(folder: Path, **changes: Any) -> Path:
    (folder / "manifest.json").unlink()
    preprocess = {**MANIFEST["preprocess"], "mean": [0.5], "std": [0.25]}
    facts = {"precision": "int8", "reference": "reference.onnx", "preprocess": preprocess}
    return seal(folder, lambda data: data.update({**facts, **changes}))


def pixels(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (2, 2), np.uint8)


def logits(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the reference and of the model."""
    x = (image.astype(np.float32).reshape(-1) / 255 - 0.5) / 0.25
    return REFERENCE @ x, MODEL @ x


def answer(index: int) -> str:
    """The class that the reference gives such an image."""
    return NAMES[int(logits(pixels(index))[0].argmax())]


def put(path: Path, index: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(index)).save(path, format="PNG")
    return path


@pytest.fixture
def data(home: Path) -> Path:
    """Labelled as the reference answers, but for every ninth."""
    for index in range(100):
        put(home / f"data/{answer(index) if index % 9 else 'bee'}/{index:03}.png", index)
    return home / "data"
