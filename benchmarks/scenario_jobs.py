"""What a worker does for a scenario: one subject, loaded, warmed up, and asked in a loop."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from convexport.benchmarks.batches import usable_batches
from convexport.benchmarks.early_stopping import allowed_late
from convexport.benchmarks.loading import Loaded, Span, load_alone
from convexport.benchmarks.loops import (
    SECOND,
    Call,
    Stream,
    WallClock,
    closed_loop,
    highest,
    open_loop,
    poisson,
)
from convexport.benchmarks.meter import LatencyOptions, collector_off, warm_up
from convexport.benchmarks.recording import Subject
from convexport.benchmarks.scenarios import Scenario

_MS = 1_000_000
# A rate is tried for so long and with so many requests at least.
_PROBE_S, _PROBE_REQUESTS = 1.0, 100


def stream_job(
    subjects: list[Subject], options: LatencyOptions, span: Span, *, scenario: dict[str, Any]
) -> dict[str, Any]:
    """One subject in a scenario whose rate and batch are settled."""
    wanted = Scenario.from_dict(scenario)
    loaded = load_alone(subjects, options)
    call = query(loaded, wanted.images)
    with collector_off():
        warmup, _ = warm_up(call, options)
        span.begin(time.perf_counter_ns())
        stream = run_scenario(call, wanted, options)
    return {
        "stream": stream.to_dict(),
        "runtime": loaded.session.runtime,
        "provider": loaded.session.provider,
        "fixed_batch": loaded.fixed_batch,
        "settled": warmup.settled,
    }


def search_job(
    subjects: list[Subject], options: LatencyOptions, span: Span, *, scenario: dict[str, Any]
) -> dict[str, Any]:
    """The rate (server) or the batch (offline) at which a scenario is worth measuring."""
    wanted = Scenario.from_dict(scenario)
    loaded = load_alone(subjects, options)
    span.begin(time.perf_counter_ns())
    with collector_off():
        if wanted.name == "offline":
            return _best_batch(loaded, wanted, options)
        return _highest_rate(query(loaded, 1), wanted, options)


def run_scenario(call: Call, scenario: Scenario, options: LatencyOptions) -> Stream:
    """The loop of a scenario, for ``options.duration_s`` seconds."""
    if scenario.loop == "closed":
        return closed_loop(call, WallClock(), duration_ns=int(options.duration_s * SECOND))
    schedule = poisson(scenario.qps or 0.0, options.duration_s, options.seed)
    # Given up only when it is hopeless: what counts is all processes together.
    return _arrivals(call, scenario, schedule, max(1, len(schedule) // 10))


def _arrivals(
    call: Call, scenario: Scenario, schedule: npt.NDArray[np.int64], most_late: int
) -> Stream:
    bound_ns = int((scenario.bound_ms or 0.0) * _MS)
    return open_loop(call, WallClock(), schedule, bound_ns=bound_ns, most_late=most_late)


def _highest_rate(call: Call, scenario: Scenario, options: LatencyOptions) -> dict[str, Any]:
    """Bisection below the rate at which the service alone would take all the time."""
    _, median_ns = warm_up(call, options)
    tried: list[dict[str, Any]] = []

    def holds(qps: float) -> bool:
        seconds = max(_PROBE_S, _PROBE_REQUESTS / qps)
        schedule = poisson(qps, seconds, options.seed + len(tried))
        n, percent = len(schedule), scenario.percent
        # Given up when the percentile as seen is beyond the bound already.
        most_late = max(allowed_late(n, percent), int(n * (1 - percent / 100)))
        stream = _arrivals(call, scenario, schedule, most_late)
        value = float(np.percentile(stream.latency_ns, scenario.percent)) / _MS
        held = not stream.stopped and value <= (scenario.bound_ms or 0.0)
        tried.append({"qps": qps, "requests": len(stream.latency_ns), "held": held})
        return held

    return {"qps": highest(holds, SECOND / median_ns), "tried": tried}


def _best_batch(loaded: Loaded, scenario: Scenario, options: LatencyOptions) -> dict[str, Any]:
    usable, why = usable_batches(loaded, scenario.batches)
    tried = []
    for batch in usable:
        call = loaded.call(batch)
        call()
        stream = closed_loop(call, WallClock(), duration_ns=int(options.duration_s * SECOND / 20))
        rate = batch * len(stream.latency_ns) / stream.seconds
        tried.append({"batch": batch, "throughput": rate})
    best = max(tried, key=lambda each: float(each["throughput"]))
    return {"batch": best["batch"], "tried": tried, "why": why}


def query(loaded: Loaded, images: int) -> Call:
    """A call that answers so many images; where the batch is fixed, as many calls as that takes."""
    batch = loaded.fixed_batch or min(images, loaded.largest_batch or images)
    call = loaded.call(batch)
    times = math.ceil(images / batch)
    return call if times == 1 else lambda: [call() for _ in range(times)]
