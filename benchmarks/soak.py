"""One model for long: does it keep its speed once the board is warm?

A benchmark of seconds ends before a passively cooled board has heated up. The first and the last
minute are reported apart, each with all its latencies; of the time between there is a median a
second, since half an hour of a small net would be tens of millions of calls.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from convexport.benchmarks.host import Load, affinity, load_between, load_snapshot
from convexport.benchmarks.latency_result import PERCENTS, machine_doubts, warmup_doubts
from convexport.benchmarks.loading import Span, load_alone
from convexport.benchmarks.loops import SECOND, Call, Clock, WallClock, closed_loop
from convexport.benchmarks.meter import LatencyOptions, collector_off, warm_up
from convexport.benchmarks.recording import Subject
from convexport.benchmarks.samples import Nanoseconds, pack, unpack
from convexport.benchmarks.statistics import percentile
from convexport.benchmarks.stored import known
from convexport.benchmarks.trace import Trace
from convexport.benchmarks.workers import ask, environment
from convexport.runtime.errors import InputError

_MINUTE_S = 60.0
_MS = 1e6


@dataclass(frozen=True, eq=False)
class Soak:
    """What a long run saw, closed loop, one process.

    Attributes:
        seconds: how long it took.
        minute_s: how long the first and the last "minute" are; half of a run under two minutes.
        first_ns: int64 (n,), all latencies of the first minute.
        last_ns: the same of the last.
        medians_ns: int64 (seconds,), of each second of the whole run.
        batch: images a call.
        load: of the machine.
        cpus: that we may run on.
        trace: of the machine.
        provider: that ran it; None in what an older version stored.
        settled: whether the warm-up settled.
    """

    seconds: float
    minute_s: float
    first_ns: Nanoseconds
    last_ns: Nanoseconds
    medians_ns: Nanoseconds
    batch: int
    load: Load
    cpus: int
    trace: Trace | None
    provider: str | None = None
    settled: bool = True

    def to_dict(self) -> dict[str, Any]:
        """As JSON; ``slowdown`` is the last minute's median / the first's."""
        minutes = {"first_minute": self.first_ns, "last_minute": self.last_ns}
        providers = () if self.provider is None else (self.provider,)
        doubts = machine_doubts(self.load, self.cpus, [self.trace], providers)
        return {
            "loop": "closed",
            "seconds": self.seconds,
            "minute_s": self.minute_s,
            "batch": self.batch,
            **{
                name: {f"p{p}": percentile(ns / _MS, p).to_dict() for p in PERCENTS}
                for name, ns in minutes.items()
            },
            "slowdown": float(np.median(self.last_ns) / np.median(self.first_ns)),
            "reasons": [*warmup_doubts([self.settled]), *doubts],
            "samples": {
                "first_ns": pack(self.first_ns),
                "last_ns": pack(self.last_ns),
                "medians_ns": pack(self.medians_ns),
            },
            "load": self.load.to_dict(),
            "cpus": self.cpus,
            "trace": self.trace and self.trace.to_dict(),
            "provider": self.provider,
            "settled": self.settled,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Soak:
        """The inverse of ``to_dict``; percentiles, slowdown and reasons are computed again.

        Raises:
            InputError: E0360 or E0361, this is no soak.
        """
        try:
            return cls(
                **{name: data[name] for name in ("seconds", "minute_s", "batch", "cpus")},
                **{name: data[name] for name in ("provider", "settled") if name in data},
                **_arrays(data["samples"]),
                load=Load(**known(Load, data["load"])),
                trace=None if data["trace"] is None else Trace.from_dict(data["trace"]),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError("E0361", f"this is no soak: {error!r}") from error


def _arrays(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: unpack(data[name]) for name in ("first_ns", "last_ns", "medians_ns")}


def run_soak(subject: Subject, options: LatencyOptions, seconds: float) -> Soak:
    """One subject for so many seconds, in one fresh process, in the batch of the options."""
    env, _ = environment()
    long = replace(options, duration_s=seconds, processes=1)
    before = load_snapshot()
    answer = ask("soak", [subject], long, env, traced=True)
    value = answer.value
    return Soak(
        **_arrays(value),
        seconds=value["seconds"],
        minute_s=value["minute_s"],
        batch=value["batch"],
        load=load_between(before, load_snapshot()),
        cpus=affinity(),
        trace=answer.trace,
        provider=value["provider"],
        settled=value["settled"],
    )


def soak_job(subjects: list[Subject], options: LatencyOptions, span: Span) -> dict[str, Any]:
    """In a worker: call the model for ``duration_s`` seconds."""
    loaded = load_alone(subjects, options)
    batch = loaded.fixed_batch or options.batch
    call = loaded.call(batch)
    with collector_off():
        warmup, _ = warm_up(call, replace(options, duration_s=min(10.0, options.duration_s)))
        span.begin(time.perf_counter_ns())
        found = soak(call, WallClock(), options.duration_s)
    facts = {"provider": loaded.session.provider, "settled": warmup.settled}
    return {**found, "batch": batch, **facts}


def soak(call: Call, clock: Clock, seconds: float) -> dict[str, Any]:
    """The loop itself: second after second, of which the first and the last minute are kept."""
    minute_s = min(_MINUTE_S, seconds / 2)
    window_ns = int(min(1.0, minute_s) * SECOND)
    begin, end_ns, edge_ns = clock.now(), int(seconds * SECOND), int(minute_s * SECOND)
    first, last, medians = [], [], []
    while (at := clock.now() - begin) < end_ns:
        window = closed_loop(call, clock, duration_ns=window_ns).latency_ns
        medians.append(int(np.median(window)))
        if at < edge_ns:
            first.append(window)
        if at >= end_ns - edge_ns:
            last.append(window)
    return {
        "seconds": (clock.now() - begin) / SECOND,
        "minute_s": minute_s,
        "first_ns": pack(np.concatenate(first)),
        # A call that is longer than the last minute is its only one.
        "last_ns": pack(np.concatenate(last or [window])),
        "medians_ns": pack(np.array(medians, dtype=np.int64)),
    }
