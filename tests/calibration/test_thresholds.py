"""Thresholds against sorted values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from convexport.calibration.collect import range_of
from convexport.calibration.thresholds import Method, percentile_of, thresholds
from convexport.runtime.errors import UsageError

VALUES = arrays.arrays(
    np.float32, st.integers(1, 300), elements=st.floats(-1e6, 1e6, width=32, allow_nan=False)
)


@settings(deadline=None)
@given(VALUES, st.floats(50.1, 100))
def test_a_percentile_covers_that_share_and_little_more(values: np.ndarray, p: float) -> None:
    covered = percentile_of(range_of(values), p)
    magnitudes = np.sort(np.abs(values.astype(np.float64)))
    wanted = magnitudes[int(np.ceil(len(values) * p / 100)) - 1]
    assert covered >= wanted
    # Half a unit in the last place of bfloat16's smallest normal keeps tiny values apart.
    assert covered <= max(wanted * (1 + 1 / 127), wanted + 2e-38)


def test_minmax_is_the_largest_magnitude() -> None:
    seen = {"a": range_of(np.array([-3, 1], dtype=np.float32))}
    threshold = thresholds(seen, Method(name="minmax"))["a"]
    assert threshold.value == 3
    assert threshold.signed


def test_a_percentile_leaves_an_outlier_out() -> None:
    values = np.append(np.linspace(0, 1, 9999, dtype=np.float32), np.float32(1000))
    threshold = thresholds({"a": range_of(values)}, Method(percentile=99.9))["a"]
    assert 0.99 < threshold.value < 1.01
    assert not threshold.signed


def test_a_tensor_of_zeros_gets_a_threshold_that_can_be_divided_by() -> None:
    zeros = {"dead": range_of(np.zeros(8, dtype=np.float32))}
    for method in (Method(name="minmax"), Method()):
        assert thresholds(zeros, method)["dead"].value == 1


@pytest.mark.parametrize("percentile", [0, 50, -1, 100.1, float("nan"), float("inf")])
def test_a_senseless_percentile_is_refused(percentile: float) -> None:
    with pytest.raises(UsageError, match="E0251"):
        Method(percentile=percentile)


def test_an_unknown_method_is_answered_with_the_closest() -> None:
    with pytest.raises(UsageError, match="did you mean percentile"):
        Method(name="percentil")
