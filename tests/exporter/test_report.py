"""``report`` from the command line: of what a build measured, of several bundles, and its check."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Refused = Callable[..., Any]


def test_a_build_writes_its_page(int8_bundle: Path) -> None:
    page = (int8_bundle / "report.html").read_text()
    assert "NOT MEASURED" in page and "lenet5" in page
    assert "convexport report lenet5 --measure" in page
    report = json.loads((int8_bundle / "report.json").read_text())
    (bundle,) = report["bundles"]
    model = (int8_bundle / "model.onnx").stat().st_size
    assert bundle["files"]["model.onnx"]["bytes"] == model
    assert bundle["calibration"]["layers"] and bundle["precisions"]["int8"] > 3


def test_a_report_of_a_bundle(invoke: Any, bundle: Path, home: Path) -> None:
    done = invoke("report", "bundle", "-o", "out")
    assert done.code == 0, done.err
    assert {path.name for path in (home / "out").iterdir()} == {
        "report.html",
        "report.json",
        "report.md",
    }
    assert "NOT MEASURED" in done.out and "lenet5" in (home / "out/report.md").read_text()
    again = invoke("report", "out/report.json", "-o", "more", "--markdown", "--json")
    assert again.json()["written"] == ["more/report.json", "more/report.md"]
    assert again.json()["report"] == json.loads((bundle / "report.json").read_text())


def test_a_report_of_two_bundles_nothing_measured(invoke: Any, bundle: Path, home: Path) -> None:
    shutil.copytree(bundle, home / "other")
    assert invoke("report", "bundle", "other", "-o", "out").code == 0
    page = (home / "out/report.html").read_text()
    assert "At a glance" in page and "convexport report bundle --measure" in page
    assert invoke("report", "verify", "out/report.json").code == 0


def test_verify_counts_and_finds(invoke: Any, bundle: Path, home: Path) -> None:
    done = invoke("report", "verify", "bundle")
    assert done.code == 0 and "as it was written" in done.out, done.err
    report = json.loads((bundle / "report.json").read_text())
    report["bundles"][0]["accuracy"]["actual"]["k"] -= 1
    (home / "bad.json").write_text(json.dumps(report))
    done = invoke("report", "verify", "bad.json", "--json")
    assert done.code == 3
    assert any("accuracy.drop_pp" in each for each in done.json()["differences"])


def test_what_makes_no_sense_is_refused(refused: Refused, bundle: Path, home: Path) -> None:
    (home / "old.json").write_text('{"schema_version": 1}')
    (home / "new.json").write_text('{"schema_version": "2.0", "convexport": "9.9"}')
    refused(3, "E0376", "report", "old.json")
    assert "convexport 9.9" in refused(3, "E0376", "report", "new.json").err
    assert "no report of that name" in refused(3, "E0395", "report", "nowhere.json").err
    refused(3, "E0304", "report", "bundle", "nowhere")
    refused(3, "E0395", "report", "verify", "nowhere")
    refused(2, "E0296", "report", "verify")
    refused(2, "E0296", "report", "verify", "bundle", "--measure")
    refused(2, "E0296", "report", "verify", "bundle", "--verify", "x.json")
    refused(2, "E0296", "report", "bundle", "--data", "digits")
    for option in (("--parts",), ("--scenario", "offline"), ("--batch", "2"), ("--soak", "1m")):
        assert option[0] in refused(2, "E0296", "report", "bundle", *option).err
    measured = ("report", "bundle", "--measure")
    refused(2, "E0296", *measured, "--data", "digits", "--verify", "x.json")
    refused(2, "E0284", *measured, "--qps", "3")
    refused(2, "E0267", "report", "bundle", "bundle")


def test_what_verify_printed_enters_a_report(invoke: Any, bundle: Path, home: Path) -> None:
    shutil.copytree(bundle, home / "other")
    printed = invoke("verify", "bundle", "--data", "digits", "--json")
    (home / "verify.json").write_text(printed.out)
    done = invoke("report", "bundle", "--verify", "verify.json", "-o", "out", "--json")
    assert done.code == 0, done.err
    (found,) = done.json()["report"]["bundles"]
    assert found["verification"] == printed.json()
    assert "labels on the same" in (home / "out/report.html").read_text()
    assert invoke("report", "verify", "out").code == 0
    (home / "verify.json").write_text("{}")
    assert invoke("report", "bundle", "--verify", "verify.json").failed_with(3, "E0375")


@pytest.mark.slow
def test_measured_now_side_by_side(invoke: Any, bundle: Path, home: Path) -> None:
    shutil.copytree(bundle, home / "other")
    done = invoke(
        "report",
        "bundle",
        "other",
        "--measure",
        "--data",
        "digits",
        "--seconds",
        "0.5",
        "--parts",
        "--batches",
        "1,2",
        "--batch",
        "2",
        "-o",
        "out",
    )
    assert done.code == 0, done.err
    report = json.loads((home / "out/report.json").read_text())
    labels = [each["label"] for each in report["latency"]["subjects"]]
    assert labels == ["fp32 reference", "bundle", "other"]
    assert report["verdict"]["verdict"] == "UNSTABLE"
    accuracy = report["bundles"][1]["verification"]["accuracy"]
    assert accuracy["reference"]["n"] > 400
    assert {*report["parts"], *report["batches"]} == {"bundle", "other"}
    assert report["latency"]["conditions"]["batch"] == 2
    assert all("thumbnail" in each for each in report["bundles"][1]["verification"]["worst"])
    peaks = [each["layers"]["peaks"] for each in report["bundles"]]
    assert peaks[0] == peaks[1], "the machine was measured twice"
    assert report["command"][:3] == ["convexport", "report", "bundle"]
    assert invoke("report", "verify", "out").code == 0

    (home / "bench.json").write_text(
        json.dumps(
            {
                "latency": report["latency"],
                "parity": {each["label"]: each["verification"] for each in report["bundles"]},
            }
        )
    )
    assert invoke("report", "other", "bundle", "--bench", "bench.json", "-o", "again").code == 0
    again = json.loads((home / "again/report.json").read_text())
    assert again["latency"] == report["latency"]
    shutil.copytree(bundle, home / "third")
    assert invoke("report", "third", "--bench", "bench.json").failed_with(3, "E0375")
