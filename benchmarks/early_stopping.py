"""When enough requests were seen to speak of a percentile: MLPerf's early stopping.

The rule of MLPerf's LoadGen (V. Reddi et al., MLPerf Inference Benchmark, arXiv 1911.02549; its
``early_stopping.cc``): of n independent requests the number that are later than the true
percentile q is Binomial(n, 1 - q). A bound is kept if as few late ones as were seen, t, would have
been seen with a probability of at most 1 % had the bound been the percentile exactly:

    P( Binomial(n, 1 - q) <= t ) <= 0.01.

Turned round, the (t - 1) slowest requests may be left out for the largest such t, and the slowest
of the others is an upper estimate of the percentile, at 99 % confidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convexport.benchmarks.distributions import binomial_cdf

CONFIDENCE = 0.99


@dataclass(frozen=True)
class EarlyStopping:
    """An upper estimate of a percentile, in the unit of the samples.

    Attributes:
        percent: of which percentile.
        n: requests.
        floor: how many are needed; below it there is no estimate.
        estimate: the percentile is at most this, at ``confidence``; None below the floor.
        discarded: how many slower requests were left out.
    """

    percent: float
    n: int
    floor: int
    estimate: float | None
    discarded: int
    confidence: float = CONFIDENCE

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def allowed_late(n: int, percent: float) -> int:
    """How many of n requests may be later than a bound on that percentile; -1: n is too small."""
    cdf = binomial_cdf(n, 1 - percent / 100)
    return int(np.searchsorted(cdf, 1 - CONFIDENCE, side="right")) - 1


def bound_floor(percent: float) -> int:
    """The fewest requests that can keep a bound on that percentile, with none of them late."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(percent / 100))


def early_stopping(samples: Sequence[float] | npt.NDArray[Any], percent: float) -> EarlyStopping:
    """The estimate from samples, which are taken as independent."""
    n = len(samples)
    late = allowed_late(n, percent)
    floor = _floor(percent)
    if late < 1:
        return EarlyStopping(percent, n, floor, None, 0)
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    return EarlyStopping(percent, n, floor, float(ordered[n - late]), late - 1)


def _floor(percent: float) -> int:
    """The smallest n of which one request may be late."""
    q, n = percent / 100, 1
    while n * (1 - q) * q ** (n - 1) + q**n > 1 - CONFIDENCE:
        n += 1
    return n
