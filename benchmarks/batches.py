"""Batch against throughput: what more images a call give, and what they cost the one that waits."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from convexport.benchmarks.host import affinity, load_between, load_snapshot
from convexport.benchmarks.loading import Loaded, Span, load_alone
from convexport.benchmarks.loops import SECOND, Stream, WallClock, closed_loop
from convexport.benchmarks.meter import LatencyOptions, collector_off, warm_up
from convexport.benchmarks.recording import Subject
from convexport.benchmarks.statistics import percentile
from convexport.benchmarks.watch import Watch, watch_of, watched
from convexport.benchmarks.workers import ask, environment

_MS = 1e6


@dataclass(frozen=True)
class Batches:
    """What was seen at each batch.

    Attributes:
        streams: by batch, closed loop, one process.
        why: why not all batches that were asked for are there; empty if they are.
        watch: over the machine and the warm-ups; None in what an older version stored.
    """

    streams: Mapping[int, Stream]
    why: str
    watch: Watch | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON: a row a batch with its raw latencies."""
        return {
            "loop": "closed",
            "why": self.why,
            "rows": [
                {
                    "batch": batch,
                    "throughput": batch * len(stream.latency_ns) / stream.seconds,
                    "p50_ms": percentile(stream.latency_ns / _MS, 50).to_dict(),
                    "p99_ms": percentile(stream.latency_ns / _MS, 99).to_dict(),
                    "samples": stream.to_dict(),
                }
                for batch, stream in self.streams.items()
            ],
            **watched(self.watch),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Batches:
        """The inverse of ``to_dict``; the numbers are computed again."""
        rows = data["rows"]
        streams = {row["batch"]: Stream.from_dict(row["samples"]) for row in rows}
        return cls(streams, data["why"], watch_of(data))


def run_batches(subject: Subject, options: LatencyOptions, batches: Sequence[int]) -> Batches:
    """Each batch in turn in one fresh process, an equal share of ``duration_s`` for each."""
    env, _ = environment()
    # Of a large batch a few calls alone, the warm-up's, take their time.
    patient = replace(options, timeout_s=options.timeout_s * max(len(batches), *batches))
    before, extra = load_snapshot(), {"batches": list(batches)}
    answer = ask("batches", [subject], patient, env, traced=True, extra=extra)
    value = answer.value
    streams = {int(batch): Stream.from_dict(each) for batch, each in value["streams"].items()}
    watch = Watch(
        load=load_between(before, load_snapshot()),
        cpus=affinity(),
        provider=value["provider"],
        traces=(answer.trace,),
        settled=tuple(value["settled"]),
    )
    return Batches(streams, value["why"], watch)


def batches_job(
    subjects: list[Subject], options: LatencyOptions, span: Span, *, batches: list[int]
) -> dict[str, Any]:
    """One subject at each batch in turn, an equal share of the time for each."""
    loaded = load_alone(subjects, options)
    usable, why = usable_batches(loaded, batches)
    streams, settled = {}, []
    with collector_off():
        for index, batch in enumerate(usable):
            call = loaded.call(batch)
            settled.append(warm_up(call, options)[0].settled)
            if index == 0:
                span.begin(time.perf_counter_ns())
            duration_ns = int(options.duration_s / len(usable) * SECOND)
            streams[str(batch)] = closed_loop(call, WallClock(), duration_ns=duration_ns).to_dict()
    facts = {"provider": loaded.session.provider, "settled": settled}
    return {"streams": streams, "why": why, **facts}


def usable_batches(loaded: Loaded, batches: Sequence[int]) -> tuple[list[int], str]:
    """The batches that the model takes, and why the others are left out."""
    fixed, largest = loaded.fixed_batch, loaded.largest_batch
    if fixed is not None:
        return [fixed], f"the model's batch is fixed at {fixed}"
    usable = [batch for batch in batches if largest is None or batch <= largest]
    why = f"the engine takes up to {largest} images" if len(usable) < len(batches) else ""
    return usable or [largest or 1], why
