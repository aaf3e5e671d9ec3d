"""Ranges → thresholds: how much of what was seen the integers shall cover."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from convexport.calibration.histograms import TensorRange, edges
from convexport.runtime.errors import UsageError, did_you_mean

METHODS = ("auto", "minmax", "percentile", "entropy", "mse")

# Entropy is compared on bins of equal width, as many as TensorRT takes (S. Migacz, 8-bit
# Inference with TensorRT, GTC 2017). Mean squared errors are searched down to 3 % of the largest.
_LINEAR_BINS, _LEVELS = 2048, 128
_COARSE, _STEPS = 0.92, 42

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Threshold:
    """The values that the integers shall cover: from -low to high.

    Attributes:
        value: the largest magnitude covered, above zero.
        low: magnitude of the smallest value covered, 0 where none was negative.
        high: the largest value covered, 0 where none was positive.
    """

    value: float
    low: float
    high: float

    def step(self, dtype: str) -> float:
        """What lies between two of the integers, ``uint8`` or ``int8`` (see ``qdq``)."""
        return (self.low + self.high) / 255 if dtype == "uint8" else self.value / 127


@dataclass(frozen=True, kw_only=True)
class Method:
    """How thresholds are chosen.

    Attributes:
        name: ``minmax`` covers all that was seen; ``percentile`` leaves out the largest;
            ``entropy`` keeps the most information; ``mse`` loses the least power; ``auto`` takes
            the one of them that moves this net's outputs least.
        percentile: of magnitudes that are covered, 50 < p <= 100.
    """

    name: str = "auto"
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

    def __str__(self) -> str:
        return f"percentile {self.percentile:g}" if self.name == "percentile" else self.name


# What ``auto`` tries.
CANDIDATES = (
    Method(name="minmax"),
    Method(name="percentile", percentile=99.999),
    Method(name="percentile", percentile=99.99),
    Method(name="mse"),
    Method(name="entropy"),
)


class Thresholds:
    """Ranges, and the thresholds that methods make of them, each decided once.

    Args:
        ranges: of tensors, by name.
    """

    def __init__(self, ranges: Mapping[str, TensorRange]) -> None:
        self.ranges = ranges
        self._decided: dict[tuple[tuple[str, ...], Method, str], Threshold] = {}

    def of(self, tensors: tuple[str, ...], method: Method, dtype: str = "int8") -> Threshold:
        """The one threshold of tensors that share a scale; see ``threshold``."""
        known = (tensors, method, dtype)
        if known not in self._decided:
            seen = reduce(TensorRange.merge, (self.ranges[name] for name in tensors))
            self._decided[known] = threshold(seen, method, dtype)
        return self._decided[known]


def threshold(seen: TensorRange, method: Method, dtype: str = "int8") -> Threshold:
    """Decide a threshold; that of a tensor that was always zero is 1.

    Args:
        method: any but ``auto``, which needs more than ranges.
        dtype: of the integers, ``uint8`` or ``int8``: what ``mse`` loses depends on their step.
    """
    if method.name == "auto":
        raise ValueError("auto is chosen by measurement, not from ranges")
    value = seen.magnitude
    if value == 0:
        return Threshold(1.0, 0.0, 1.0)
    if method.name == "percentile":
        value = percentile_of(seen, method.percentile)
    elif method.name == "mse":
        value = mse_of(seen, dtype)
    elif method.name == "entropy":
        value = entropy_of(seen)
    # A percentile may be that of zeros alone.
    return _covering(seen, value or seen.magnitude)


def _covering(seen: TensorRange, value: float) -> Threshold:
    """Up to a magnitude, on the sides where there is something."""
    return Threshold(value, max(0.0, min(value, -seen.minimum)), max(0.0, min(value, seen.maximum)))


def percentile_of(seen: TensorRange, percentile: float) -> float:
    """The magnitude that ``percentile`` per cent of the counted values do not exceed.

    Exact up to the width of a bin (1/128 of the value), and never more than the largest.
    """
    cumulative = np.cumsum(seen.counts)
    wanted = np.ceil(float(cumulative[-1]) * percentile / 100)
    index = int(np.searchsorted(cumulative, wanted))
    return min(float(edges(len(seen.counts))[index + 1]), seen.magnitude)


def mse_of(seen: TensorRange, dtype: str = "int8") -> float:
    """The magnitude T for which integers of the type, clipped at T, lose the least power.

    Within a bin, values are taken to be spread evenly; the error is integrated exactly.
    """
    counts, edge = _occupied(seen)

    def best(candidates: NDArray[np.floating]) -> float:
        steps = [_covering(seen, float(value)).step(dtype) for value in candidates]
        errors = [_power_lost(counts, edge, *each) for each in zip(candidates, steps, strict=True)]
        return float(candidates[int(np.argmin(errors))])

    largest = min(seen.magnitude, float(edge[-1]))
    coarse = best(largest * _COARSE ** np.arange(_STEPS))
    around = coarse * np.linspace(_COARSE, 1 / _COARSE, 17)
    return best(np.asarray(np.minimum(around, largest)))


def entropy_of(seen: TensorRange) -> float:
    """The magnitude T whose 128 levels tell least different a story (Kullback-Leibler).

    Zeros are left out: every step represents them exactly, and after a ReLU they are most values.
    """
    counts, edge = _occupied(seen)
    grid = np.linspace(0, edge[-1], _LINEAR_BINS + 1)
    linear = np.diff(np.interp(grid, edge, np.append(0.0, counts.cumsum())))
    sizes = range(_LEVELS, _LINEAR_BINS + 1, 16)
    divergences = [_divergence(linear, size) for size in sizes]
    return min(float(grid[sizes[int(np.argmin(divergences))]]), seen.magnitude)


def _occupied(seen: TensorRange) -> tuple[_Array, _Array]:
    """Counts and edges from the first bin that holds values to the last; zeros are left out."""
    held = np.flatnonzero(seen.counts[1:]) + 1
    first, end = (int(held[0]), int(held[-1]) + 1) if len(held) else (0, 1)
    edge = edges(end)[first:]
    # The last bin ends where the values do; beyond it the largest was not among the counted.
    if edge[-2] < seen.magnitude and (seen.magnitude < edge[-1] or not len(held)):
        edge[-1] = seen.magnitude
    return seen.counts[first:end].astype(np.float64), edge


def _power_lost(counts: _Array, edge: _Array, value: float, step: float) -> float:
    within = np.minimum(edge, value)
    # The integral of the squared distance to the nearest multiple of the step, and beyond the
    # last of them to that.
    periods = np.rint(within / step)
    integral = periods * step**3 / 12 + ((within - periods * step) ** 3 + (edge - within) ** 3) / 3
    return float((counts * np.diff(integral) / np.diff(edge)).sum())


def _divergence(linear: _Array, size: int) -> float:
    """Between the first ``size`` bins, what lies beyond added to the last, and 128 levels."""
    kept = linear[:size]
    wanted = kept.copy()
    wanted[-1] += linear[size:].sum()
    level = np.arange(size) * _LEVELS // size
    held = kept > 0
    masses = np.bincount(level, kept, _LEVELS)
    shares = np.bincount(level, held, _LEVELS)
    given = np.where(held, (masses / np.maximum(shares, 1))[level], 0.0)
    wanted, given = wanted / wanted.sum(), given / max(given.sum(), 1e-300)
    held = wanted > 0
    return float((wanted[held] * np.log(wanted[held] / np.maximum(given[held], 1e-12))).sum())
