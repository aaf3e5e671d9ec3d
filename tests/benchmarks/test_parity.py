from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cosine

from convexport.benchmarks.parity import compare, require_parity
from convexport.runtime.errors import GateError, InputError, UsageError


def _logits(n: int = 64, classes: int = 10, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (n, classes)).astype(np.float32)


def test_equal_logits_are_at_no_distance() -> None:
    logits = _logits()
    parity = compare(logits, logits.copy())
    assert (parity.max_abs, parity.mean_abs, parity.max_rel, parity.outside) == (0, 0, 0, 0)
    assert parity.cosine == 1
    assert parity.sqnr_db is None
    assert str(parity.top1) == str(parity.top5) == "64/64"
    require_parity(parity, "export", 0.0)


def test_distances_are_those_worked_out_one_by_one() -> None:
    reference = _logits()
    actual = reference + _logits(seed=1) * np.float32(0.05)
    parity = compare(reference, actual)
    pairs = [
        (float(r), float(a))
        for row, other in zip(reference, actual, strict=True)
        for r, a in zip(row, other, strict=True)
    ]
    largest = max(abs(a - r) for r, a in pairs)
    assert parity.max_abs == pytest.approx(largest)
    assert parity.mean_abs == pytest.approx(math.fsum(abs(a - r) for r, a in pairs) / len(pairs))
    assert parity.max_rel == pytest.approx(largest / max(abs(r) for r, _ in pairs))
    outside = [abs(a - r) > 1e-4 + 1e-3 * abs(r) for r, a in pairs]
    assert parity.outside == pytest.approx(sum(outside) / len(outside))
    rows = zip(reference.astype(float), actual.astype(float), strict=True)
    assert parity.cosine == pytest.approx(min(1 - cosine(r, a) for r, a in rows))
    ratio = sum(r * r for r, _ in pairs) / sum((a - r) ** 2 for r, a in pairs)
    assert parity.sqnr_db == pytest.approx(10 * math.log10(ratio))
    furthest = sorted(range(64), key=lambda i: -np.abs(actual - reference).max(axis=1)[i])
    assert list(parity.worst) == furthest[:12]


def test_agreement_is_counted_with_wilsons_interval() -> None:
    reference = np.eye(8, 6, dtype=np.float32) * 9 + np.linspace(0, 1, 6, dtype=np.float32)
    actual = reference.copy()
    actual[0] = [1, 9, 0, 0, 0, 0]  # another first, still among five
    actual[1] = [5, 0, 5, 5, 5, 5]  # not even among five
    parity = compare(reference, actual)
    assert parity.top5 is not None
    assert (str(parity.top1), str(parity.top5)) == ("6/8", "7/8")
    expected = stats.binomtest(6, 8).proportion_ci(method="wilson")
    assert parity.top1.low == pytest.approx(expected.low)
    assert parity.top1.high == pytest.approx(expected.high)


def test_fewer_than_five_classes_have_no_top5() -> None:
    assert compare(_logits(classes=4), _logits(classes=4)).top5 is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_finite_fails_and_is_counted(value: float, side: int) -> None:
    sides = [_logits(), _logits()]
    sides[side][7, :2] = value
    parity = compare(*sides)
    counts = (parity.nonfinite_reference, parity.nonfinite_actual)
    assert counts == ((2, 0), (0, 2))[side]
    assert parity.max_rel is None and parity.cosine is None
    assert parity.outside == pytest.approx(2 / 640)
    assert str(parity.top1) == "63/64"  # the denominator keeps the image
    assert parity.worst[0] == 7
    json.dumps(parity.to_dict(), allow_nan=False)
    with pytest.raises(GateError, match=r"E0562 int8: .*not finite"):
        require_parity(parity, "int8", 1e9)


def test_infinite_on_both_sides_fails_too() -> None:
    logits = _logits()
    logits[3, 3] = math.inf
    parity = compare(logits, logits)
    assert parity.max_abs is None
    with pytest.raises(GateError, match="E0562"):
        require_parity(parity, "export")


def test_constants_fail_however_wide_the_limit() -> None:
    reference = _logits()
    constant = np.tile(reference.mean(axis=0), (64, 1))
    for sides in ((reference, constant), (constant, reference), (constant, constant)):
        with pytest.raises(GateError, match="E0563 fp16"):
            require_parity(compare(*sides), "fp16", 1e9)
    with pytest.raises(GateError, match="E0561"):
        require_parity(compare(reference[:1], constant[:1]), "fp16")
    zero = np.zeros((1, 10), dtype=np.float32)
    with pytest.raises(GateError, match=r"E0561.*not a number"):
        require_parity(compare(zero, reference[:1]), "fp16")
    assert compare(zero, reference[:1]).cosine == 0


def test_the_gate_is_at_its_limit() -> None:
    reference = np.array([[8.0, 0, 1], [1, 2, 3]], dtype=np.float32)
    actual = reference.copy()
    actual[1, 0] += 0.5
    parity = compare(reference, actual)
    assert parity.max_rel == 0.0625
    require_parity(parity, "simplify", 0.0625)
    with pytest.raises(GateError) as caught:
        require_parity(parity, "simplify", 0.0624)
    error = caught.value
    assert (error.code, error.exit_code) == ("E0561", 5)
    assert "simplify" in error.what and "0.0625" in error.what and "0.0624" in error.what
    assert error.where.startswith("worst images 1, 0 of 2; max |d| 0.5")


@pytest.mark.parametrize("limit", [-1.0, math.nan, math.inf])
def test_limits_that_make_no_sense(limit: float) -> None:
    with pytest.raises(UsageError, match="E0265"):
        require_parity(compare(_logits(), _logits()), "export", limit)


@pytest.mark.parametrize(
    "reference", [np.zeros(3), np.zeros((0, 3)), np.zeros((3, 0)), np.array([["a"]])]
)
def test_references_that_are_none(reference: np.ndarray) -> None:
    with pytest.raises(InputError, match="E0365"):
        compare(reference, reference)


@pytest.mark.parametrize("actual", [_logits(classes=9), _logits(n=63), _logits().ravel()])
def test_other_shapes_fail(actual: np.ndarray) -> None:
    with pytest.raises(GateError, match="E0560"):
        compare(_logits(), actual)


def test_half_precision_overflow_is_not_hidden() -> None:
    reference = _logits() * 1e5
    with np.errstate(over="ignore"):
        actual = reference.astype(np.float16)
    assert compare(reference, actual).nonfinite_actual > 0
