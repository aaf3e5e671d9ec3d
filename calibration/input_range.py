"""Whether the images fit the normalization: what the net was fed, against what it should be.

A value of the input is (p / 255 - mean) / std of a pixel p in 0..255. What was seen is turned back
into pixels, where it can be held against what images are like whatever the normalization is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from convexport.runtime.specs import Preprocess

_Channels = NDArray[np.float64]


@dataclass(frozen=True)
class InputRange:
    """What was seen of the net's input, per channel: float64 of shape (C,)."""

    minimum: _Channels
    maximum: _Channels
    mean: _Channels
    std: _Channels

    def to_dict(self) -> dict[str, list[float]]:
        """As JSON."""
        return {name: values.tolist() for name, values in asdict(self).items()}


class InputTally:
    """Adds up batches, in memory that does not grow with them."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: _Channels = np.zeros((2, 1))
        self._ends: _Channels = np.full((2, 1), -np.inf)

    def add(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same batch, float32 N×C×H×W, after it was counted."""
        values, others = batch.astype(np.float64), (0, 2, 3)
        self._count += values.size // values.shape[1]
        self._sums = np.add(self._sums, [values.sum(others), np.square(values).sum(others)])
        self._ends = np.maximum(self._ends, [-values.min(others), values.max(others)])
        return batch

    def seen(self) -> InputRange:
        """What all batches were together; there was at least one."""
        mean, square = self._sums / self._count
        std = np.sqrt(np.maximum(square - mean**2, 0))
        return InputRange(-self._ends[0], self._ends[1], mean, std)


@dataclass(frozen=True)
class _Rule:
    """``what`` is expected from ``low`` to ``high``; if it is not, it looks like ``like``."""

    what: str
    of: Callable[[InputRange, Preprocess], _Channels]
    low: float
    high: float
    like: str


def _mean(spec: Preprocess) -> _Channels:
    return np.array(spec.mean)


def _pixels(values: _Channels, spec: Preprocess) -> _Channels:
    pixels: _Channels = 255 * (values * np.array(spec.std) + _mean(spec))
    return pixels


def _distance(seen: InputRange, spec: Preprocess) -> _Channels:
    # A mean of 0 says nothing about the images: such nets take values as they are.
    return np.where(_mean(spec) > 0, _pixels(seen.mean, spec) - 255 * _mean(spec), 0.0)


# The first row that fires is told: it explains those below it.
_RULES = (
    # Pixels are scaled to 0..1 before; their mean lies there too.
    _Rule(
        "the normalization's mean",
        lambda seen, spec: _mean(spec),
        0,
        1,
        "it is meant for values of 0..255, or has the wrong sign; write it for 0..1",
    ),
    # 1 changes nothing and 1/255 goes back to 0..255; nets are trained with these or between.
    _Rule(
        "the normalization's std",
        lambda seen, spec: np.array(spec.std),
        1 / 256,
        1,
        "it is meant for values of 0..255, or was scaled twice; write it for 0..1",
    ),
    # In video 16 is black and 235 is white (ITU-R BT.601): nothing lies beyond.
    _Rule(
        "the brightest pixel",
        lambda seen, spec: _pixels(seen.maximum, spec),
        16,
        255,
        "nearly black, as masks of class numbers are, and normalized values kept in 8 bits",
    ),
    _Rule(
        "the darkest pixel",
        lambda seen, spec: _pixels(seen.minimum, spec),
        0,
        235,
        "nearly white: inverted or overexposed",
    ),
    # A tenth of ImageNet's 57 (its std of 0.225 in pixels).
    _Rule(
        "the standard deviation of the pixels",
        lambda seen, spec: 255 * seen.std * np.array(spec.std),
        5.7,
        math.inf,
        "hardly any contrast",
    ),
    # A third of the scale. The digits on nets with a mean of 0.5 are 49 away.
    _Rule(
        "the mean pixel, less the normalization's mean,",
        _distance,
        -85,
        85,
        "much darker or brighter than what the net was trained on",
    ),
)


def input_doubts(seen: InputRange, spec: Preprocess) -> tuple[str, ...]:
    """What about the input does not fit the normalization, or cannot be natural images: a sentence.

    Args:
        seen: of the net's input, as normalized.
        spec: how images became that input.
    """
    for rule in _RULES:
        values = rule.of(seen, spec)
        # Half a pixel is what float32 may make of the ends of 0..255.
        slack = 0.5 if rule.high > 1 else 0.0
        if (values < rule.low - slack).any() or (values > rule.high + slack).any():
            found = ", ".join(f"{round(value, 4):.3g}" for value in values)
            limits = f"{rule.low:.3g} or more" if rule.high == math.inf else ""
            limits = limits or f"{rule.low:.3g} to {rule.high:.3g}"
            return (f"{rule.what} is {found}, expected {limits}: {rule.like}",)
    return ()
