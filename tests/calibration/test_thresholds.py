"""Thresholds against sorted values."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from convexport.calibration.histograms import channels_of, range_of
from convexport.calibration.thresholds import CANDIDATES, Method, percentile_of, threshold
from convexport.runtime.errors import UsageError

VALUES = arrays.arrays(
    np.float32, st.integers(1, 300), elements=st.floats(-1e6, 1e6, width=32, allow_nan=False)
)


@given(VALUES, st.floats(50.1, 100))
def test_a_percentile_covers_that_share_and_little_more(values: np.ndarray, p: float) -> None:
    covered = percentile_of(range_of(values), p)
    magnitudes = np.sort(np.abs(values.astype(np.float64)))
    wanted = magnitudes[int(np.ceil(len(values) * p / 100)) - 1]
    assert covered >= wanted
    # Half a unit in the last place of bfloat16's smallest normal keeps tiny values apart.
    assert covered <= max(wanted * (1 + 1 / 127), wanted + 2e-38)


def test_minmax_is_the_largest_magnitude() -> None:
    found = threshold(range_of(np.array([-3, 1], dtype=np.float32)), Method(name="minmax"))
    assert (found.value, found.low, found.high) == (3, 3, 1)


def test_a_percentile_leaves_an_outlier_out() -> None:
    values = np.append(np.linspace(0, 1, 9999, dtype=np.float32), np.float32(1000))
    found = threshold(range_of(values), Method(name="percentile", percentile=99.9))
    assert 0.99 < found.value < 1.01
    assert found.low == 0


def test_a_tensor_of_zeros_gets_a_threshold_that_can_be_divided_by() -> None:
    zeros = range_of(np.zeros(8, dtype=np.float32))
    for method in CANDIDATES:
        assert threshold(zeros, method).value == 1


@pytest.mark.parametrize("percentile", [0, 50, -1, 100.1, float("nan"), float("inf")])
def test_a_senseless_percentile_is_refused(percentile: float) -> None:
    with pytest.raises(UsageError, match="E0251"):
        Method(percentile=percentile)


def test_an_unknown_method_is_answered_with_the_closest() -> None:
    with pytest.raises(UsageError, match="did you mean percentile"):
        Method(name="percentil")


def drawn(kind: str) -> np.ndarray:
    rng = np.random.default_rng(7)
    values = {
        "normal": rng.normal(size=100_000),
        "relu": np.maximum(rng.normal(size=100_000), 0),
        "laplace": rng.laplace(size=100_000),
        "heavy tails": rng.standard_t(3, size=100_000),
        "log-normal": rng.lognormal(size=100_000),
        "uniform": rng.uniform(-1, 1, size=100_000),
        "one value": np.full(1000, -3.0),
    }
    return values[kind].astype(np.float32)


KINDS = ("normal", "relu", "laplace", "heavy tails", "log-normal", "uniform", "one value")


def rounded(values: np.ndarray, low: float, high: float, dtype: str) -> np.ndarray:
    """What a runtime makes of values by the formulas of QuantizeLinear and DequantizeLinear."""
    step, zero, first, last = max(low, high) / 127, 0, -128, 127
    if dtype == "uint8":
        step, first, last = (low + high) / 255, 0, 255
        zero = round(low / step)
    return np.asarray((np.clip(np.rint(values / step) + zero, first, last) - zero) * step)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_mse_loses_little_more_than_the_best_threshold_of_a_search(kind: str, dtype: str) -> None:
    values = drawn(kind).astype(np.float64)
    below, above = max(0.0, -values.min()), max(0.0, values.max())

    def lost(threshold: float) -> float:
        low, high = min(threshold, below), min(threshold, above)
        return float(((rounded(values, low, high, dtype) - values) ** 2).mean())

    chosen = threshold(range_of(drawn(kind)), Method(name="mse"), dtype).value
    best = min(lost(max(below, above) * 0.99**step) for step in range(300))
    assert chosen <= max(below, above)
    # The few values of the last bins are taken to be spread evenly in them.
    assert lost(chosen) <= 1.02 * best + 1e-12


def divergence(counts: np.ndarray, size: int) -> float:
    """Migacz's figure, level by level: the histogram cut at ``size``, against 128 levels of it."""
    wanted = counts[:size].astype(float)
    wanted[-1] += counts[size:].sum()
    given = np.zeros(size)
    for level in range(128):
        inside = [index for index in range(size) if index * 128 // size == level]
        held = [index for index in inside if counts[index] > 0]
        for index in held:
            given[index] = counts[inside].sum() / len(held)
    wanted, given = wanted / wanted.sum(), given / given.sum()
    return float(
        sum(p * np.log(p / max(q, 1e-12)) for p, q in zip(wanted, given, strict=True) if p > 0)
    )


@pytest.mark.parametrize("kind", ["normal", "laplace", "heavy tails", "uniform"])
def test_entropy_is_nearly_that_of_a_histogram_of_equal_bins(kind: str) -> None:
    values = drawn(kind)
    magnitudes = np.abs(values[values != 0])
    counts, grid = np.histogram(magnitudes, 2048, (0, magnitudes.max()))
    chosen = threshold(range_of(values), Method(name="entropy")).value
    best = min(divergence(counts, size) for size in range(128, 2049, 64))
    nearest = int(np.clip(np.searchsorted(grid, chosen), 128, 2048))
    # Ours comes from bins of growing width: of noise in single bins it sees less.
    assert divergence(counts, nearest) <= best + 0.01


@pytest.mark.parametrize("method", CANDIDATES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_threshold_covers_what_there_is_and_no_more(kind: str, method: Method) -> None:
    values = drawn(kind)
    found = threshold(range_of(values), method)
    assert 0 < found.value <= np.abs(values).max()
    assert 0 <= found.low <= max(0, -values.min()) and 0 <= found.high <= max(0, values.max())
    assert max(found.low, found.high) == pytest.approx(found.value, rel=1e-6)


def test_what_swish_gives_is_covered_on_both_sides() -> None:
    x = np.linspace(-8, 8, 10_000, dtype=np.float32)
    found = threshold(range_of(x / (1 + np.exp(-x))), Method(name="minmax"))
    assert found.low == pytest.approx(0.2785, abs=1e-3)
    assert found.high == pytest.approx(8, abs=0.01)


@pytest.mark.parametrize("method", CANDIDATES, ids=str)
def test_a_largest_value_that_was_not_counted_adds_no_others(method: Method) -> None:
    """Counts are of a grid, bounds of everything: between the two nothing was seen."""
    values = np.abs(np.random.default_rng(3).normal(size=(1, 1, 200, 200))).astype(np.float32)
    bounds = channels_of(values)
    outlier = replace(bounds, maximum=bounds.maximum * np.float32(40))
    plain = threshold(range_of(values, channels=bounds), method)
    found = threshold(range_of(values, channels=outlier), method)
    if method.name == "minmax":
        assert found.value == pytest.approx(40 * plain.value)
    else:
        assert found.value == pytest.approx(plain.value, rel=0.1)


def test_auto_is_no_method_of_ranges() -> None:
    with pytest.raises(ValueError, match="measurement"):
        threshold(range_of(np.ones(1, np.float32)), Method(name="auto"))
