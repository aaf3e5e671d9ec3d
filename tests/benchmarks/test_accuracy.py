from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import optimize, stats

from convexport.benchmarks.accuracy import mcnemar_exact, paired_accuracy, tango_interval
from convexport.runtime.errors import InputError, UsageError


def _one_hot(picks: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[picks]


def _case(a: int, b: int, c: int, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of two nets with a images right in both, b in the first, c in the second."""
    n = a + b + c + d
    labels = np.arange(n) % 10
    wrong = (labels + 1) % 10
    first = np.where(np.arange(n) < a + b, labels, wrong)
    second = np.where(first == labels, labels, wrong)
    second[a : a + b + c] = np.r_[wrong[a : a + b], labels[a + b : a + b + c]]
    order = np.random.default_rng(0).permutation(n)
    return _one_hot(first, 10)[order], _one_hot(second, 10)[order], labels[order]


def test_counts_and_drop() -> None:
    found = paired_accuracy(*_case(880, 20, 8, 92))
    assert (str(found.reference), str(found.actual)) == ("900/1000", "888/1000")
    assert (found.only_reference, found.only_actual) == (20, 8)
    assert found.drop_pp == pytest.approx(1.2)
    assert found.low_pp < 1.2 < found.high_pp
    assert not found.non_inferior
    assert found.hint == ""
    json.dumps(found.to_dict(), allow_nan=False)


def test_non_inferior_is_a_matter_of_the_upper_bound() -> None:
    few = paired_accuracy(*_case(180, 1, 1, 18))
    assert few.drop_pp == 0 and few.high_pp > 1 and not few.non_inferior
    many = paired_accuracy(*_case(9000, 50, 50, 900))
    assert many.non_inferior and many.high_pp < 1
    assert not paired_accuracy(*_case(9000, 50, 50, 900), margin_pp=0.1).non_inferior


def test_published_example() -> None:
    """Airway hyper-responsiveness before and after transplantation, n = 21, b = 1, c = 7.

    Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33, 2850-2875, give for Tango's
    interval -0.517 to -0.026.
    """
    assert tango_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_half_widths_at_three_percent_discordant() -> None:
    """Of the normal approximation, in percentage points; the score interval is a little wider."""
    for n, expected in ((1000, 1.07), (5000, 0.48), (10_000, 0.34), (50_000, 0.15)):
        low, high = tango_interval(round(0.015 * n), round(0.015 * n), n)
        assert 50 * (high - low) == pytest.approx(expected, rel=0.08)


def _score_twin(difference: float, b: int, c: int, n: int) -> float:
    """The score statistic with its constrained maximum found by search, not by algebra."""

    def loss(q: float) -> float:
        p, rest = q + difference, 1 - 2 * q - difference
        terms = ((b, p), (c, q), (n - b - c, rest))
        if any(k and x <= 0 for k, x in terms):
            return math.inf
        return -sum(k * math.log(x) for k, x in terms if k)

    low, high = max(0.0, -difference), (1 - difference) / 2
    search = {"bounds": (low, high), "method": "bounded", "options": {"xatol": 1e-13}}
    q = float(optimize.minimize_scalar(loss, **search).x)
    return (b - c - n * difference) / math.sqrt(n * (2 * q + difference * (1 - difference)))


@pytest.mark.parametrize(
    ("b", "c", "n"), [(1, 7, 21), (12, 2, 50), (3, 5, 100), (30, 20, 1000), (86, 150, 1600)]
)
def test_ends_are_where_the_score_test_turns(b: int, c: int, n: int) -> None:
    low, high = tango_interval(b, c, n)
    z = stats.norm.ppf(0.975)
    assert _score_twin(low, b, c, n) == pytest.approx(z, abs=1e-4)
    assert _score_twin(high, b, c, n) == pytest.approx(-z, abs=1e-4)


def test_no_discordant_image_still_leaves_doubt() -> None:
    low, high = tango_interval(0, 0, 100)
    z2 = stats.norm.ppf(0.975) ** 2
    assert high == pytest.approx(z2 / (100 + z2), rel=1e-6)
    assert low == pytest.approx(-high)


@pytest.mark.parametrize(("b", "c", "n"), [(5, 5, 5 + 5), (9, 0, 9), (0, 9, 9), (1, 0, 1)])
def test_ends_stay_within_one(b: int, c: int, n: int) -> None:
    low, high = tango_interval(b, c, n)
    assert -1 <= low <= (b - c) / n <= high <= 1
    assert tango_interval(c, b, n) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize(
    ("n", "p_b", "p_c"), [(100, 0.02, 0.02), (300, 0.02, 0.005), (1000, 0.01, 0.01)]
)
def test_interval_covers_with_few_discordant_images(n: int, p_b: float, p_c: float) -> None:
    rng = np.random.default_rng(4)
    draws = rng.multinomial(n, (p_b, p_c, 1 - p_b - p_c), 3000)
    ends = {(b, c): tango_interval(b, c, n) for b, c in {(b, c) for b, c, _ in draws.tolist()}}
    hits = np.mean([ends[b, c][0] <= p_b - p_c <= ends[b, c][1] for b, c, _ in draws.tolist()])
    assert 0.935 < hits < 0.999


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 7), (20, 8), (5, 5), (0, 30), (300, 250)])
def test_p_value_is_scipys_binomial_test(b: int, c: int) -> None:
    expected = stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(expected, rel=1e-7)


def test_permuted_labels_are_noticed() -> None:
    reference, actual, labels = _case(880, 20, 8, 92)
    permuted = np.random.default_rng(1).permutation(labels)
    hint = paired_accuracy(reference, actual, permuted).hint
    assert "permuted" in hint and "1/10" in hint


def test_what_is_not_finite_is_wrong_and_stays_in_the_denominator() -> None:
    reference, actual, labels = _case(90, 0, 0, 10)
    right = int(np.flatnonzero(actual.argmax(axis=1) == labels)[0])
    actual[right, (labels[right] + 1) % 10] = math.nan
    found = paired_accuracy(reference, actual, labels)
    assert (str(found.actual), found.nonfinite, found.only_reference) == ("89/100", 1, 1)


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_that_are_no_classes(label: int) -> None:
    reference, actual, labels = _case(90, 0, 0, 10)
    labels[5] = label
    with pytest.raises(InputError, match="E0367 1/100 labels") as caught:
        paired_accuracy(reference, actual, labels)
    assert caught.value.exit_code == 3
    assert caught.value.where == f"first at image 5: label {label}"


def test_labels_that_are_no_whole_numbers() -> None:
    reference, actual, labels = _case(90, 0, 0, 10)
    with pytest.raises(InputError, match="E0367"):
        paired_accuracy(reference, actual, labels.astype(np.float32))


def test_shapes_that_do_not_belong_together() -> None:
    reference, actual, labels = _case(90, 0, 0, 10)
    for arrays in (
        (reference[:-1], actual, labels),
        (reference, actual, labels[:-1]),
        (reference, actual[:, :9], labels),
        (reference[:0], actual[:0], labels[:0]),
        (reference[0], actual[0], labels),
    ):
        with pytest.raises(InputError, match="E0366"):
            paired_accuracy(*arrays)


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan, math.inf])
def test_margins_that_make_no_sense(margin: float) -> None:
    with pytest.raises(UsageError, match="E0266"):
        paired_accuracy(*_case(90, 0, 0, 10), margin_pp=margin)
