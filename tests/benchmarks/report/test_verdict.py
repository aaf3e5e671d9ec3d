"""The verdict: one word, and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convexport.benchmarks.accuracy import paired_accuracy
from convexport.benchmarks.report.verdict import judge


def verdict(report: Any, label: str = "two") -> tuple[str, str]:
    found = judge(report)["bundles"][label]
    return found["verdict"], " ".join(found["reasons"])


def test_faster_and_faithful_passes(make_report: Any) -> None:
    assert judge(make_report())["verdict"] == "PASS"


def test_slower_fails(make_report: Any) -> None:
    report = make_report(ms=(5.0, 10.0))
    assert verdict(report) == ("FAIL", "shown to be slower than one")
    assert judge(report)["verdict"] == "FAIL" and verdict(report, "one")[0] == "PASS"


def test_what_varies_is_unstable_whatever_it_says(make_report: Any) -> None:
    word, why = verdict(make_report(ms=(5.0, 10.0), spread=0.2))
    assert word == "UNSTABLE" and "vary" in why


def test_a_latency_of_another_file_is_none(make_report: Any) -> None:
    report = make_report()
    bundle = report["bundles"][1]
    bundle["model_sha256"] = bundle["verification"]["model_sha256"] = "f" * 64
    assert verdict(report) == ("NOT MEASURED", "no latency of this very file was measured")


def test_a_latency_without_parity_is_none(make_report: Any) -> None:
    report = make_report()
    for checked in ("not measured", {**report["bundles"][1]["verification"], "model_sha256": ""}):
        report["bundles"][1]["verification"] = checked
        assert verdict(report)[0] == "NOT MEASURED"


@pytest.mark.parametrize(
    ("precision", "parity", "why"),
    [
        ("fp32", {"max_rel": 1e-3}, "1.0e-03"),
        ("fp32", {"max_rel": None}, "unknown share"),
        ("int8", {"sqnr_db": 1.0}, "1.0 dB"),
        ("int8", {"nonfinite_actual": 3}, "not finite"),
    ],
)
def test_unfaithful_fails(
    make_report: Any, precision: str, parity: dict[str, Any], why: str
) -> None:
    report = make_report()
    bundle = report["bundles"][1]
    bundle["precision"] = precision
    bundle["verification"]["parity"] |= parity
    word, reasons = verdict(report)
    assert word == "FAIL" and why in reasons


@pytest.mark.parametrize(("wrong", "word"), [(0, "PASS"), (20, "FAIL")])
def test_accuracy_fails_only_where_a_loss_is_shown(make_report: Any, wrong: int, word: str) -> None:
    report = make_report()
    labels = np.arange(200) % 3
    right = np.eye(3)[labels]
    bad = right.copy()
    bad[:wrong] = np.eye(3)[(labels[:wrong] + 1) % 3]
    found = paired_accuracy(right, bad, labels).to_dict()
    for place in (report["bundles"][1], report["bundles"][1]["verification"]):
        place["accuracy"] = found
        assert verdict(report)[0] == word
        place["accuracy"] = "not measured"
