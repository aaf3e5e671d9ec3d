"""How a model is asked: the four scenarios of MLPerf's LoadGen, by its names and its rules.

    single-stream  one image a request, the next when the last is answered       p90
    multi-stream   N images a request, likewise                                  p99
    server         one image a request, arrivals of a Poisson process            p99 within a bound
    offline        all images at once, in the batch that gives the most a second  throughput

(V. Reddi et al., MLPerf Inference Benchmark, arXiv 1911.02549.) The server is one stream that
answers in the order of arrival and does not batch. A result here is no submission: MLPerf asks for
ten minutes, an accuracy run and data of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from convexport.benchmarks.early_stopping import (
    EarlyStopping,
    allowed_late,
    bound_floor,
    early_stopping,
)
from convexport.benchmarks.host import Load
from convexport.benchmarks.latency_result import (
    PERCENTS,
    length_doubts,
    machine_doubts,
    warmup_doubts,
)
from convexport.benchmarks.loops import Stream
from convexport.benchmarks.meter import LatencyOptions
from convexport.benchmarks.samples import ENCODING
from convexport.benchmarks.statistics import Percentile, percentile
from convexport.benchmarks.stored import known
from convexport.benchmarks.trace import Trace
from convexport.runtime.errors import ConvexportError, InputError, UsageError, did_you_mean

SCENARIOS = ("single-stream", "multi-stream", "server", "offline")
_HEADLINE = {"single-stream": 90, "multi-stream": 99, "server": 99, "offline": 99}
_MS = 1e6


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What to ask of a model.

    Attributes:
        name: one of SCENARIOS.
        qps: server: requests a second; None finds the highest that holds.
        bound_ms: server: what the p99 must not exceed.
        samples_per_query: multi-stream: images a request.
        batch: offline: images a call; None finds the best of ``batches``.
        batches: offline: the candidates.

    Raises:
        UsageError: E0269, no such scenario, or a value that it does not go by.
    """

    name: str
    qps: float | None = None
    bound_ms: float | None = None
    samples_per_query: int = 8
    batch: int | None = None
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)

    def __post_init__(self) -> None:
        if self.name not in SCENARIOS:
            close = did_you_mean(self.name, SCENARIOS, otherwise=f"one of {', '.join(SCENARIOS)}")
            raise UsageError("E0269", f"no scenario is named {self.name[:40]!r}", hint=close)
        if (self.name == "server") != (self.bound_ms is not None):
            raise UsageError(
                "E0269",
                "the server scenario, and no other, has a bound on its latency",
                hint="--scenario server --bound-ms 20",
            )
        if self.qps is not None and self.name != "server":
            raise UsageError("E0269", f"{self.name} has no rate", hint="leave --qps out")
        numbers = (self.qps, self.bound_ms, self.samples_per_query, self.batch, *self.batches)
        if not self.batches or not all(n is None or 0 < n < float("inf") for n in numbers):
            raise UsageError("E0269", f"the numbers of {self.name} must be above 0")

    @property
    def loop(self) -> str:
        """``open`` where requests arrive by themselves, else ``closed``."""
        return "open" if self.name == "server" else "closed"

    @property
    def percent(self) -> int:
        """The percentile that counts."""
        return _HEADLINE[self.name]

    @property
    def images(self) -> int:
        """Images a request."""
        return {"multi-stream": self.samples_per_query, "offline": self.batch or 1}.get(
            self.name, 1
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "batches": list(self.batches)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scenario:
        """The inverse of ``to_dict``."""
        return cls(**{**known(cls, data), "batches": tuple(data["batches"])})


@dataclass(frozen=True, kw_only=True)
class ScenarioRecording:
    """What was seen of one subject in one scenario, a stream a process.

    Attributes:
        scenario: with the rate or batch that was settled on.
        label: of the subject.
        sha256: of its model file.
        runtime: with its version.
        provider: that ran it.
        fixed_batch: that the model insists on.
        options: how long and in how many processes.
        streams: one a process.
        traces: of the machine, likewise.
        load: of the machine over all of them.
        cpus: that we may run on.
        tried: what was tried to settle the rate or batch, in turn.
        settled: whether each process's warm-up settled; empty where nobody noted it.
    """

    scenario: Scenario
    label: str
    sha256: str
    runtime: str
    provider: str
    fixed_batch: int | None
    options: LatencyOptions
    streams: tuple[Stream, ...]
    traces: tuple[Trace | None, ...]
    load: Load
    cpus: int
    tried: tuple[dict[str, Any], ...] = ()
    settled: tuple[bool, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "encoding": ENCODING,
            **{key: getattr(self, key) for key in _PLAIN},
            "scenario": self.scenario.to_dict(),
            "options": self.options.to_dict(),
            "streams": [stream.to_dict() for stream in self.streams],
            "traces": [trace and trace.to_dict() for trace in self.traces],
            "load": self.load.to_dict(),
            "tried": list(self.tried),
            "settled": list(self.settled),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ScenarioRecording:
        """The inverse of ``to_dict``.

        Raises:
            InputError: E0361, this is no recording of a scenario.
        """
        try:
            return cls(
                **{key: data[key] for key in _PLAIN},
                scenario=Scenario.from_dict(data["scenario"]),
                options=LatencyOptions(**known(LatencyOptions, data["options"])),
                streams=tuple(map(Stream.from_dict, data["streams"])),
                traces=tuple(each and Trace.from_dict(each) for each in data["traces"]),
                load=Load(**known(Load, data["load"])),
                tried=tuple(data["tried"]),
                settled=tuple(data.get("settled", ())),
            )
        except (AttributeError, KeyError, TypeError, ValueError, ConvexportError) as error:
            what = f"this is no recording of a scenario: {error!r}"
            raise InputError("E0361", what) from error


_PLAIN = ("label", "sha256", "runtime", "provider", "fixed_batch", "cpus")


@dataclass(frozen=True)
class ScenarioResult:
    """The numbers of a scenario; all of them follow from the recording.

    Attributes:
        n: requests.
        percentiles_ms: p50 p90 p95 p99, of all processes together.
        early_stopping_ms: an upper estimate of the percentile that counts.
        throughput: images a second.
        late: server: requests beyond the bound.
        reasons: why it is not valid; none, and it is.
        recording: the raw latencies.
    """

    n: int
    percentiles_ms: tuple[Percentile, ...]
    early_stopping_ms: EarlyStopping
    throughput: float
    late: int | None
    reasons: tuple[str, ...]
    recording: ScenarioRecording

    @property
    def given_up(self) -> bool:
        """Whether a process stopped before all requests were made."""
        return any(stream.stopped for stream in self.recording.streams)

    @property
    def bound_kept(self) -> bool:
        """Whether so few requests are late that the bound holds at 99 % confidence."""
        return self.late is None or self.late <= allowed_late(
            self.n, self.recording.scenario.percent
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON, raw latencies included."""
        recording = self.recording
        scenario = recording.scenario
        return {
            "scenario": scenario.name,
            "loop": scenario.loop,
            "label": recording.label,
            "sha256": recording.sha256,
            "n": self.n,
            "percent": scenario.percent,
            "percentiles_ms": {f"p{p.percent:g}": p.to_dict() for p in self.percentiles_ms},
            "early_stopping_ms": self.early_stopping_ms.to_dict(),
            "throughput": self.throughput,
            "target_qps": scenario.qps,
            "bound_ms": scenario.bound_ms,
            "late": self.late,
            "images_per_request": scenario.images,
            "valid": not self.reasons,
            "reasons": list(self.reasons),
            "samples": recording.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ScenarioResult:
        """From the raw latencies of a stored result; its other numbers are computed again.

        Raises:
            InputError: E0361, this is no result of a scenario.
        """
        if not isinstance(data, Mapping) or "samples" not in data:
            raise InputError("E0361", "this is no result of a scenario: it has no samples")
        return evaluate_scenario(ScenarioRecording.from_dict(data["samples"]))


def evaluate_scenario(recording: ScenarioRecording) -> ScenarioResult:
    """Every number that follows from a recording."""
    scenario = recording.scenario
    latencies = np.concatenate([stream.latency_ns for stream in recording.streams]) / _MS
    n, bound = len(latencies), scenario.bound_ms
    stopping = early_stopping(latencies, scenario.percent)
    late = None if bound is None else int((latencies > bound).sum())
    seconds = sum(stream.seconds for stream in recording.streams)
    reasons = [
        *length_doubts(recording.options),
        *warmup_doubts(recording.settled),
        *machine_doubts(recording.load, recording.cpus, recording.traces, (recording.provider,)),
        *_stream_doubts(recording),
    ]
    floor = stopping.floor if bound is None else bound_floor(scenario.percent)
    if n < floor and scenario.name != "offline":
        reasons.append(f"n too small: {n} of {floor} requests")
    elif late is not None and late > allowed_late(n, scenario.percent):
        reasons.append(
            f"{late} of {n} requests took more than {bound:g} ms: at most "
            f"{allowed_late(n, scenario.percent)} may for a p{scenario.percent} within it"
        )
    return ScenarioResult(
        n=n,
        percentiles_ms=tuple(percentile(latencies, percent) for percent in PERCENTS),
        early_stopping_ms=stopping,
        throughput=n * scenario.images / seconds,
        late=late,
        reasons=tuple(reasons),
        recording=recording,
    )


def _stream_doubts(recording: ScenarioRecording) -> Iterator[str]:
    """Given up, or over before a queue could have grown as long as the bound allows."""
    streams, bound = recording.streams, recording.scenario.bound_ms
    given_up = sum(stream.stopped for stream in streams)
    if given_up:
        yield f"given up early in {given_up}/{len(streams)} processes"
    shortest = min(stream.seconds for stream in streams)
    if bound is not None and shortest * 1e3 < 100 * bound:
        yield f"a process took {shortest:.3g} s, not 100 times the bound of {bound:g} ms"
