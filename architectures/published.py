"""Trained weights that others publish: where they lie, their hash, what they are said to reach.

``published_weights.csv`` has one row each. Source: the metadata of torchvision 0.28 (BSD-3-Clause)
and timm 1.0.31 (Apache-2.0) with its results on ImageNet. Mostly only the first eight digits of a
hash are published, in the file's name; full ones are quoted from public records of the same files.
Only weights that were evaluated with the variant's own preprocess are listed.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """Trained weights that somebody publishes.

    Attributes:
        name: the publisher's name of them.
        url: where the file lies.
        sha256: as published, in hex: all 64 digits, or the first 8 that the file name carries;
            empty where nobody says it, and then the file is not fetched.
        licence: SPDX identifier.
        top1: ImageNet top-1 accuracy that the publisher states, percent, single crop.
        top5: the same for the five best classes.
        source: who publishes them.
    """

    name: str
    url: str
    sha256: str
    licence: str
    top1: float
    top5: float
    source: str

    @property
    def file_name(self) -> str:
        """The last part of the address; on Hugging Face, where all are alike, the repository."""
        address, _, file = self.url.partition("/resolve/")
        name = address.rsplit("/", 1)[-1]
        return f"{name}{Path(file).suffix}"


def published_weights(variant: str) -> tuple[PublishedWeights, ...]:
    """What is published for the variant, best first; empty where nothing is."""
    return _table().get(variant, ())


@cache
def _table() -> dict[str, tuple[PublishedWeights, ...]]:
    table: dict[str, tuple[PublishedWeights, ...]] = {}
    path = Path(__file__).with_name("published_weights.csv")
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            variant, top1, top5 = (row.pop(key) for key in ("variant", "top1", "top5"))
            weights = PublishedWeights(**row, top1=float(top1), top5=float(top5))
            table[variant] = (*table.get(variant, ()), weights)
    return table
