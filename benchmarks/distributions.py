"""The three distributions that our intervals need, in numpy and the standard library alone.

The normal quantile is the standard library's. The binomial is exact: its log-probabilities
are summed from the ratio of neighbours,

    P(k) / P(k-1) = (n - k + 1) / k * p / (1 - p),

and normalised. Student's t has a finite trigonometric sum for whole degrees of freedom
(Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt


def normal_quantile(probability: float) -> float:
    """The z with P(Z <= z) = ``probability`` for the standard normal; 0 < probability < 1."""
    return NormalDist().inv_cdf(probability)


def binomial_cdf(n: int, p: float) -> npt.NDArray[np.float64]:
    """P(B <= k) for k = 0..n, shape (n + 1,), where B ~ Binomial(n, p) and 0 < p < 1."""
    k = np.arange(1, n + 1)
    steps = np.log((n - k + 1) / k) + math.log(p / (1 - p))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    mass = np.exp(logs - logs.max())
    cdf: npt.NDArray[np.float64] = np.cumsum(mass) / mass.sum()
    return np.minimum(cdf, 1.0)


def student_t_cdf(t: float, df: int) -> float:
    """P(T <= t) for Student's t with ``df`` >= 1 degrees of freedom."""
    theta = math.atan2(t, math.sqrt(df))
    sine, cosine = math.sin(theta), math.cos(theta)
    total, term = 1.0, 1.0
    for j in range(2 + df % 2, df - 1, 2):
        term *= cosine**2 * (j - 1) / j
        total += term
    if df == 1:
        return 0.5 + theta / math.pi
    odd = (theta + sine * cosine * total) / math.pi
    return 0.5 + (odd if df % 2 else sine * total / 2)


def student_t_quantile(probability: float, df: int) -> float:
    """The t with P(T <= t) = ``probability``; 0.5 <= probability < 1, df >= 1."""
    low, high = 0.0, 1.0
    while student_t_cdf(high, df) < probability:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if student_t_cdf(middle, df) < probability:
            low = middle
        else:
            high = middle
    return high
