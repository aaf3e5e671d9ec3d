from __future__ import annotations

import base64
import json
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convexport.benchmarks.samples import Samples, Warmup, pack, unpack
from convexport.runtime.errors import InputError


@settings(max_examples=50)
@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_packed_arrays_come_back(values: list[int]) -> None:
    assert unpack(pack(np.array(values, dtype=np.int64))).tolist() == values


def test_the_encoding_is_the_documented_one() -> None:
    data = zlib.decompress(base64.b64decode(pack(np.array([1, 258], dtype=np.int64))))
    assert data == bytes([1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    "text",
    ["", "%", base64.b64encode(b"junk").decode(), base64.b64encode(zlib.compress(b"123")).decode(),
     base64.b64encode(zlib.compress(b"12345678")[:-3]).decode(), None],
)  # fmt: skip
def test_junk_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="E0360"):
        unpack(text)


def _samples() -> Samples:
    ints = lambda *values: np.array(values, dtype=np.int64)  # noqa: E731
    return Samples(ints(5, 6, 7), ints(2, 1), ints(0, 100), 99, Warmup(0.5, 2, 0.25, True))


def test_samples_come_back_through_json() -> None:
    data = json.loads(json.dumps(_samples().to_dict(), allow_nan=False))
    again = Samples.from_dict(data)
    assert again.to_dict() == data
    assert [block.tolist() for block in again.blocks()] == [[5, 6], [7]]
    assert again.warmup == _samples().warmup


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_sizes", pack(np.array([2, 2], dtype=np.int64))),
        ("block_sizes", pack(np.array([3, 0], dtype=np.int64))),
        ("block_starts_ns", pack(np.array([0], dtype=np.int64))),
        ("first_ns", "soon"),
        ("warmup", {"seconds": 1}),
    ],
)
def test_samples_that_do_not_add_up_are_refused(key: str, value: object) -> None:
    with pytest.raises(InputError, match="E0360"):
        Samples.from_dict({**_samples().to_dict(), key: value})
