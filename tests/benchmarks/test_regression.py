"""The gate against slowing down: what it lets pass, what it stops, and what it does not compare."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from convexport.benchmarks.host import Load
from convexport.benchmarks.latency_result import BenchResult, evaluate
from convexport.benchmarks.meter import LatencyOptions
from convexport.benchmarks.recording import Memory, ModelRun, Recording, Run, Subject
from convexport.benchmarks.regression import (
    changes,
    read_baseline,
    require_comparable,
    require_limit,
    require_not_slower,
)
from convexport.benchmarks.samples import Samples, Warmup
from convexport.benchmarks.statistics import ratio_of_groups
from convexport.benchmarks.trace import Trace
from convexport.runtime.errors import GateError, InputError, UsageError

HOST: dict[str, Any] = {"cpu": "Xeon Q", "cpus": 2, "machine": "x86_64"}
OPTIONS = LatencyOptions(threads=2)


def _result(*medians_ms: float, **subject: Any) -> BenchResult:
    warmup = Warmup(seconds=2.0, windows=2, window_s=1.0, settled=True)
    runtime = subject.pop("runtime", "fake 1")
    one = np.ones(1, dtype=np.int64)

    def run(ms: float) -> Run:
        ns = np.full(400, int(ms * 1e6), dtype=np.int64)
        samples = Samples(ns, 400 * one, one, 1, warmup)
        return Run({"net": ModelRun(1.0, runtime, "CPUExecutionProvider", samples)}, 100.0)

    asked = Subject(
        label="net",
        model=Path("m.onnx"),
        provider="CPUExecutionProvider",
        input_name="x",
        input_shape=(3,),
        sha256="0" * 64,
        data=Path("images.npy"),
    )
    return evaluate(
        Recording(
            subjects=(replace(asked, **subject),),
            options=OPTIONS,
            runs=tuple(run(ms) for ms in medians_ms),
            memory={"net": Memory(1, 1)},
            load=Load(0.1, 0.5, 0.0, 0.0, 0),
            host=HOST,
        )
    )


BEFORE = _result(10, 10.1, 9.9, 10.05, 9.95)


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        ((10, 10.1, 9.9, 10.05, 9.95), "not slower"),
        ((8, 8.1, 7.9, 8, 8), "not slower"),
        ((10.4, 10.5, 10.3, 10.45, 10.35), "cannot tell"),  # 4 %, and yet perhaps more than 5 %
        ((8, 14, 9, 13, 12), "cannot tell"),
        ((12, 12.1, 11.9, 12, 12.05), "slower"),
        ((30,), "too few processes"),
    ],
)
def test_verdicts(now: tuple[float, ...], verdict: str) -> None:
    (found,) = changes(BEFORE, _result(*now), ["net"], 0.05)
    assert found.verdict == verdict
    if verdict != "slower":
        return require_not_slower([found])
    with pytest.raises(GateError, match="E0565") as caught:
        require_not_slower([found])
    assert "1.050 is allowed" in caught.value.where
    return None


def test_the_ratio_is_welchs() -> None:
    rng = np.random.default_rng(0)
    first, other = rng.uniform(9, 11, 5), rng.uniform(10, 13, 8)
    found = ratio_of_groups(first, other)
    told = stats.ttest_ind(np.log(other), np.log(first), equal_var=False)
    error = (np.log(other).mean() - np.log(first).mean()) / told.statistic
    half = stats.t.ppf(0.975, math.floor(told.df)) * error
    middle = np.log(other).mean() - np.log(first).mean()
    assert found == pytest.approx([math.exp(middle + sign * half) for sign in (0, -1, 1)])
    assert ratio_of_groups([2.0, 2.0], [4.0, 4.0]) == pytest.approx((2, 2, 2))
    assert ratio_of_groups([1.0], [1.0, 2.0]) is None
    with pytest.raises(UsageError, match="E0262"):
        ratio_of_groups([0.0, 1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("options", "host", "named"),
    [
        ({"threads": 1}, {}, "threads: 2 then, 1 now"),
        ({"batch": 8}, {}, "batch: 1 then, 8 now"),
        ({}, {"cpu": "Ampere"}, "cpu: Xeon Q then, Ampere now"),
        ({}, {"governor": "powersave"}, "governor: None then, powersave now"),
    ],
)
def test_other_conditions_do_not_compare(
    options: dict[str, Any], host: dict[str, Any], named: str
) -> None:
    require_comparable(BEFORE, ["net"], replace(OPTIONS, duration_s=3, seed=5), HOST)
    with pytest.raises(InputError, match="E0371") as caught:
        require_comparable(BEFORE, ["net"], replace(OPTIONS, **options), {**HOST, **host})
    assert caught.value.where == named


def test_what_was_fed_and_the_gpu_are_conditions() -> None:
    with pytest.raises(InputError, match=r"E0371.*") as caught:
        require_comparable(_result(10, 10, data=None), ["net"], OPTIONS, HOST)
    assert caught.value.where == "fed: seeded noise then, images now"
    with pytest.raises(InputError, match="E0371") as caught:
        require_comparable(BEFORE, ["net"], OPTIONS, {**HOST, "gpu": {"name": "H200"}})
    assert caught.value.where == "gpu: None then, {'name': 'H200'} now"


def test_another_runtime_or_label_does_not_compare_but_another_file_does() -> None:
    with pytest.raises(InputError, match=r"E0371.*net was measured"):
        changes(BEFORE, _result(10, 10, runtime="fake 2"), ["net"], 0.05)
    with pytest.raises(InputError, match=r"E0371.*has no other"):
        require_comparable(BEFORE, ["other"], OPTIONS, HOST)
    (found,) = changes(BEFORE, _result(10, 10, 10, sha256="1" * 64), ["net"], 0.05)
    assert not found.same_model and found.to_dict()["verdict"] == "not slower"


def test_a_saved_result_is_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "saved.json"
    latency = BEFORE.to_dict()
    latency["subjects"][0]["process_medians_ms"] = [1.0] * 5  # a forger's
    path.write_text(json.dumps({"latency": latency}))
    assert read_baseline(path).to_dict() == BEFORE.to_dict()
    for text, code in (("{}", "E0361"), ('{"latency": {}}', "E0361"), ("no", "E0302")):
        path.write_text(text)
        with pytest.raises(InputError, match=code):
            read_baseline(path)


def test_a_builds_own_report_is_a_baseline(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    shipped = {"label": "bundle", "precision": "int8", "runtime": "onnxruntime"}
    for digest, found in (("0", True), ("1", False)):
        bundle = {**shipped, "model_sha256": digest * 64}
        path.write_text(json.dumps({"bundles": [bundle], "latency": BEFORE.to_dict()}))
        labels = [row.label for row in read_baseline(path).subjects]
        assert labels == ["bundle" if found else "net"]  # no name for a file that was not timed
    path.write_text(json.dumps({"bundles": [shipped], "latency": "not measured"}))
    with pytest.raises(InputError, match="E0361"):
        read_baseline(path)


_PLACES: tuple[tuple[str | int, ...], ...] = (
    (), ("subjects", 0), ("options",), ("load",), ("host",), ("memory", "net"), ("runs", 0),
    ("runs", 0, "trace"), ("runs", 0, "models", "net"), ("runs", 0, "models", "net", "samples"),
    ("runs", 0, "models", "net", "samples", "warmup"),
)  # fmt: skip


@pytest.mark.parametrize("place", _PLACES)
def test_a_newer_version_may_add_members(tmp_path: Path, place: tuple[str | int, ...]) -> None:
    latency = BEFORE.to_dict()
    latency["recording"]["runs"][0]["trace"] = Trace(t_s=(0.0,)).to_dict()
    part: Any = latency["recording"]
    for step in place:
        part = part[step]
    part["added_by_a_newer_version"] = {"x": 1}
    (tmp_path / "saved.json").write_text(json.dumps({"latency": latency}))
    assert read_baseline(tmp_path / "saved.json").subjects == BEFORE.subjects


@pytest.mark.parametrize(
    ("part", "member", "value"),
    [
        ("load", "others", "x"),
        ("load", "load_1m", []),
        ("host", "cpus", "two"),
        ("runs", 0, None),
        ("subjects", 0, {"label": "net"}),
        ("memory", "net", 5),
    ],
)
def test_a_hostile_baseline_is_refused(
    tmp_path: Path, part: str, member: str | int, value: Any
) -> None:
    recording = BEFORE.to_dict()["recording"]
    recording["load"]["others"] = None
    recording[part][member] = value
    (tmp_path / "saved.json").write_text(json.dumps({"latency": {"recording": recording}}))
    with pytest.raises(InputError, match="E0361"):
        read_baseline(tmp_path / "saved.json")


def test_a_gate_that_could_not_fail_is_refused() -> None:
    for then, processes in ((_result(10), 5), (BEFORE, 1)):
        with pytest.raises(UsageError, match="E0271"):
            require_comparable(then, ["net"], replace(OPTIONS, processes=processes), HOST)


@pytest.mark.parametrize("limit", [-0.05, math.nan, math.inf])
def test_a_limit_that_nothing_or_everything_exceeds_is_none(limit: float) -> None:
    require_limit(0)
    with pytest.raises(UsageError, match="E0270"):
        require_limit(limit)
