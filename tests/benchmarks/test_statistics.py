from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from convexport.benchmarks.statistics import (
    block_bootstrap,
    coefficient_of_variation,
    percentile,
    proportion,
    ratio_of_medians,
    sample_floor,
)
from convexport.runtime.errors import UsageError

# The fewest samples for a finite 97.5 % upper bound, worked out elsewhere.
FLOORS = {50: 6, 90: 36, 95: 72, 99: 368, 99.9: 3688}


@pytest.mark.parametrize(("percent", "floor"), FLOORS.items())
def test_floors(percent: float, floor: int) -> None:
    assert sample_floor(percent) == floor
    q = percent / 100
    assert stats.binom.sf(floor - 1, floor, q) <= 0.025  # the largest sample is a bound
    assert stats.binom.sf(floor - 2, floor - 1, q) > 0.025


def test_a_low_percentile_needs_as_many_as_its_mirror() -> None:
    assert sample_floor(1) == sample_floor(99)


@pytest.mark.parametrize(("percent", "floor"), FLOORS.items())
def test_below_the_floor_there_is_no_number(percent: float, floor: int) -> None:
    samples = np.arange(floor, dtype=float)
    assert percentile(samples, percent).high == floor - 1
    few = percentile(samples[1:], percent)
    assert (few.value, few.low, few.high) == (None, None, None)
    assert few.note == f"n too small: {floor - 1} of {floor}"
    assert json.loads(json.dumps(few.to_dict(), allow_nan=False))["value"] is None
    assert percentile([], percent).value is None


@pytest.mark.parametrize("percent", [0, 100, -1, math.nan])
def test_no_percentile_outside_0_to_100(percent: float) -> None:
    with pytest.raises(UsageError, match="E0261"):
        percentile([1.0] * 10, percent)


def _ranks(n: int, q: float) -> tuple[int, int]:
    """Every pair of ranks tried: the largest l, the smallest u that leave 2.5 % each."""
    lows = [rank for rank in range(1, n + 1) if stats.binom.cdf(rank - 1, n, q) <= 0.025]
    highs = [rank for rank in range(1, n + 1) if stats.binom.sf(rank - 1, n, q) <= 0.025]
    return max(lows), min(highs)


@pytest.mark.parametrize(
    ("n", "percent"), [(6, 50), (7, 50), (101, 50), (36, 90), (250, 95), (400, 99), (72, 10)]
)
def test_interval_is_that_of_all_ranks_tried(n: int, percent: float) -> None:
    samples = np.random.default_rng(n).permutation(n) + 1.0  # the value is the rank
    found = percentile(samples, percent)
    assert (found.low, found.high) == _ranks(n, percent / 100)


@settings(max_examples=50)
@given(st.lists(st.integers(-1000, 1000), min_size=72, max_size=300))
def test_value_is_the_sorted_index(samples: list[int]) -> None:
    n = len(samples)
    for percent in (50, 55, 90, 95):
        # x(k) for the smallest k with k / n >= percent / 100, in whole numbers
        k = next(k for k in range(1, n + 1) if 100 * k >= percent * n)
        found = percentile(samples, percent)
        assert found.value == sorted(samples)[k - 1]
        assert found.low is not None and found.high is not None
        assert found.low <= found.value <= found.high


@pytest.mark.parametrize(("percent", "n"), [(50, 25), (90, 60), (95, 150), (99, 500)])
def test_interval_covers(percent: float, n: int) -> None:
    rng = np.random.default_rng(7)
    truth, trials, hits = stats.lognorm.ppf(percent / 100, 1.0), 1500, 0
    for _ in range(trials):
        found = percentile(rng.lognormal(0, 1.0, n), percent)
        assert found.low is not None and found.high is not None
        hits += found.low <= truth <= found.high
    assert hits / trials > 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials)
    assert hits < trials  # an interval that is always right would be too wide


def test_coefficient_of_variation() -> None:
    samples = [1.0, 2.0, 3.0, 10.0]
    assert coefficient_of_variation(samples) == pytest.approx(stats.variation(samples, ddof=1))
    assert coefficient_of_variation([3.0, 3.0]) == 0
    assert coefficient_of_variation([1.0]) is None
    assert coefficient_of_variation([-1.0, 1.0]) is None


def _bootstrap_twin(blocks: list[np.ndarray], percent: float, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(1000):
        drawn = np.concatenate([blocks[i] for i in rng.integers(len(blocks), size=len(blocks))])
        values.append(np.percentile(drawn, percent, method="inverted_cdf"))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


@pytest.mark.parametrize("percent", [50, 90])
def test_bootstrap_is_that_of_blocks_glued_together(percent: float) -> None:
    rng = np.random.default_rng(3)
    blocks = [rng.exponential(size=rng.integers(5, 40)) for _ in range(12)]
    found = block_bootstrap(blocks, percent, seed=5)
    assert found == pytest.approx(_bootstrap_twin(blocks, percent, 5), rel=1e-12)
    assert found == block_bootstrap(blocks, percent, seed=5)
    assert found != block_bootstrap(blocks, percent, seed=6)


def test_bootstrap_on_the_grid_is_close() -> None:
    rng = np.random.default_rng(3)
    blocks = [rng.exponential(size=1000) for _ in range(20)]
    assert block_bootstrap(blocks, 50, seed=1) == pytest.approx(
        _bootstrap_twin(blocks, 50, 1), rel=2e-3
    )


def test_bootstrap_sees_what_order_statistics_cannot() -> None:
    """Each block is shifted by its own amount: the samples are worth 20, not 20 000."""
    rng = np.random.default_rng(11)
    hits = naive = 0
    for trial in range(40):
        blocks = [rng.normal(rng.normal(100, 5), 0.1, 200) for _ in range(20)]
        found = block_bootstrap(blocks, 50, seed=trial, resamples=200)
        assert found is not None
        hits += found[0] <= 100 <= found[1]
        plain = percentile(np.concatenate(blocks), 50)
        assert plain.low is not None and plain.high is not None
        naive += plain.low <= 100 <= plain.high
    assert hits >= 32
    assert naive < 20


def test_bootstrap_needs_two_blocks_and_the_floor() -> None:
    assert block_bootstrap([[1.0] * 50], 50, seed=0) is None
    assert block_bootstrap([[1.0], [2.0]], 50, seed=0) is None
    assert block_bootstrap([], 50, seed=0) is None


def test_ratio_is_scipys_paired_t() -> None:
    first, other = [10.0, 11.0, 10.5, 12.0, 10.2], [5.0, 5.7, 5.1, 6.2, 5.2]
    found = ratio_of_medians(first, other)
    expected = stats.ttest_rel(np.log(first), np.log(other)).confidence_interval(0.95)
    assert found.low == pytest.approx(math.exp(expected.low), rel=1e-9)
    assert found.high == pytest.approx(math.exp(expected.high), rel=1e-9)
    assert found.value == pytest.approx(stats.gmean(np.array(first) / np.array(other)), rel=1e-12)
    assert found.claim == "faster"
    assert ratio_of_medians(other, first).claim == "slower"
    json.dumps(found.to_dict(), allow_nan=False)


def test_no_claim_across_1_nor_from_few_processes() -> None:
    assert ratio_of_medians([1.0, 2, 1, 2, 1], [2.0, 1, 2, 1, 1]).claim == "no difference shown"
    assert ratio_of_medians([9.0, 9.1, 9.2, 9], [1.0, 1, 1, 1]).claim == "too few processes"
    alone = ratio_of_medians([9.0], [1.0])
    assert (alone.value, alone.low, alone.claim) == (pytest.approx(9), None, "too few processes")


def test_false_claims_are_as_rare_as_promised() -> None:
    rng = np.random.default_rng(2)
    claims = 0
    for _ in range(2000):
        machine = rng.normal(0, 0.2, 5)  # what both have in common in a process
        first, other = np.exp(machine + rng.normal(0, 0.02, (2, 5)))
        claims += ratio_of_medians(first, other).claim != "no difference shown"
    assert 0.03 < claims / 2000 < 0.07


@pytest.mark.parametrize(
    ("first", "other"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([math.nan], [1.0])]
)
def test_ratio_refuses(first: list[float], other: list[float]) -> None:
    with pytest.raises(UsageError, match="E0262"):
        ratio_of_medians(first, other)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 64), (64, 64), (63, 64), (7, 10), (999, 1000)])
def test_proportion_is_scipys_wilson(k: int, n: int) -> None:
    found = proportion(k, n)
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert str(found) == f"{k}/{n}"
    assert found.to_dict()["share"] == k / n
