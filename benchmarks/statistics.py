"""From samples to numbers with an interval: percentiles, ratios, proportions.

Nothing here assumes a shape of the distribution. The value of a percentile q is the order
statistic x(ceil(n q)). Its interval runs between two order statistics: the number of samples
below the true quantile is Binomial(n, q), so

    P( x(l) <= quantile <= x(u) )  >=  P( l <= B <= u - 1 )

and l, u are the tightest ranks that leave at most 2.5 % on either side (David and Nagaraja,
Order Statistics, 3rd ed., section 7.1). Below the sample size at which x(n) can be that upper
rank there is no such interval, and then no value is given either.

Samples of one process follow each other closely and are not independent; the bootstrap over
whole blocks (Carlstein 1986, Annals of Statistics 14) shows what that does to a percentile,
and a claim is made only between medians of several fresh processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from convexport.benchmarks.distributions import (
    binomial_cdf,
    normal_quantile,
    student_t_quantile,
)
from convexport.runtime.errors import UsageError

CONFIDENCE = 0.95
CLAIM_PROCESSES = 5
_TAIL = (1 - CONFIDENCE) / 2
_GRID = 4096

Numbers = Sequence[float] | npt.NDArray[Any]


@dataclass(frozen=True)
class Percentile:
    """A percentile with its distribution-free 95 % interval, in the unit of the samples.

    Attributes:
        percent: 0 < percent < 100.
        n: how many samples there were.
        floor: how many are needed; below it value, low and high are None.
    """

    percent: float
    n: int
    floor: int
    value: float | None
    low: float | None
    high: float | None

    @property
    def note(self) -> str:
        """Why there is no value, or nothing."""
        return f"n too small: {self.n} of {self.floor}" if self.value is None else ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "note": self.note}


@dataclass(frozen=True)
class Proportion:
    """k of n, with Wilson's 95 % interval."""

    k: int
    n: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """k / n."""
        return self.k / self.n

    def __str__(self) -> str:
        return f"{self.k}/{self.n}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "share": self.share}


@dataclass(frozen=True)
class Ratio:
    """How many times faster one is than another, over fresh processes.

    Attributes:
        value: median of the first / median of the other: above 1 the other is faster.
            None without processes.
        low: lower end of the 95 % interval; None with fewer than two processes.
        high: upper end.
        processes: how many pairs of medians it rests on.
        claim: ``faster`` or ``slower`` if the interval excludes 1 over at least
            CLAIM_PROCESSES processes; ``no difference shown`` or ``too few processes`` if not.
    """

    value: float
    low: float | None
    high: float | None
    processes: int
    claim: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "method": "paired t interval on log ratios of process medians"}


def sample_floor(percent: float) -> int:
    """The fewest samples for which the percentile has an interval with both ends finite."""
    q = _fraction(percent)
    return math.ceil(math.log(_TAIL) / math.log(max(q, 1 - q)))


def percentile(samples: Numbers, percent: float) -> Percentile:
    """One percentile with its interval; without a value below the sample floor.

    Raises:
        UsageError: E0261, ``percent`` is not between 0 and 100.
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    n, floor = len(ordered), sample_floor(percent)
    if n < floor:
        return Percentile(percent, n, floor, None, None, None)
    cdf = binomial_cdf(n, float(_fraction(percent)))
    low = int(np.searchsorted(cdf, _TAIL, side="right"))
    high = int(np.searchsorted(cdf, 1 - _TAIL, side="left")) + 1
    ranks = (math.ceil(n * _fraction(percent)), low, high)
    return Percentile(percent, n, floor, *(float(ordered[rank - 1]) for rank in ranks))


def coefficient_of_variation(samples: Numbers) -> float | None:
    """Standard deviation (n - 1) / mean; None for fewer than two samples or a mean of 0."""
    values = np.asarray(samples, dtype=np.float64)
    if len(values) < 2 or values.mean() == 0:
        return None
    return float(values.std(ddof=1) / abs(values.mean()))


def block_bootstrap(
    blocks: Sequence[Numbers], percent: float, *, seed: int, resamples: int = 1000
) -> tuple[float, float] | None:
    """The 95 % interval of a percentile when samples within a block depend on each other.

    Whole blocks are drawn with replacement, as many as there are. Above 4096 different values
    the answer is rounded to one of 4096 evenly spaced order statistics.

    Args:
        blocks: the samples, in blocks long against their correlation.
        percent: 0 < percent < 100.
        seed: the same seed gives the same interval.
        resamples: how often the blocks are drawn.

    Returns:
        Lower and upper end, or None with fewer than two blocks or below the sample floor.
    """
    arrays = [np.sort(np.asarray(block, dtype=np.float64)) for block in blocks if len(block)]
    ordered = np.sort(np.concatenate(arrays)) if arrays else np.empty(0)
    if len(arrays) < 2 or len(ordered) < sample_floor(percent):
        return None
    grid = np.unique(ordered)
    if len(grid) > _GRID:
        grid = np.unique(ordered[np.linspace(0, len(ordered) - 1, _GRID).astype(np.intp)])
    below = np.stack([np.searchsorted(array, grid, side="right") for array in arrays])
    sizes = np.array([len(array) for array in arrays])
    rng = np.random.default_rng(seed)
    values = np.empty(resamples)
    for index in range(resamples):
        times = np.bincount(rng.integers(len(arrays), size=len(arrays)), minlength=len(arrays))
        rank = math.ceil(int(times @ sizes) * _fraction(percent))
        values[index] = grid[np.searchsorted(times @ below, rank)]
    low, high = np.quantile(values, [_TAIL, 1 - _TAIL])
    return float(low), float(high)


def ratio_of_medians(first: Numbers, other: Numbers) -> Ratio:
    """How many times faster ``other`` is than ``first``; entry i of both is one process.

    The log ratios of the pairs are taken as a sample of independent processes: their mean and
    Student's t interval, turned back by exp. Pairing cancels what a process has in common.

    Raises:
        UsageError: E0262, unequal or no lengths, or a median that is not above 0.
    """
    pairs = [np.asarray(side, dtype=np.float64) for side in (first, other)]
    n = len(pairs[0])
    if n != len(pairs[1]) or n == 0 or not all(np.all(side > 0) for side in pairs):
        raise UsageError("E0262", "a ratio needs pairs of medians above 0, one pair a process")
    logs = np.log(pairs[0]) - np.log(pairs[1])
    mean = float(logs.mean())
    if n == 1:
        return Ratio(math.exp(mean), None, None, 1, "too few processes")
    half = student_t_quantile(1 - _TAIL, n - 1) * float(logs.std(ddof=1)) / math.sqrt(n)
    low, high = math.exp(mean - half), math.exp(mean + half)
    return Ratio(math.exp(mean), low, high, n, _claim(low, high, n))


def ratio_of_groups(first: Numbers, other: Numbers) -> tuple[float, float, float] | None:
    """How many times larger ``other`` is than ``first``, of processes that are no pairs.

    As ``ratio_of_medians``, with Welch's interval for the difference of two means (Welch 1947,
    Biometrika 34); its degrees of freedom are rounded down.

    Returns:
        The ratio, the lower and the upper end of its 95 % interval; None with fewer than two
        processes on a side.

    Raises:
        UsageError: E0262, a median is not above 0.
    """
    sides = [np.asarray(side, dtype=np.float64) for side in (first, other)]
    if not all(np.all(side > 0) for side in sides):
        raise UsageError("E0262", "a ratio needs medians above 0")
    if min(map(len, sides)) < 2:
        return None
    before, after = (np.log(side) for side in sides)
    parts = [float(logs.var(ddof=1)) / len(logs) for logs in (before, after)]
    mean, variance = float(after.mean() - before.mean()), sum(parts)
    weights = sum(part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True))
    df = math.floor(variance**2 / weights) if weights else min(map(len, sides)) - 1
    half = student_t_quantile(1 - _TAIL, max(1, df)) * math.sqrt(variance)
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def proportion(k: int, n: int, *, tries: int = 1) -> Proportion:
    """k of n with Wilson's score interval (Wilson 1927, JASA 22); 0 <= k <= n, n >= 1.

    Args:
        tries: how many such intervals have to hold together (Bonferroni).
    """
    z2 = normal_quantile(1 - _TAIL / tries) ** 2
    centre = (k + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * (k * (n - k) / n + z2 / 4)) / (n + z2)
    # At the edges the bound is exactly the edge; rounding would leave a hair.
    low = 0.0 if k == 0 else centre - half
    high = 1.0 if k == n else centre + half
    return Proportion(k, n, low, high)


def images_needed(share: float) -> int:
    """Of how many images half that share may differ, and ``proportion``'s upper end is within it.

    Args:
        share: above 0, below 1.
    """
    n = 1
    while proportion(int(share * n / 2), n).high > share:
        n += max(1, n // 50)
    return n


def _claim(low: float, high: float, processes: int) -> str:
    if processes < CLAIM_PROCESSES:
        return "too few processes"
    return "faster" if low > 1 else "slower" if high < 1 else "no difference shown"


def _fraction(percent: float) -> Fraction:
    if not 0 < percent < 100:
        raise UsageError("E0261", f"a percentile lies between 0 and 100, not at {percent}")
    # By way of the decimal text: 99.9 is meant as 999/1000, not as its nearest binary fraction.
    return Fraction(str(percent)) / 100
