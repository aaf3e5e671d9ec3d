"""Variants of the bundle written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny import MODEL, seal


def fixed_batch_model(batch: int) -> str:
    """The net with a batch that is written into it."""
    return MODEL.replace("batch", str(batch))


def with_preprocess(folder: Path, **changed: Any) -> Path:
    """A manifest for other images; no model stands behind it."""

    def edit(data: dict[str, Any]) -> None:
        data["preprocess"].update(changed)
        count = 1 if data["preprocess"]["channels"] == "L" else 3
        for key in ("mean", "std"):
            data["preprocess"][key] = (changed.get(key, data["preprocess"][key]) * 3)[:count]
        data["input"]["shape"][1:] = [count, *data["preprocess"]["crop"]]

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("model.onnx", "sample/input.npy", "sample/expected.npy"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return seal(folder, edit)
