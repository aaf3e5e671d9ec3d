"""Ranges against brute force over all values at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from convexport.calibration.collect import BINS, collect, range_of, upper_edge
from convexport.runtime.errors import InputError
from convexport.runtime.specs import TensorSpec

FINITE = arrays.arrays(
    np.float32,
    st.integers(1, 200),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


class Doubler:
    """A runner whose one output is twice its input."""

    inputs = (TensorSpec("x", ("batch", 3)),)
    outputs = (TensorSpec("y", ("batch", 3)),)

    def run(self, feed):
        return {"y": feed["x"] * np.float32(2)}


def test_every_batch_counts_once() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(n, 3)).astype(np.float32) for n in (4, 4, 1)]
    told: list[int] = []
    ranges = collect(Doubler(), batches, ["x", "y"], progress=told.append)
    everything = np.concatenate(batches)
    assert ranges["x"].minimum == everything.min()
    assert ranges["y"].maximum == 2 * everything.max()
    assert ranges["y"].counts.sum() == everything.size
    assert told == [4, 4, 1]


@settings(deadline=None)
@given(FINITE)
def test_each_value_lies_in_its_bin(values: np.ndarray) -> None:
    seen = range_of(values)
    (bins,) = np.nonzero(seen.counts)
    for index in bins:
        low = upper_edge(index - 1) if index else 0.0
        inside = (np.abs(values) >= low) & (np.abs(values) < upper_edge(index))
        assert inside.sum() == seen.counts[index]
    assert seen.counts.shape == (BINS,)


@settings(deadline=None)
@given(FINITE, FINITE)
def test_merging_is_seeing_both(first: np.ndarray, second: np.ndarray) -> None:
    merged = range_of(first).merge(range_of(second))
    whole = range_of(np.concatenate([first, second]))
    assert (merged.minimum, merged.maximum) == (whole.minimum, whole.maximum)
    assert np.array_equal(merged.counts, whole.counts)


def test_bins_are_narrow() -> None:
    magnitudes = np.logspace(-30, 30, 1000, dtype=np.float32)
    for value in magnitudes:
        (index,) = np.nonzero(range_of(np.array([value])).counts)[0]
        assert upper_edge(int(index)) / upper_edge(int(index) - 1) <= 1 + 1 / 127


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="E0350") as caught:
        range_of(np.array([0, bad, 1], dtype=np.float32), "layer1/Conv")
    assert caught.value.where == "layer1/Conv"


def test_no_images_are_no_calibration() -> None:
    with pytest.raises(InputError, match="E0351"):
        collect(Doubler(), [], ["x"])
