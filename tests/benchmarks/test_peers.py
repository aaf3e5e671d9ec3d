"""The comparison with other quantizers, as far as it goes without them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from arrays import batches
from guard import Limits, ask
from numpy.testing import assert_allclose, assert_array_equal
from onnx import numpy_helper
from output_error import compare_outputs, decibels
from results import Results

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "peers" / "compare.py"
Compare = Callable[..., str]


@pytest.fixture(scope="module")
def compare(tmp_path_factory: pytest.TempPathFactory) -> Compare:
    """``compare.py`` on LeNet-5 with trained weights; gives what it said."""
    place = tmp_path_factory.mktemp("peers")

    def call(stage: str, *arguments: str) -> str:
        where = ("--results", str(place / "rows.jsonl"))
        if stage != "table":
            net = ("--net", "lenet5", "--weights", "digits")
            where += (*net, "--work", str(place), "--python", str(place / "none"))
        done = subprocess.run(
            [sys.executable, str(SCRIPT), stage, *where, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "XDG_CACHE_HOME": str(place / "cache"), "OMP_NUM_THREADS": "1"},
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    call.place = place  # type: ignore[attr-defined]
    return call


def rows(compare: Compare, stage: str) -> list[dict[str, Any]]:
    return Results(compare.place / "rows.jsonl").rows(stage)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_calibration_is_timed_beside_the_plain_pass_and_goes_on(compare: Compare) -> None:
    arguments = ("--images", "16", "--rounds", "2", "--tool", "nncf", "ort-minmax")
    compare("calibrate", *arguments)
    found = {(row["tool"], row["round"]): row for row in rows(compare, "calibrate")}
    for tool in ("FP32 pass", "convexport-percentile"):
        for round_ in (0, 1):
            row = found[tool, round_]
            assert row["status"] == "ok", row
            assert row["seconds"] >= sum(row["parts"].values()) * 0.99 > 0
            assert row["peak_bytes"] > 20e6
    for tool in ("nncf", "ort-minmax"):
        assert found[tool, 0]["status"] == "not installed"
        assert "README.md tells how" in found[tool, 0]["why"]
        assert (tool, 1) not in found
    again = compare("calibrate", *arguments)
    assert "convexport" not in again and "FP32 pass" not in again


@pytest.mark.slow
def test_the_error_is_that_of_the_file_it_names(compare: Compare, tmp_path: Path) -> None:
    compare("error", "--images", "16", "--evaluate", "40", "--tool", "nncf")
    found = {(row["tool"], row["runtime"]): row for row in rows(compare, "error")}
    mine = found["convexport-percentile", "onnxruntime"]
    eager = found["PyTorch", "torch"]
    assert eager["snr_db"]["value"] > 100 and eager["top1"]["k"] == 40
    home = compare.place / "lenet5-digits"  # type: ignore[attr-defined]
    images = np.load(home / "evaluation-40.npy")
    files = (home / "bundle/model.onnx", home / "int8/convexport-percentile-16/model.onnx")
    want, have = (
        onnxruntime.InferenceSession(file).run(None, {"input": images})[0] for file in files
    )
    expected = 10 * math.log10((want**2).sum() / ((have - want) ** 2).sum())
    assert mine["snr_db"]["value"] == pytest.approx(expected, abs=0.01)
    assert mine["snr_db"]["low"] < mine["snr_db"]["value"] < mine["snr_db"]["high"]
    assert mine["gain_db"]["value"] == 0 == mine["gain_pp"]["value"]
    assert mine["top1"]["k"] >= 38 and mine["top1"]["n"] == 40


@pytest.mark.slow
def test_convexports_file_is_that_of_a_build(compare: Compare) -> None:
    compare("error", "--images", "16", "--evaluate", "40", "--tool")
    place: Path = compare.place  # type: ignore[attr-defined]
    options = ("--weights", "digits", "--calib-images", "16", "--method", "percentile")
    command = (sys.executable, "-m", "convexport", "build", "lenet5", "--int8", *options)
    places = ("-o", str(place / "built"), "--cache-dir", str(place / "cache/convexport"))
    subprocess.run([*command, *places, "--bench-seconds", "0"], check=True, capture_output=True)
    mine, built = (
        {each.name: numpy_helper.to_array(each) for each in onnx.load(file).graph.initializer}
        for file in (
            place / "lenet5-digits/int8/convexport-percentile-16/model.onnx",
            place / "built/model.onnx",
        )
    )
    assert mine.keys() == built.keys() and len(mine) > 20
    for name in mine:
        # Images go through in other batches: sums are rounded in another order.
        step = 0 if mine[name].dtype.kind == "f" else 1
        near = {"rtol": 1e-5, "atol": step, "err_msg": name}
        assert_allclose(mine[name].astype(float), built[name].astype(float), **near)


@pytest.mark.slow
def test_latency_and_tables_through_the_command_line(compare: Compare, tmp_path: Path) -> None:
    short = ("--batch", "1", "--threads", "1", "--rounds", "2", "--seconds", "0.1")
    compare("latency", "--images", "16", *short, "--tool")
    found = rows(compare, "latency")
    for row in found:
        foreign = row["runtime"].startswith("openvino")
        assert row["status"] == ("not installed" if foreign else "ok"), row
    compare("table", "--table", str(tmp_path / "t.md"))
    table = (tmp_path / "t.md").read_text()
    assert "| lenet5 (digits) | 1 | 1 | convexport-percentile | onnxruntime |" in table
    assert "| lenet5 (digits) | 1 | 1 | PyTorch | torch.compile |" in table
    assert "not installed: no " in table


def test_the_bootstrap_is_that_of_scipy() -> None:
    from scipy.stats import bootstrap

    rng = np.random.default_rng(1)
    above, below = rng.gamma(3, size=200), rng.gamma(0.3, size=200)

    def ratio(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return 10 * np.log10(a.sum(axis=axis) / b.sum(axis=axis))

    interval = bootstrap(
        (above, below), ratio, paired=True, method="percentile", n_resamples=20_000, rng=rng
    ).confidence_interval
    mine = decibels(above, below)
    assert mine.value == pytest.approx(ratio(above, below))
    assert mine.low == pytest.approx(interval.low, abs=0.06)
    assert mine.high == pytest.approx(interval.high, abs=0.06)
    assert decibels(above, np.zeros(200)).value is None


def test_a_file_is_compared_with_fp32_and_with_the_first() -> None:
    rng = np.random.default_rng(2)
    reference = rng.normal(size=(300, 10))
    first, other = (reference + scale * rng.normal(size=(300, 10)) for scale in (0.4, 0.1))
    result = compare_outputs(reference, other, first)
    noise = [((each - reference) ** 2).sum() for each in (first, other)]
    assert result["gain_db"]["value"] == pytest.approx(10 * math.log10(noise[0] / noise[1]))
    apart = ((other - reference) ** 2).sum(axis=1)
    median = np.median(10 * np.log10((reference**2).sum(axis=1) / apart))
    assert result["median_db"]["value"] == pytest.approx(median, abs=0.1)
    assert result["median_db"]["low"] <= median <= result["median_db"]["high"]
    agree = [(each.argmax(1) == reference.argmax(1)).sum() for each in (first, other)]
    assert result["top1"]["k"] == agree[1]
    assert result["gain_pp"]["value"] == pytest.approx((agree[1] - agree[0]) / 3)
    assert result["gain_db"]["low"] > 0 and result["gain_pp"]["low"] > 0


def test_images_come_back_in_batches(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(7, 3, 4, 5)).astype(np.float32)
    np.save(tmp_path / "a.npy", images)
    parts = list(batches(tmp_path / "a.npy", 6, 4))
    assert [len(part) for part in parts] == [4, 2]
    assert_array_equal(np.concatenate(parts), images[:6])
    with pytest.raises(ValueError, match="holds 7"):
        next(batches(tmp_path / "a.npy", 8, 4))


def child(code: str, **limits: Any) -> dict[str, Any]:
    return ask([sys.executable, "-c", code], {}, Limits(**limits))


def test_a_child_that_takes_too_much_memory_or_time_is_ended() -> None:
    greedy = "import time; x = bytearray(400_000_000); time.sleep(60)"
    assert child(greedy, memory_bytes=200_000_000)["status"] == "out of memory"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {greedy!r}])"
    ended = child(nested, memory_bytes=200_000_000)
    assert ended["status"] == "out of memory" and ended["peak_bytes"] > 200e6
    assert child("import time; time.sleep(60)", seconds=0.5)["status"] == "timed out"
    assert child("raise SystemExit('no such luck')") | {"cpu_s": 0, "wall_s": 0} == {
        "status": "failed",
        "why": "exit code 1: no such luck",
        "peak_bytes": pytest.approx(10e6, rel=1),
        "cpu_s": 0,
        "wall_s": 0,
    }


def test_peak_memory_is_counted_with_descendants() -> None:
    inner = "x = bytearray(150_000_000); import time; time.sleep(1)"
    code = (
        "import json, subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {inner!r}])\n"
        "print(json.dumps({'status': 'ok'}))"
    )
    answer = child(code)
    assert answer["status"] == "ok" and 150e6 < answer["peak_bytes"] < 250e6
