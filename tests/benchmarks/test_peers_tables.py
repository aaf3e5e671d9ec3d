"""What the comparison with other quantizers writes of its rows, and which rows it takes."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timing
from numpy.testing import assert_allclose
from results import Results
from tables import write_tables

from convexport.benchmarks.samples import Samples, Warmup

HOST = {"cpu": "a CPU", "cpus": 2, "ram_bytes": 1, "flags": []}
COMMON = {"net": "n", "images": 8, "date": "2026-01-01", "host": HOST, "status": "ok"}


def written(tmp_path: Path, *given: dict[str, Any]) -> list[str]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({**COMMON, **row}) + "\n" for row in given) + '{"cut')
    return write_tables(Results(path)).splitlines()


def test_the_calibration_table_has_ratios_within_rounds(tmp_path: Path) -> None:
    def row(tool: str, round_: int, seconds: float, **more: Any) -> dict[str, Any]:
        load = {"others": 0.2}
        facts = {"seconds": seconds, "peak_bytes": 2e9, "load": load, "versions": {"onnx": "1"}}
        return {"stage": "calibrate", "tool": tool, "round": round_, **facts, **more}

    lines = written(
        tmp_path,
        row("ort-minmax", 0, 4.0),
        row("ort-minmax", 1, 8.0),
        row("FP32 pass", 0, 2.0),
        row("FP32 pass", 1, 4.0),
        row("ort-entropy", 0, 0, status="out of memory", why="more than 18.0 GB | resident"),
    )
    assert "| n | 8 | FP32 pass | 3.0 (2.0–4.0) | 1 | 2,000 | 2 |" in lines
    assert "| n | 8 | ort-minmax | 6.0 (4.0–8.0) | 2.00 (2.00–2.00) | 2,000 | 2 |" in lines
    assert any("out of memory: more than 18.0 GB / resident" in line for line in lines)
    assert any(line.startswith("UNSTABLE: in 5 of 5 runs") for line in lines)
    assert "2026-01-01; a CPU, 2 cores; onnx 1." in lines


def test_the_latency_table_pools_samples_and_pairs_processes(tmp_path: Path) -> None:
    def row(tool: str, round_: int, milliseconds: float) -> dict[str, Any]:
        ns = np.full(20, milliseconds * 1e6, np.int64)
        warmup = Warmup(1.0, 2, 0.5, True)
        samples = Samples(ns, np.array([20]), np.array([0]), 1, warmup).to_dict()
        place = {"tool": tool, "runtime": "onnxruntime", "batch": 1, "threads": 1, "round": round_}
        roof = {"operations": 3_000_000_000, "int8_peak": 2e12}
        load = {"others": 0.01, "steal": 0.3 if milliseconds == 2 else 0.002}
        tries = 3 if milliseconds == 2 else 1
        facts = {"samples": samples, "file_sha256": "aa", "load": load, "tries": tries}
        return {"stage": "latency", **facts, **roof, **place}

    def error(sha256: str, snr: float) -> dict[str, Any]:
        said = {"snr_db": {"value": snr, "low": snr - 1, "high": snr + 1}}
        said |= {"median_db": said["snr_db"]}
        said |= {"top1": {"k": 9, "n": 10, "low": 0.5, "high": 1}}
        said |= {name: {"value": 0, "low": 0, "high": 0} for name in ("gain_db", "gain_pp")}
        place = {"tool": "nncf-onnx", "runtime": "onnxruntime", "against": "nncf-onnx"}
        return {"stage": "error", "file_sha256": sha256, "evaluated": 10, **place, **said}

    every = [row("FP32 file", index, 6.0) for index in range(5)]
    every += [row("nncf-onnx", index, value) for index, value in enumerate((2, 2, 3, 3, 3))]
    lines = written(tmp_path, *every, error("aa", 20.0), {**error("bb", 30.0), "evaluated": 11})
    (fast,) = (line for line in lines if "| 1 | 1 | nncf-onnx |" in line)
    cells = [cell.strip() for cell in fast.split("|")]
    assert cells[6:8] == ["3.00 (2.00–3.00)", "2.00–3.00"]
    assert cells[9:15] == ["20.0 (19.0–21.0)", "9/10", "50%", "100", "5", "2"]
    (doubt,) = (line for line in lines if line.startswith("UNSTABLE"))
    assert doubt.startswith("UNSTABLE: in 2 of 10 runs the hypervisor took more than 1%")
    assert any(line.startswith("10 of the processes are the calmest of up to 3") for line in lines)
    value, low, high = map(float, re.findall(r"[\d.]+", cells[8]))
    assert_allclose(value, math.exp(np.mean(np.log([3, 3, 2, 2, 2]))), atol=0.01)
    assert low < value < high


@pytest.mark.parametrize(
    ("steals", "status", "tries", "kept"),
    [
        ([0.005], "ok", 1, 0),
        ([0.2, 0.005], "ok", 2, 1),
        ([0.2, 0.05, 0.4], "ok", 3, 1),  # never calm: the calmest, and not the fastest
        ([0.2], "timed out", 1, 0),
    ],
)
def test_a_disturbed_process_is_measured_again(
    steals: list[float], status: str, tries: int, kept: int, tmp_path: Path
) -> None:
    class Machine:
        asked = 0

        def ask(self, request: dict[str, Any], *, foreign: bool) -> dict[str, Any]:
            self.asked += 1
            load = {"others": 0.0, "steal": steals[self.asked - 1]}
            return {"status": status, "milliseconds": 10 - self.asked, "load": load}

    class Net:
        def images(self, use: str, count: int) -> Any:
            return SimpleNamespace(path=tmp_path)

    machine, file = Machine(), tmp_path / "net.onnx"
    file.write_bytes(b"net")
    plan = timing.Plan(count=8, batches=[1], threads=[1], rounds=1, seconds=1, tries=3)
    wanted = {"runtime": "onnxruntime", "batch": 1, "threads": 1, "round": 0}
    row = timing._measure(machine, Net(), file, plan, wanted)  # type: ignore[arg-type]
    assert (row["status"], row["tries"], machine.asked) == (status, tries, len(steals))
    assert row["milliseconds"] == 9 - kept and row["load"]["steal"] == steals[kept]


def test_a_row_is_measured_again_only_where_it_failed(tmp_path: Path) -> None:
    results = Results(tmp_path / "rows.jsonl")
    key = {"stage": "calibrate", "net": "n", "images": 8, "tool": "t", "round": 0}
    for status, finished in (("failed", False), ("ok", True), ("out of memory", True)):
        results.add({**key, "status": status})
        assert (results.find(key) is not None) == finished
    assert len(results.rows("calibrate")) == 1
