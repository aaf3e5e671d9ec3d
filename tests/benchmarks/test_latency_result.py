from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convexport.benchmarks.host import Load
from convexport.benchmarks.latency_result import evaluate
from convexport.benchmarks.meter import LatencyOptions
from convexport.benchmarks.recording import Memory, ModelRun, Recording, Run, Subject
from convexport.benchmarks.samples import Samples, Warmup
from convexport.benchmarks.trace import Trace
from convexport.runtime.errors import InputError

QUIET = Load(load_1m=0.1, own=0.5, others=0.01, steal=0.0, throttles=0)
SETTLED = Warmup(seconds=2.0, windows=2, window_s=1.0, settled=True)


def _model(
    rng: np.random.Generator, ms: float, *, spread: float, n: int, warmup: Warmup
) -> ModelRun:
    ns = (ms * 1e6 * rng.normal(1, spread, n)).astype(np.int64)
    sizes = np.full(10, n // 10, dtype=np.int64)
    starts = np.arange(10, dtype=np.int64) * 10**9
    return ModelRun(
        12.5, "fake 1.0", "CPUExecutionProvider", Samples(ns, sizes, starts, 10**8, warmup)
    )


def _recording(
    *,
    ms: tuple[tuple[float, ...], ...] = ((10.0,) * 5, (5.0,) * 5),
    spread: float = 0.02,
    n: int = 400,
    warmup: Warmup = SETTLED,
    **changes: Any,
) -> Recording:
    """One row of ``ms`` a subject, one entry a process."""
    rng = np.random.default_rng(0)
    labels = "abc"[: len(ms)]
    subjects = tuple(
        Subject(label=label, model=Path("/home/somebody/m.onnx"), provider="CPUExecutionProvider",
                input_name="x", input_shape=(3,), sha256="0" * 64)
        for label in labels
    )  # fmt: skip
    runs = tuple(
        Run({label: _model(rng, row[i], spread=spread, n=n, warmup=warmup)
             for label, row in zip(labels, ms, strict=True)}, 100.0)
        for i in range(len(ms[0]))
    )  # fmt: skip
    recording = Recording(
        subjects,
        LatencyOptions(threads=1, batch=4, processes=len(runs)),
        runs,
        {label: Memory(80 << 20, 50 << 20) for label in labels},
        QUIET,
        {"cpus": 2},
    )
    return replace(recording, **changes)


def test_a_quiet_machine_is_valid() -> None:
    result = evaluate(_recording())
    assert (result.verdict, result.reasons, result.notes) == ("VALID", (), ())
    first, second = result.subjects
    assert second.speedup is not None
    assert second.speedup.claim == "faster"
    assert second.speedup.value == pytest.approx(2, rel=0.01)
    assert second.throughput == pytest.approx(4 / 5e-3, rel=0.01)
    assert (first.n, first.load_ms, first.first_inference_ms) == (2000, 12.5, 100)
    assert first.cv == pytest.approx(0.02, rel=0.15)
    assert first.mean_ms == pytest.approx(10, rel=0.01)
    assert first.median_bootstrap_ms is not None
    assert first.median_bootstrap_ms[0] < 10.01 and first.median_bootstrap_ms[1] > 9.99
    assert (first.peak_rss_bytes, first.baseline_rss_bytes) == (80 << 20, 50 << 20)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"spread": 0.08}, "a: calls within a process vary by 8"),
        ({"ms": ((10.0, 11, 12, 13, 14),)}, "a: medians of processes vary by 13"),
        ({"warmup": replace(SETTLED, settled=False)}, "a: warm-up never settled in 5/5 processes"),
        ({"load": replace(QUIET, others=0.06)}, "other processes took 6.0% of the CPUs"),
        ({"load": replace(QUIET, steal=0.02)}, "the hypervisor took 2.0% of the CPUs"),
        ({"load": Load(2.5, None, None, None, 0)}, "load average of 2.5 on 2 CPUs"),
        ({"load": replace(QUIET, throttles=3)}, "throttled 3 times"),
        ({"host": {"cpus": 2, "power": "battery"}}, "the machine ran on its battery"),
        ({"options": LatencyOptions(duration_s=9)}, "measured for 9 s, less than 10 s"),
        ({"options": LatencyOptions(warmup_s=0.4)}, "warm-up of 0.4 s, less than 0.5 s"),
    ],
)
def test_each_doubt_alone_makes_it_unstable(changes: dict[str, Any], reason: str) -> None:
    result = evaluate(_recording(**{"ms": ((10.0,) * 5,), **changes}))
    assert result.verdict == "UNSTABLE"
    assert [text for text in result.reasons if reason in text], result.reasons
    assert len(result.reasons) == 1


def test_a_load_before_the_start_is_ours_as_likely_as_not() -> None:
    result = evaluate(_recording(load=replace(QUIET, load_1m=9.0)))
    assert (result.verdict, result.conditions["load"]["load_1m"]) == ("VALID", 9.0)


def test_a_gpu_that_nobody_watched_is_a_doubt() -> None:
    recording = _recording(ms=((10.0,) * 5,))
    (subject,) = recording.subjects
    recording = replace(
        recording, subjects=(replace(subject, provider="CUDA", data=Path("x.npy")),)
    )
    result = evaluate(recording)
    assert result.reasons == ("the GPU's clock was not watched",)
    assert result.conditions["fed"] == "images"
    trace = Trace(t_s=(0.0,), gpu_clock_mhz=(1980.0,))
    watched = tuple(replace(run, trace=trace) for run in recording.runs)
    assert evaluate(replace(recording, runs=watched)).reasons == ()


def test_what_a_reader_should_know() -> None:
    short = replace(SETTLED, window_s=0.05)
    warnings = replace(_recording(n=60, warmup=short).runs[0], warnings=("odd things",))
    recording = _recording(n=60, warmup=short, dropped_variables=("OMP_X",))
    recording = replace(
        recording, runs=(*recording.runs[1:], warnings), load=Load(None, None, None, None, 0)
    )
    notes = evaluate(recording).notes
    assert "a: p99 n too small: 300 of 368" in notes
    assert "warm-up windows of 0.05 s instead of 1 s: the run is short" in notes
    assert "environment variables left out: OMP_X" in notes
    assert "the load of other processes is unknown" in notes
    assert notes[-1] == "odd things"


def test_three_processes_claim_nothing() -> None:
    speedup = evaluate(_recording(ms=((10.0,) * 3, (5.0,) * 3))).subjects[1].speedup
    assert speedup is not None and speedup.low is not None
    assert (speedup.low > 1, speedup.claim) == (True, "too few processes")


def test_json_says_the_conditions_and_no_folder() -> None:
    text = json.dumps(evaluate(_recording()).to_dict(), allow_nan=False)
    data = json.loads(text)
    assert "/home/somebody" not in text
    assert data["conditions"]["loop"] == "closed, one stream"
    assert data["conditions"]["batch"] == 4
    assert data["conditions"]["floor_ns"] == 100
    assert data["subjects"][0]["percentiles_ms"]["p50"]["value"] == pytest.approx(10, rel=0.01)
    assert evaluate(Recording.from_dict(data["recording"])).to_dict() == data


@pytest.mark.parametrize(
    "change",
    [{"encoding": "?"}, {"runs": []}, {"memory": {}}, {"subjects": []}, {"options": [1]},
     {"options": {"batch": 0}}, {"load": None}],
)  # fmt: skip
def test_a_broken_recording_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="E0361"):
        Recording.from_dict({**_recording().to_dict(), **change})


def _watched(clock: tuple[float, ...]) -> Trace:
    return Trace(t_s=tuple(0.2 * i for i in range(len(clock))), clock_mhz=clock)


def test_a_falling_clock_makes_it_unstable_and_travels() -> None:
    recording = _recording()
    runs = tuple(replace(run, trace=_watched((3000.0,) * 10)) for run in recording.runs)
    assert evaluate(replace(recording, runs=runs)).verdict == "VALID"
    fallen = (*runs[1:], replace(runs[0], trace=_watched((3000.0,) * 5 + (2500.0,) * 5)))
    result = evaluate(replace(recording, runs=fallen))
    assert result.reasons == ("the CPU's clock fell by 16.7% (limit 2%)",)
    stored = json.loads(json.dumps(result.to_dict()["recording"]))
    assert evaluate(Recording.from_dict(stored)).reasons == result.reasons
    assert stored["runs"][4]["trace"]["clock_mhz"][-1] == 2500
    for run in stored["runs"]:  # as recordings were before there was a trace
        del run["trace"]
    assert evaluate(Recording.from_dict(stored)).verdict == "VALID"
