from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import tiny

Edit = Callable[[dict[str, Any]], object]
_ALIVE: list[Any] = []


def write_manifest(folder: Path, edit: Edit = lambda data: None) -> Path:
    """A manifest of a later minor version that agrees with the files, then edited."""

    def later(data: dict[str, Any]) -> None:
        data["something_new"] = {"of a later": "minor version"}
        edit(data)

    return tiny.seal(folder, later)


@pytest.fixture
def seal() -> Callable[..., Path]:
    """Write a manifest that agrees with the files of a bundle, then edit it."""
    return write_manifest


@pytest.fixture
def expected() -> Callable[[np.ndarray], np.ndarray]:
    """What the bundle's net computes, in numpy."""
    return tiny.logits


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle written by hand, so that nothing of the exporter's is trusted."""
    return write_manifest(tiny.write_bundle(tmp_path / "tiny"))


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
