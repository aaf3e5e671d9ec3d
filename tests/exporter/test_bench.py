"""``bench`` from the command line: a run that is too short says so."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Refused = Callable[..., Any]

SHORT = ("--seconds", "0.5", "--processes", "2", "--threads", "1")


@pytest.mark.slow
def test_a_short_run_is_unstable_and_names_the_very_file(
    command: Any, bundle: Path, home: Path
) -> None:
    shutil.copy(bundle / "reference.onnx", home / "other.onnx")
    done = command("bench", "bundle", "--against", "other.onnx", *SHORT, "--json")
    assert done.code == 0, done.err
    latency = done.json()["latency"]
    assert latency["verdict"] == "UNSTABLE"
    assert any("0.5 s" in reason for reason in latency["reasons"])
    digest = hashlib.sha256((bundle / "model.onnx").read_bytes()).hexdigest()
    baseline, subject = latency["subjects"]
    assert (baseline["label"], subject["label"]) == ("other.onnx", "bundle")
    assert subject["sha256"] == done.json()["parity"]["bundle"]["model_sha256"] == digest
    assert done.json()["parity"]["bundle"]["parity"]["top1"]["n"] > 0
    assert subject["n"] > 0 and subject["percentiles_ms"]["p50"]["value"] > 0
    assert subject["speedup"]["value"] > 0 and baseline["speedup"] is None
    assert latency["conditions"]["processes"] == 2


@pytest.mark.slow
def test_a_person_reads_the_verdict_first(command: Any, bundle: Path) -> None:
    done = command("bench", "bundle", *SHORT)
    assert done.code == 0, done.err
    assert "UNSTABLE" in done.out and "fp32 reference" in done.out and "\x1b" not in done.out


def test_a_bundle_that_was_changed_is_not_measured(refused: Refused, bundle: Path) -> None:
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"x")
    refused(3, "E0306", "bench", "bundle", *SHORT)


def test_what_is_not_there_is_not_measured(refused: Refused, bundle: Path) -> None:
    refused(3, "E0304", "bench", "nowhere", *SHORT)
    refused(3, "E0", "bench", "bundle", "--against", "nowhere.onnx", *SHORT)
    refused(2, "E0267", "bench", "bundle", "bundle", *SHORT)


def test_a_baseline_with_another_input_is_refused(
    refused: Refused, bundle: Path, home: Path, small_onnx: Any
) -> None:
    (home / "other.onnx").write_bytes(small_onnx().SerializeToString())
    refused(3, "E0369", "bench", "bundle", "--against", "other.onnx", *SHORT)
