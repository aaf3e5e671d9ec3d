"""Soak, parts and batches: what follows from what was seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from convexport.benchmarks.batches import Batches, run_batches
from convexport.benchmarks.host import Load
from convexport.benchmarks.latency import LatencyOptions
from convexport.benchmarks.loops import Stream
from convexport.benchmarks.parts import PARTS, Parts
from convexport.benchmarks.recording import Subject
from convexport.benchmarks.samples import unpack
from convexport.benchmarks.soak import Soak, run_soak, soak
from convexport.benchmarks.trace import Trace
from convexport.benchmarks.watch import Watch
from convexport.runtime.errors import InputError

MS = 1_000_000
SHORT = LatencyOptions(duration_s=0.3, processes=1, warmup_s=0.01, threads=1)
QUIET = Load(load_1m=0.1, own=0.5, others=0.0, steal=0.0, throttles=0)


@dataclass
class Warming:
    """A clock, and a call that takes 10 ms and a millisecond more each minute."""

    ns: int = 0

    def now(self) -> int:
        return self.ns

    def wait_until(self, ns: int) -> None:
        self.ns = max(self.ns, ns)

    def call(self) -> None:
        self.ns += 10 * MS + self.ns // (60 * 1000)


def test_the_first_and_the_last_minute_stand_apart() -> None:
    board = Warming()
    seen = soak(board.call, board, 600)
    first, last, medians = (unpack(seen[name]) for name in ("first_ns", "last_ns", "medians_ns"))
    assert first.min() == 10 * MS and first.max() < 11.1 * MS
    assert last.min() >= 18.9 * MS and last.max() < 20.2 * MS
    assert first.sum() == pytest.approx(60e9, rel=0.02)
    assert last.sum() == pytest.approx(60e9, rel=0.02)
    assert len(medians) == pytest.approx(600, rel=0.02) and (np.diff(medians) >= 0).all()
    assert (seen["minute_s"], seen["seconds"]) == (60, pytest.approx(600, rel=0.01))


@pytest.mark.parametrize("seconds", [0.005, 0.05, 3.0])
def test_a_short_soak_is_cut_in_halves(seconds: float) -> None:
    board = Warming()
    seen = soak(board.call, board, seconds)
    assert seen["minute_s"] == seconds / 2
    assert len(unpack(seen["first_ns"])) > 0 and len(unpack(seen["last_ns"])) > 0


def test_a_soak_is_computed_again_from_its_samples() -> None:
    minutes = [np.full(500, ms * MS, dtype=np.int64) for ms in (10, 12)]
    trace = Trace(t_s=(0.0, 0.2, 0.4, 9.0, 9.2, 9.4), clock_mhz=(1500.0,) * 3 + (1200.0,) * 3)
    made = Soak(1800.0, 60.0, *minutes, minutes[0], 1, QUIET, 4, trace)
    stored = json.loads(json.dumps(made.to_dict()))
    assert stored["slowdown"] == pytest.approx(1.2)
    assert stored["last_minute"]["p99"]["value"] == 12
    assert stored["reasons"] == ["the CPU's clock fell by 20.0% (limit 2%)"]
    assert Soak.from_dict({**stored, "slowdown": 1.0}).to_dict() == stored
    restless = replace(made, settled=False, provider="CUDA").to_dict()["reasons"]
    assert restless[0] == "warm-up never settled in 1/1 processes"
    assert restless[-1] == "the GPU's clock was not watched"
    with pytest.raises(InputError, match="E0361"):
        Soak.from_dict({})


def test_parts_are_medians_of_each_and_of_the_sum() -> None:
    rng = np.random.default_rng(0)
    samples = {name: rng.integers(MS, 9 * MS, 101) for name in PARTS}
    stored = json.loads(json.dumps(Parts(samples).to_dict()))
    for name in PARTS:
        assert stored[f"{name}_ms"]["value"] == np.median(samples[name]) / MS
    whole = sum(samples[name] for name in PARTS)
    assert stored["sum_ms"]["value"] == np.median(whole) / MS
    assert stored["sum_ms"]["low"] <= stored["sum_ms"]["value"] <= stored["sum_ms"]["high"]
    assert Parts.from_dict(stored).to_dict() == stored


def test_batches_are_rows() -> None:
    stream = Stream(np.full(400, 4 * MS, dtype=np.int64), np.arange(400), 1.6)
    stored = json.loads(json.dumps(Batches({8: stream}, "why").to_dict()))
    (row,) = stored["rows"]
    assert (row["batch"], row["p50_ms"]["value"], stored["why"]) == (8, 4, "why")
    assert row["throughput"] == pytest.approx(2000)  # 3,200 images in 1.6 s
    assert Batches.from_dict(stored).to_dict() == stored and "reasons" not in stored


def test_parts_and_batches_tell_their_doubts() -> None:
    watch = Watch(
        load=replace(QUIET, others=0.2),
        cpus=2,
        provider="CPUExecutionProvider",
        traces=(None,),
        settled=(True, False),
    )
    columns = {name: np.full(30, MS) for name in PARTS}
    stream = Stream(np.full(400, 4 * MS, dtype=np.int64), np.arange(400), 1.6)
    for made in (Parts(columns, watch), Batches({8: stream}, "", watch)):
        stored = json.loads(json.dumps(made.to_dict()))
        assert stored["reasons"] == [
            "warm-up never settled in 1/2 processes",
            "other processes took 20.0% of the CPUs (limit 5%)",
        ]
        assert type(made).from_dict(stored).to_dict() == stored


@pytest.mark.slow
def test_batches_and_a_soak_of_a_real_model(make_subject: Callable[..., Subject]) -> None:
    subject = make_subject("a", layers=2, size=32)
    found = run_batches(subject, SHORT, (1, 16))
    assert list(found.streams) == [1, 16] and found.why == ""
    rows = found.to_dict()["rows"]
    assert rows[1]["p50_ms"]["value"] > rows[0]["p50_ms"]["value"]
    long = run_soak(subject, replace(SHORT, batch=2), 1.2)
    assert (long.batch, long.minute_s, long.trace is not None) == (2, 0.6, True)
    assert long.to_dict()["first_minute"]["p50"]["value"] > 0
