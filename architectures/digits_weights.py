"""The weights that ship with the project: small nets trained on scikit-learn's digits.

Each file tells about itself in its safetensors metadata, under one key, as JSON (several keys
would be written in an order that changes from run to run).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from convexport.architectures.registry import variants
from convexport.architectures.variant import Variant
from convexport.runtime.errors import UsageError
from convexport.runtime.files import write_atomically
from convexport.runtime.specs import Preprocess

DIGITS = Path(__file__).with_name("digits")
_KEY = "convexport"


@dataclass(frozen=True, kw_only=True)
class DigitsFacts:
    """How a net was trained and what it reached.

    Attributes:
        variant: its name in the zoo.
        top1: fraction of the test images that it gets right.
        images: number of test images.
        seed: of the training.
        epochs: of the training.
        licence: of the weights.
        labels: names of the classes.
        preprocess: from an image to its input.
    """

    variant: str
    top1: float
    images: int
    seed: int
    epochs: int
    licence: str
    labels: tuple[str, ...]
    preprocess: Preprocess

    @property
    def note(self) -> str:
        """For the user: what the weights can do."""
        return (
            f"weights trained on scikit-learn's handwritten digits: {self.top1:.2%} of "
            f"{self.images} test images right"
        )


def digits_file(variant: Variant) -> Path:
    """The file that ships for the variant.

    Raises:
        UsageError: E0223, there is none.
    """
    if not variant.digits:
        known = ", ".join(name for name, row in variants().items() if row.digits)
        raise UsageError(
            "E0223", f"no digits weights ship for {variant.name}", hint=f"they do for {known}"
        )
    return DIGITS / f"{variant.name}.safetensors"


def digits_facts(path: Path) -> DigitsFacts:
    """What such a file tells about itself."""
    with safe_open(path, framework="pt") as file:
        data: dict[str, Any] = json.loads(file.metadata()[_KEY])
    labels, preprocess = tuple(data.pop("labels")), Preprocess.from_dict(data.pop("preprocess"))
    return DigitsFacts(labels=labels, preprocess=preprocess, **data)


def write_digits(path: Path, state: Mapping[str, torch.Tensor], facts: DigitsFacts) -> None:
    """Write such a file; the same weights and facts give the same bytes.

    Raises:
        StorageError: E0801, the disk is full or does not let us.
    """
    text = json.dumps(asdict(facts), sort_keys=True)
    write_atomically(path, save(dict(state), {_KEY: text}))
