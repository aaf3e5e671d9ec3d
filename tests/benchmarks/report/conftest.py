"""A report with everything in it, of two bundles written by hand and latencies made up."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convexport.benchmarks.accuracy import paired_accuracy
from convexport.benchmarks.bandwidth import Bandwidth
from convexport.benchmarks.batches import Batches
from convexport.benchmarks.host import Load
from convexport.benchmarks.latency_result import evaluate
from convexport.benchmarks.limits import against_roof
from convexport.benchmarks.loops import Stream
from convexport.benchmarks.meter import LatencyOptions
from convexport.benchmarks.parity import compare
from convexport.benchmarks.parts import PARTS, Parts
from convexport.benchmarks.recording import Memory, ModelRun, Recording, Run, Subject
from convexport.benchmarks.report.document import document, entries_of
from convexport.benchmarks.roofline import Peak
from convexport.benchmarks.samples import Samples, Warmup
from convexport.benchmarks.scenarios import Scenario, ScenarioRecording, evaluate_scenario
from convexport.benchmarks.soak import Soak
from tests.tiny import write_bundle

Report = dict[str, Any]
MakeReport = Callable[..., Report]

_BUSY = Load(load_1m=2.0, own=0.5, others=0.3, steal=0.0, throttles=0)
_SETTLED = Warmup(seconds=2.0, windows=2, window_s=1.0, settled=True)


def recording(*subjects: tuple[str, str, float], n: int = 400, spread: float = 0.02) -> Recording:
    """Of label, sha256 and median in ms; five processes on a quiet machine."""
    rng = np.random.default_rng(0)

    def model(ms: float) -> ModelRun:
        ns = (ms * 1e6 * rng.normal(1, spread, n)).astype(np.int64)
        sizes = np.full(10, n // 10, dtype=np.int64)
        starts = np.arange(10, dtype=np.int64) * 10**9
        return ModelRun(
            12.5, "fake 1.0", "CPUExecutionProvider", Samples(ns, sizes, starts, 10**8, _SETTLED)
        )

    return Recording(
        tuple(
            Subject(label=label, model=Path("m.onnx"), provider="CPU", input_name="x",
                    input_shape=(1, 2, 2), sha256=sha256)
            for label, sha256, _ in subjects
        ),
        LatencyOptions(threads=1, processes=5),
        tuple(Run({label: model(ms) for label, _, ms in subjects}, 100.0) for _ in range(5)),
        {label: Memory(80 << 20, 50 << 20) for label, _, _ in subjects},
        Load(load_1m=0.1, own=0.5, others=0.01, steal=0.0, throttles=0),
        {"cpus": 2},
    )  # fmt: skip


@cache
def _measured(*subjects: tuple[str, str, float], spread: float, n: int) -> Report:
    return evaluate(recording(*subjects, spread=spread, n=n)).to_dict()


def measured(*subjects: tuple[str, str, float], spread: float, n: int) -> Report:
    """What a benchmark gives for such a recording."""
    return copy.deepcopy(_measured(*subjects, spread=spread, n=n))


@pytest.fixture
def make_report(tmp_path: Path) -> MakeReport:
    """Write two bundles, ``one`` and ``two``, and make the report that compares them."""

    def make(*, ms: tuple[float, ...] = (10.0, 5.0), spread: float = 0.02, n: int = 400) -> Report:
        paths = [tmp_path / name for name in ("one", "two")[: len(ms)]]
        for path in paths:
            if not path.is_dir():
                write_bundle(path)
        entries = entries_of(paths)
        for index, each in enumerate(entries):
            each["verification"], each["accuracy"] = _verification(each, index), _accuracy(index)
            each["layers"] = copy.deepcopy(_LAYERS)
        subjects = [
            (each["label"], each["model_sha256"], median)
            for each, median in zip(entries, ms, strict=True)
        ]
        latency = measured(*subjects, spread=spread, n=n)
        return document(
            entries,
            latency,
            **_extras(entries[0]["model_sha256"]),
            stages=[{"name": "export", "seconds": 1.5, "cached": False}],
        )

    return make


def _extras(sha256: str) -> Report:
    """What else a benchmark measures of ``one``."""
    ns = np.full(40, 10**7, dtype=np.int64)
    stream = Stream(ns, np.cumsum(2 * ns), 8.0)
    scenario = ScenarioRecording(
        scenario=Scenario(name="server", qps=5, bound_ms=20), label="one", sha256=sha256,
        runtime="fake 1.0", provider="CPUExecutionProvider", fixed_batch=None,
        options=LatencyOptions(threads=1, processes=1), streams=(stream,), traces=(None,),
        load=_BUSY, cpus=2,
    )  # fmt: skip
    soak = Soak(1800.0, 60.0, ns, ns + 10**6, ns, 1, _BUSY, 2, None)
    return {
        "scenarios": [evaluate_scenario(scenario).to_dict()],
        "parts": {"one": Parts(dict.fromkeys(PARTS, ns)).to_dict()},
        "batches": {"one": Batches({1: stream, 8: stream}, "").to_dict()},
        "soak": {"one": soak.to_dict()},
    }


def _accuracy(seed: int) -> Report:
    rng = np.random.default_rng(seed)
    logits, labels = rng.standard_normal((200, 3)), rng.integers(3, size=200)
    logits[np.arange(200), labels] += 3
    return paired_accuracy(logits, logits + rng.normal(0, 0.2, logits.shape), labels).to_dict()


def _verification(entry: Report, seed: int) -> Report:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((64, 3))
    return {
        "name": entry["name"],
        "model_sha256": entry["model_sha256"],
        "runtime": "fake 1.0",
        "golden_error": 0.0,
        "parity": compare(logits, logits * (1 + 1e-6)).to_dict(),
        "parity_set": "64 images made up",
        "accuracy": "not measured",
        "histogram": {"edges": [0.0, 1e-6, 1e-5, 1e-4], "counts": [10, 20, 3]},
        "worst": [{"image": "a.png", "expected": 1, "actual": 2, "error": 0.1}],
        "changed": [{"from": "cat", "to": "dog", "count": 2}],
        "warnings": ["made up"],
    }


_LAYERS = {
    **against_roof(
        [
            {"name": f"conv{i}", "op": "Conv", "ms": 0.1 * i, "ops": 10**6 * i, "bytes": 1000,
             "precision": "int8"}
            for i in range(30, 0, -1)
        ],
        46.5,
        465 * 10**6,
        {"int8": Peak("fake 1.0", "int8", 1, 2.5e10)},
        Bandwidth(1, {1 << 14: 2e10, 1 << 28: 1.25e10}),
    ),
    "conditions": {"runtime": "fake on 1 thread", "host": {"cpus": 2}},
}  # fmt: skip
