"""Ranges on disk: one ``.npz`` of plain arrays, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from convexport.calibration.histograms import Channels, TensorRange


def save_ranges(file: Path | IO[bytes], ranges: Mapping[str, TensorRange], groups: int = 0) -> None:
    """Write ranges; the same ones give the same bytes.

    Args:
        groups: of batches, in which they were seen; told by a pass that is not done.
    """
    seen = list(ranges.values())
    channels = [each.channels for each in seen]
    np.savez_compressed(
        file,
        groups=np.array(groups),
        # As bytes: numpy's texts lose zeros at their end, and all take the room of the longest.
        names=np.frombuffer(json.dumps(list(ranges)).encode(), np.uint8),
        bounds=np.array([(each.minimum, each.maximum) for each in seen]),
        bins=np.array([len(each.counts) for each in seen]),
        counts=np.concatenate([each.counts for each in seen]),
        channels=np.array([0 if each is None else len(each.minimum) for each in channels]),
        values=np.array([0 if each is None else each.count for each in channels]),
        minimum=_joined([each.minimum for each in channels if each is not None]),
        maximum=_joined([each.maximum for each in channels if each is not None]),
        total=_joined([each.total for each in channels if each is not None]),
    )


def load_ranges(file: Path) -> tuple[dict[str, TensorRange], int]:
    """The inverse of ``save_ranges``: ranges, and groups."""
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
        counts = _split(data["counts"], data["bins"])
        low, high, total = (
            _split(data[name], data["channels"]) for name in ("minimum", "maximum", "total")
        )
        names = json.loads(data["names"].tobytes())
        ranges = {
            str(name): TensorRange(
                float(bounds[0]),
                float(bounds[1]),
                counts[row],
                Channels(low[row].astype("f4"), high[row].astype("f4"), total[row], int(values))
                if len(low[row])
                else None,
            )
            for row, (name, bounds, values) in enumerate(
                zip(names, data["bounds"], data["values"], strict=True)
            )
        }
        return ranges, int(data["groups"])


def _joined(parts: list[NDArray[np.floating]]) -> NDArray[np.float64]:
    return np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)


def _split(joined: NDArray[Any], lengths: NDArray[np.integer]) -> list[NDArray[Any]]:
    return np.split(joined, np.cumsum(lengths)[:-1])
