"""Images made up for tests, and files of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A file's content."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write_images(folder: Path, count: int, *, seed: int = 0) -> None:
    """As bright or dark, and as rough, as photographs are."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for index in range(count):
        pixels = random.integers(0, 256) + random.normal(0, 30, (40, 40))
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        image.save(folder / f"{index:04d}.png")
