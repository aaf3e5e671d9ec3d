"""Ranges against brute force over all values at once."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from convexport.calibration.checkpoint import Checkpoint
from convexport.calibration.collect import collect
from convexport.calibration.histograms import Channels, edges, range_of
from convexport.calibration.observed import Outputs
from convexport.calibration.ranges_file import load_ranges, save_ranges
from convexport.runtime.errors import InputError
from convexport.runtime.specs import TensorSpec

FINITE = arrays.arrays(
    np.float32,
    st.integers(1, 200),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


def whole(*names: str) -> dict[str, Outputs]:
    return {name: Outputs(name) for name in names}


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
    ranges = collect(Doubler(), batches, whole("x", "y"), progress=told.append)
    everything = np.concatenate(batches)
    assert ranges["x"].minimum == everything.min()
    assert ranges["y"].maximum == 2 * everything.max()
    assert ranges["y"].counts.sum() == everything.size
    assert sum(told) == 9


@given(FINITE)
def test_each_value_lies_in_its_bin(values: np.ndarray) -> None:
    seen = range_of(values)
    edge = edges(len(seen.counts))
    (bins,) = np.nonzero(seen.counts)
    for index in bins:
        inside = (np.abs(values) >= edge[index]) & (np.abs(values) < edge[index + 1])
        assert inside.sum() == seen.counts[index]


@given(FINITE, FINITE)
def test_merging_is_seeing_both(first: np.ndarray, second: np.ndarray) -> None:
    merged = range_of(first).merge(range_of(second))
    whole = range_of(np.concatenate([first, second]))
    assert (merged.minimum, merged.maximum) == (whole.minimum, whole.maximum)
    assert np.array_equal(merged.counts, whole.counts)


def test_bins_are_narrow() -> None:
    magnitudes = np.logspace(-30, 30, 1000, dtype=np.float32)
    for value in magnitudes:
        bins = len(range_of(np.array([value])).counts)
        assert edges(bins)[-1] / edges(bins)[-2] <= 1 + 1 / 127


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="E0350") as caught:
        range_of(np.array([0, bad, 1], dtype=np.float32), "layer1/Conv")
    assert caught.value.where == "layer1/Conv"


def test_nan_is_seen_where_a_kernel_s_maximum_passed_it_over() -> None:
    bounds = Channels(np.zeros(1, np.float32), np.ones(1, np.float32), np.ones(1), 1)
    with pytest.raises(InputError, match="E0350"):
        range_of(np.array([[0, np.nan, 1]], dtype=np.float32), "relu", bounds)


def test_no_images_are_no_calibration() -> None:
    with pytest.raises(InputError, match="E0351"):
        collect(Doubler(), [], whole("x"))


class Net:
    """A runner whose one output has channels."""

    inputs = (TensorSpec("x", ("batch", 2, 9, 9)),)
    outputs = (TensorSpec("y", ("batch", 2, 9, 9)),)

    def run(self, feed):
        return {"y": np.tanh(feed["x"])}


def test_workers_do_not_change_what_is_seen() -> None:
    rng = np.random.default_rng(0)
    sizes = (3, 1, 3, 3, 2, *[1] * 20)
    batches = [rng.normal(size=(n, 2, 9, 9)).astype(np.float32) for n in sizes]
    told: list[int] = []
    one = collect(Net(), batches, whole("x", "y"))
    three = collect(Net(), iter(batches), whole("x", "y"), workers=3, progress=told.append)
    assert sum(told) == sum(sizes)
    for name, seen in one.items():
        assert (seen.minimum, seen.maximum) == (three[name].minimum, three[name].maximum)
        assert np.array_equal(seen.counts, three[name].counts)
        assert np.array_equal(seen.channels.total, three[name].channels.total)


def test_no_more_batches_are_held_than_workers_can_use() -> None:
    held: list[int] = []
    done: list[int] = []

    def batches():
        for index in range(60):
            held.append(index - sum(done))
            yield np.zeros((1, 2, 9, 9), np.float32)

    collect(Net(), batches(), whole("x"), workers=2, progress=done.append)
    assert sum(done) == 60 and max(held) <= 3 * 8


class Fixed(Net):
    """Insists on batches of four."""

    inputs = (TensorSpec("x", (4, 2, 9, 9)),)

    def run(self, feed):
        assert len(feed["x"]) == 4
        return super().run(feed)


def test_what_a_fixed_batch_is_filled_up_with_is_not_counted() -> None:
    rng = np.random.default_rng(6)
    batches = [rng.normal(size=(n, 2, 9, 9)).astype(np.float32) for n in (4, 1)]
    told: list[int] = []
    seen = collect(Fixed(), batches, whole("x", "y"), progress=told.append)
    for name, expected in collect(Net(), batches, whole("x", "y")).items():
        assert np.array_equal(seen[name].counts, expected.counts)
        assert np.array_equal(seen[name].channels.total, expected.channels.total)
    assert sum(told) == 5


def test_a_worker_that_fails_ends_it() -> None:
    good = np.zeros((1, 2, 9, 9), np.float32)
    with pytest.raises(InputError, match="E0350"):
        collect(Net(), [good, good * np.nan, good], whole("x"), workers=2)


def test_channels_are_those_of_the_second_axis() -> None:
    values = np.random.default_rng(1).normal(size=(4, 3, 5, 7)).astype(np.float32)
    seen = range_of(values).channels
    assert np.array_equal(seen.minimum, values.min(axis=(0, 2, 3)))
    assert np.array_equal(seen.maximum, values.max(axis=(0, 2, 3)))
    np.testing.assert_allclose(seen.mean, values.astype(np.float64).mean(axis=(0, 2, 3)), rtol=1e-5)


def test_ranges_come_back_from_a_file_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    ranges = {
        "flat": range_of(np.array([3, -1], np.float32)),
        "one": range_of(rng.normal(size=(2, 5)).astype(np.float32)),
        "two": range_of(np.zeros((1, 3, 4, 4), np.float32)),
    }
    save_ranges(tmp_path / "a.npz", ranges, 7)
    again, groups = load_ranges(tmp_path / "a.npz")
    assert groups == 7
    assert list(again) == list(ranges) and again["flat"].channels is None
    for name, seen in ranges.items():
        assert again[name].minimum == seen.minimum and again[name].maximum == seen.maximum
        assert np.array_equal(again[name].counts, seen.counts)
        if seen.channels is not None:
            for field in ("minimum", "maximum", "total"):
                assert np.array_equal(
                    getattr(again[name].channels, field), getattr(seen.channels, field)
                )
            assert again[name].channels.count == seen.channels.count
    save_ranges(tmp_path / "b.npz", again, 7)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


class Failing(Net):
    """Goes as far as it is let."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def run(self, feed):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().run(feed)


def test_an_interrupted_pass_goes_on_where_it_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    batches = [rng.normal(size=(2, 2, 9, 9)).astype(np.float32) for _ in range(30)]
    path, told = tmp_path / "pass.begun", list[int]()
    with pytest.raises(KeyboardInterrupt):
        collect(Failing(20), batches, whole("x", "y"), checkpoint=Checkpoint(path, seconds=0))
    assert path.is_file()
    rest = Failing(30 - 20)  # four groups of five were done
    again = Checkpoint(path, seconds=0)
    resumed = collect(rest, batches, whole("x", "y"), checkpoint=again, progress=told.append)
    assert rest.left == 0 and sum(told) == 60
    for name, seen in collect(Net(), batches, whole("x", "y")).items():
        assert (seen.minimum, seen.maximum) == (resumed[name].minimum, resumed[name].maximum)
        assert np.array_equal(seen.counts, resumed[name].counts)
        assert np.array_equal(seen.channels.total, resumed[name].channels.total)
    again.done()
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_other_tensors_or_with_a_flipped_bit_is_passed_over(tmp_path: Path) -> None:
    batches = [np.ones((1, 2, 9, 9), np.float32)] * 9
    path = tmp_path / "pass.begun"
    collect(Net(), batches, whole("x"), checkpoint=Checkpoint(path, seconds=0))
    found = collect(Net(), batches, whole("x", "y"), checkpoint=Checkpoint(path, seconds=99))
    assert found["y"].counts.sum() == found["x"].counts.sum() == 9 * 2 * 81
    whole_file = bytearray(path.read_bytes())
    for place in range(40, len(whole_file), 97):
        torn = whole_file.copy()
        torn[place] ^= 0xFF
        path.write_bytes(torn)
        ranges, groups = Checkpoint(path).read()  # never an error
        assert groups in (0, 1, 2) or ranges


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 torn"])
def test_a_checkpoint_that_is_none_is_passed_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert Checkpoint(tmp_path / "a").read() == ({}, 0)
