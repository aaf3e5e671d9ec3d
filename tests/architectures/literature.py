"""What public implementations count in the same nets: the rows of literature.csv.

Parameters and multiply-adds of rows with a layout are those of the real modules of torchvision
0.29, timm 1.0.31 and pretrainedmodels 0.7.4 on the meta device; the others are from an independent
implementation, of which ZFNet, NiN, BN-Inception, the nets for CIFAR and the narrow MobileNets
agree with pytorchcv 0.0.74, and the narrow MobileNet v3 with torchvision's of that width. The year
is that of the paper that a row names; the tests compare with the torchvision and timm that are
installed.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import pytest

# Too long for every run of a developer.
_SLOW = ("1202", "1001", "152", "200", "wide_resnet101", "senet154", "bc_250", "bc_190", "_b7")


@dataclass(frozen=True)
class Facts:
    """One row; ``params_with_aux`` and ``state_dict_entries`` include auxiliary heads."""

    name: str
    family: str
    year: int
    input: tuple[int, ...]
    num_classes: int
    params: int
    params_with_aux: int
    macs: int
    weight_layers: int
    state_dict_entries: int
    layout: str


def _facts(row: dict[str, str]) -> Facts:
    text = {key: row.pop(key) for key in ("name", "family", "layout")}
    shape = tuple(int(size) for size in row.pop("input").split("x"))
    return Facts(**text, input=shape, **{key: int(value) for key, value in row.items()})


with Path(__file__).with_name("literature.csv").open(newline="", encoding="utf-8") as _file:
    LITERATURE = {row["name"]: _facts(row) for row in csv.DictReader(_file)}


def each(names: list[str] | None = None) -> list[object]:
    """The names as pytest parameters, those of large nets marked slow."""
    return [
        pytest.param(n, marks=[pytest.mark.slow] if any(part in n for part in _SLOW) else [])
        for n in (list(LITERATURE) if names is None else names)
    ]
