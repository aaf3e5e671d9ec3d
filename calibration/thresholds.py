"""Ranges → thresholds: how much of what was seen the integers shall cover."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from convexport.calibration.collect import TensorRange, upper_edge
from convexport.runtime.errors import UsageError, did_you_mean

METHODS = ("minmax", "percentile")


@dataclass(frozen=True)
class Threshold:
    """The magnitude that the largest integer stands for.

    Attributes:
        value: above zero.
        signed: False where no negative value was seen, as after a ReLU.
    """

    value: float
    signed: bool


@dataclass(frozen=True, kw_only=True)
class Method:
    """How thresholds are chosen.

    Attributes:
        name: ``minmax`` covers all that was seen; ``percentile`` leaves out the largest.
        percentile: of magnitudes that are covered, 50 < p <= 100.
    """

    name: str = "percentile"
    percentile: float = 99.999

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise UsageError(
                "E0250",
                f"there is no calibration method {self.name!r}",
                hint=did_you_mean(self.name, METHODS, otherwise=f"one of {', '.join(METHODS)}"),
            )
        if not 50 < self.percentile <= 100:
            raise UsageError(
                "E0251",
                f"a percentile of {self.percentile} covers too little",
                hint="give more than 50 and at most 100; 99.999 is the default",
            )


def thresholds(ranges: Mapping[str, TensorRange], method: Method) -> dict[str, Threshold]:
    """Decide every tensor's threshold. A tensor that was always zero gets the threshold 1."""
    return {name: _threshold(seen, method) for name, seen in ranges.items()}


def percentile_of(seen: TensorRange, percentile: float) -> float:
    """The magnitude that ``percentile`` per cent of the values do not exceed.

    Exact up to the width of a bin (1/128 of the value), and never more than the largest.
    """
    cumulative = np.cumsum(seen.counts)
    wanted = np.ceil(float(cumulative[-1]) * percentile / 100)
    return min(upper_edge(int(np.searchsorted(cumulative, wanted))), seen.magnitude)


def _threshold(seen: TensorRange, method: Method) -> Threshold:
    value = seen.magnitude if method.name == "minmax" else percentile_of(seen, method.percentile)
    return Threshold(value if value > 0 else 1.0, signed=seen.minimum < 0)
