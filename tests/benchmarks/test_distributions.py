from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from convexport.benchmarks.distributions import (
    binomial_cdf,
    normal_quantile,
    student_t_cdf,
    student_t_quantile,
)


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("n", [0, 1, 2, 36, 1000, 200_000])
def test_binomial_is_scipys(n: int, p: float) -> None:
    ours, theirs = binomial_cdf(n, p), stats.binom.cdf(np.arange(n + 1), n, p)
    assert ours.shape == (n + 1,)
    np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 10, 29, 100])
def test_student_t_is_scipys(df: int) -> None:
    for t in (-20.0, -1.5, 0.0, 0.3, 2.776, 40.0):
        assert student_t_cdf(t, df) == pytest.approx(stats.t.cdf(t, df), rel=1e-9, abs=1e-12)
    for probability in (0.6, 0.95, 0.975, 0.999):
        expected = stats.t.ppf(probability, df)
        assert student_t_quantile(probability, df) == pytest.approx(expected, rel=1e-9)


def test_normal_quantile_is_scipys() -> None:
    assert normal_quantile(0.975) == pytest.approx(stats.norm.ppf(0.975), rel=1e-12)
