"""What holds for any input: numbers and texts are taken as they are, or refused in our words."""

from __future__ import annotations

import contextlib
import io
import json
import math
import tempfile
from functools import reduce
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from convexport.calibration.histograms import TensorRange, range_of
from convexport.calibration.ranges_file import load_ranges, save_ranges
from convexport.calibration.thresholds import Method, percentile_of, threshold
from convexport.exporter.commands import shape, share
from convexport.exporter.options import BuildOptions
from convexport.exporter.trt_request import sizes
from convexport.runtime.bundle import read_manifest
from convexport.runtime.errors import ConvexportError, InputError, UsageError
from convexport.runtime.files import json_bytes, read_json
from convexport.runtime.specs import Preprocess, TensorSpec

many = settings(max_examples=100, derandomize=True)
NUMBERS = st.one_of(st.integers(), st.floats(), st.just(10**400))
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FINITE = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6)),
    elements=st.floats(-(2.0**99), 2.0**99, width=32),
)
FIELDS = (
    *("schema_version", "name", "precision", "target", "runtime", "provider", "model", "input"),
    *("reference", "output", "preprocess", "weights", "files", "golden_tolerance", "output_kind"),
)


@many
@given(st.sampled_from(FIELDS), JSON)
def test_any_value_in_a_manifest_is_taken_or_refused(field: str, value: Any) -> None:
    spec = {"name": "x", "shape": ["batch", 1, 2, 2], "dtype": "float32"}
    digests = dict.fromkeys(("m", "sample/input.npy", "sample/expected.npy"), "0" * 64)
    manifest: dict[str, Any] = dict.fromkeys(("name", "target", "runtime", "provider"), "x")
    manifest |= {"schema_version": 1, "precision": "fp32", "model": "m", "reference": "m"}
    manifest |= {"input": spec, "output": spec, "files": digests, "weights": {"kind": "digits"}}
    grey = Preprocess((2, 2), (2, 2), channels="L", mean=(0.5,), std=(0.5,))
    manifest |= {"preprocess": grey.to_dict(), "golden_tolerance": 0.1, "output_kind": "logits"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "manifest.json")
        path.write_text(json.dumps(manifest))
        assert read_manifest(path.parent).classes == 2
        path.write_text(json.dumps({**manifest, field: value}))
        try:
            assert read_manifest(path.parent).data[field] == value
        except InputError as error:
            assert error.code in ("E0301", "E0302", "E0305")


@many
@given(JSON)
def test_json_comes_back(value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x")
        try:
            path.write_bytes(json_bytes(value))
        except ValueError:  # NaN and infinity have no place in it
            assert "NaN" in (text := json.dumps(value)) or "Infinity" in text or "e" in text
            return
        assert read_json(path) == value


@many
@given(st.dictionaries(st.sampled_from(["crop", "resize", "mean", "std", "exif"]), JSON))
def test_a_preprocess_is_refused_or_comes_back(changes: dict[str, Any]) -> None:
    data = {**Preprocess().to_dict(), **changes}
    try:
        spec = Preprocess.from_dict(data)
    except InputError as error:
        assert error.code == "E0301"
    else:
        assert Preprocess.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@many
@given(JSON)
def test_a_tensor_is_refused_or_comes_back(value: Any) -> None:
    try:
        spec = TensorSpec.from_dict({"name": "x", "dtype": "float32", "shape": value})
    except InputError as error:
        assert error.code == "E0301"
    else:
        assert list(spec.shape) == list(value)


@many
@given(
    st.sampled_from(["calib_images", "parity_images", "classes", "lock_timeout", "bench_seconds"]),
    st.one_of(st.integers(), st.floats()),
)
def test_a_number_makes_sense_or_is_refused(name: str, value: float) -> None:
    least = value >= 0 if name == "bench_seconds" else value > 0
    sensible = math.isfinite(value) and least
    try:
        options = BuildOptions(**{name: value})
    except UsageError as error:
        assert error.code == "E0281" and not sensible
    else:
        assert sensible and getattr(options, name) == value


@many
@given(st.floats())
def test_a_percentile_is_a_share_of_the_upper_half(value: float) -> None:
    try:
        assert Method(name="percentile", percentile=value).percentile == value
        assert 50 < value <= 100
    except UsageError:
        assert not 50 < value <= 100


@many
@given(st.sampled_from([shape, share, sizes]), st.text() | st.from_regex(r"[\d.:x%e-]*"))
def test_a_text_for_an_option_is_read_or_refused(read: Any, text: str) -> None:
    context = click.Context(click.Command("build"))
    with contextlib.suppress(click.BadParameter, ConvexportError):
        read(context, click.Option(["--x"]), text)


@many
@given(st.lists(FINITE, min_size=2, max_size=5), st.randoms())
def test_ranges_merge_in_any_order(parts: list[np.ndarray], noise: Any) -> None:
    seen = [range_of(part[:, :1]) for part in parts]
    shuffled = noise.sample(seen, len(seen))
    forth, back = reduce(TensorRange.merge, seen), reduce(TensorRange.merge, shuffled)
    assert (forth.minimum, forth.maximum) == (back.minimum, back.maximum)
    assert np.array_equal(forth.counts, back.counts)
    assert forth.channels is not None and back.channels is not None
    assert forth.channels.count == back.channels.count == sum(part[:, :1].size for part in parts)
    assert np.array_equal(forth.channels.minimum, back.channels.minimum)


@many
@given(FINITE, st.floats(50.1, 100), st.floats(50.1, 100))
def test_a_higher_percentile_covers_no_less(values: np.ndarray, one: float, other: float) -> None:
    low, high = (percentile_of(range_of(values), each) for each in sorted((one, other)))
    assert low <= high


@many
@given(FINITE, st.sampled_from(["minmax", "percentile", "entropy", "mse"]))
def test_a_threshold_lies_within_what_was_seen(values: np.ndarray, name: str) -> None:
    found = threshold(range_of(values), Method(name=name))
    assert found.value > 0 and np.isfinite(found.value)
    largest = max(float(np.abs(values).max()), float(np.finfo(np.float32).tiny))
    assert found.low <= found.value <= largest * (1 + 1 / 64) or found.value <= 1
    assert (found.low == 0) == (values.min() >= 0) or values.min() == 0


@many
@given(st.dictionaries(st.text(st.characters(codec="utf-8")), FINITE, min_size=1, max_size=3))
def test_ranges_come_back_from_a_file(parts: dict[str, np.ndarray]) -> None:
    seen, file = {name: range_of(part) for name, part in parts.items()}, io.BytesIO()
    save_ranges(file, seen, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x")
        path.write_bytes(file.getvalue())
        found, groups = load_ranges(path)
    assert groups == 3 and list(found) == list(seen)
    for name, one in seen.items():
        assert (found[name].minimum, found[name].maximum) == (one.minimum, one.maximum)
        assert np.array_equal(found[name].counts, one.counts)


@pytest.mark.parametrize("value", ["1e400", "nan", "9" * 5000, "²x1x1"])
def test_numbers_that_are_none_are_refused_on_the_command_line(invoke: Any, value: str) -> None:
    for option in ("--calib-images", "--input-shape", "--max-drop", "--bench-seconds"):
        done = invoke("build", "lenet5", "--weights", "digits", "--int8", option, value)
        assert done.failed_with(2), (option, value)
