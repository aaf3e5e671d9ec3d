"""From a recording to the numbers of a latency report, each with its own doubt.

The verdict is about the measurement, not about the model: UNSTABLE means that another run may
well give other numbers, and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from convexport.benchmarks.host import BATTERY, Load
from convexport.benchmarks.meter import WARMUP_S, LatencyOptions
from convexport.benchmarks.recording import ModelRun, Recording, Subject
from convexport.benchmarks.statistics import (
    Percentile,
    Ratio,
    block_bootstrap,
    coefficient_of_variation,
    percentile,
    ratio_of_medians,
)
from convexport.benchmarks.trace import Trace, doubts
from convexport.benchmarks.workers import CPUS

PERCENTS = (50, 90, 95, 99)
VALID, UNSTABLE = "VALID", "UNSTABLE"

# What a model was fed.
FED_IMAGES, FED_NOISE = "images", "seeded noise"

_CV_LIMIT = 0.05
OTHERS_LIMIT = 0.05
STEAL_LIMIT = 0.01
_DURATION_S = 10.0
_MS = 1e6


@dataclass(frozen=True)
class SubjectResult:
    """One model's numbers over all processes; times in ms.

    Attributes:
        label: of the subject.
        sha256: of the model file.
        runtime: with its version.
        provider: that really ran it.
        n: samples.
        percentiles_ms: p50 p90 p95 p99 of all samples, as if they were independent.
        median_bootstrap_ms: the 95 % interval of p50 when blocks are drawn, not samples.
        process_medians_ms: one a process.
        mean_ms: of all samples.
        cv: standard deviation / mean within a process, the largest of all processes.
        cv_processes: the same of the processes' medians.
        throughput: images per second, batch / p50; None below its sample floor.
        load_ms: median over processes, with the file in the page cache.
        first_inference_ms: median over processes.
        peak_rss_bytes: of a process that runs this model alone.
        baseline_rss_bytes: the same before the model is loaded.
        speedup: against the first subject; None for the first itself.
    """

    label: str
    sha256: str
    runtime: str
    provider: str
    n: int
    percentiles_ms: tuple[Percentile, ...]
    median_bootstrap_ms: tuple[float, float] | None
    process_medians_ms: tuple[float, ...]
    mean_ms: float
    cv: float | None
    cv_processes: float | None
    throughput: float | None
    load_ms: float
    first_inference_ms: float
    peak_rss_bytes: int | None
    baseline_rss_bytes: int | None
    speedup: Ratio | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **asdict(self),
            "percentiles_ms": {f"p{p.percent:g}": p.to_dict() for p in self.percentiles_ms},
            "median_bootstrap_ms": self.median_bootstrap_ms and list(self.median_bootstrap_ms),
            "process_medians_ms": list(self.process_medians_ms),
            "speedup": self.speedup and self.speedup.to_dict(),
        }


@dataclass(frozen=True)
class BenchResult:
    """A benchmark: the numbers, the verdict, the conditions, and what they were computed from.

    Attributes:
        subjects: in the order asked for.
        verdict: VALID or UNSTABLE.
        reasons: why it is UNSTABLE.
        notes: what else a reader should know.
        conditions: under which the numbers hold.
        recording: the raw samples.
    """

    subjects: tuple[SubjectResult, ...]
    verdict: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    conditions: dict[str, Any]
    recording: Recording

    def to_dict(self) -> dict[str, Any]:
        """As JSON, raw samples included; ``evaluate`` of the recording gives it again."""
        return {
            "subjects": [subject.to_dict() for subject in self.subjects],
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "conditions": self.conditions,
            "recording": self.recording.to_dict(),
        }


def evaluate(recording: Recording) -> BenchResult:
    """Every number that follows from a recording; the same recording gives the same result."""
    rows = tuple(_subject_result(subject, recording) for subject in recording.subjects)
    reasons = tuple(text for check in _CHECKS for text in check(recording, rows))
    notes = tuple(dict.fromkeys(_notes(recording, rows)))
    verdict = UNSTABLE if reasons else VALID
    return BenchResult(rows, verdict, reasons, notes, _conditions(recording), recording)


def _subject_result(subject: Subject, recording: Recording) -> SubjectResult:
    label, options = subject.label, recording.options
    runs = _runs_of(label, recording)
    samples = np.concatenate([run.samples.ns for run in runs]) / _MS
    blocks = [block / _MS for run in runs for block in run.samples.blocks()]
    medians = _medians(runs)
    percentiles = tuple(percentile(samples, percent) for percent in PERCENTS)
    p50 = percentiles[0].value
    within = [coefficient_of_variation(run.samples.ns) for run in runs]
    first = recording.subjects[0].label
    return SubjectResult(
        label=label,
        sha256=subject.sha256,
        runtime=runs[0].runtime,
        provider=runs[0].provider,
        n=len(samples),
        percentiles_ms=percentiles,
        median_bootstrap_ms=block_bootstrap(blocks, 50, seed=options.seed),
        process_medians_ms=medians,
        mean_ms=float(samples.mean()),
        cv=max((cv for cv in within if cv is not None), default=None),
        cv_processes=coefficient_of_variation(medians),
        throughput=options.batch / p50 * 1e3 if p50 else None,
        load_ms=float(np.median([run.load_ms for run in runs])),
        first_inference_ms=float(np.median([run.samples.first_ns for run in runs]) / _MS),
        peak_rss_bytes=recording.memory[label].peak,
        baseline_rss_bytes=recording.memory[label].baseline,
        speedup=None
        if label == first
        else ratio_of_medians(_medians(_runs_of(first, recording)), medians),
    )


def _runs_of(label: str, recording: Recording) -> list[ModelRun]:
    return [run.models[label] for run in recording.runs]


def _medians(runs: list[ModelRun]) -> tuple[float, ...]:
    return tuple(float(np.median(run.samples.ns) / _MS) for run in runs)


def _spread(recording: Recording, rows: tuple[SubjectResult, ...]) -> Iterator[str]:
    for row in rows:
        kinds = (("calls within a process", row.cv), ("medians of processes", row.cv_processes))
        for name, cv in kinds:
            if cv is not None and cv > _CV_LIMIT:
                yield f"{row.label}: {name} vary by {cv:.1%} (limit {_CV_LIMIT:.0%})"


def _warmup(recording: Recording, rows: tuple[SubjectResult, ...]) -> Iterator[str]:
    for row in rows:
        settled = [run.samples.warmup.settled for run in _runs_of(row.label, recording)]
        yield from (f"{row.label}: {doubt}" for doubt in warmup_doubts(settled))


def _length(recording: Recording, rows: tuple[SubjectResult, ...]) -> Iterator[str]:
    return length_doubts(recording.options)


def _machine(recording: Recording, rows: tuple[SubjectResult, ...]) -> Iterator[str]:
    traces = [run.trace for run in recording.runs]
    providers = [subject.provider for subject in recording.subjects]
    yield from machine_doubts(recording.load, recording.host.get("cpus") or 1, traces, providers)
    if recording.host.get("power") == BATTERY:
        yield "the machine ran on its battery"


def length_doubts(options: LatencyOptions) -> Iterator[str]:
    """Why a run was too short to be relied on."""
    if options.duration_s < _DURATION_S:
        yield f"measured for {options.duration_s:g} s, less than {_DURATION_S:g} s"
    if options.warmup_s < WARMUP_S:
        yield f"warm-up of {options.warmup_s:g} s, less than {WARMUP_S:g} s"


def warmup_doubts(settled: Sequence[bool]) -> Iterator[str]:
    """In how many processes the warm-up ended without an end in sight."""
    restless = sum(not each for each in settled)
    if restless:
        yield f"warm-up never settled in {restless}/{len(settled)} processes"


def machine_doubts(
    load: Load, cpus: int, traces: Sequence[Trace | None], providers: Collection[str]
) -> Iterator[str]:
    """What the machine did meanwhile that another run may not meet."""
    # What we did ourselves before the start is in the average: it counts where all else is unknown.
    if load.others is None and load.load_1m is not None and load.load_1m > cpus:
        yield f"load average of {load.load_1m:g} on {cpus} CPUs before the start"
    if load.others is not None and load.others > OTHERS_LIMIT:
        yield f"other processes took {load.others:.1%} of the CPUs (limit {OTHERS_LIMIT:.0%})"
    if load.steal is not None and load.steal > STEAL_LIMIT:
        yield f"the hypervisor took {load.steal:.1%} of the CPUs (limit {STEAL_LIMIT:.0%})"
    if load.throttles:
        yield f"throttled {load.throttles} times, by heat, current or the CPU quota"
    yield from doubts(traces)
    if not CPUS.issuperset(providers) and not any(each and each.gpu_clock_mhz for each in traces):
        yield "the GPU's clock was not watched"


_CHECKS: tuple[Callable[[Recording, tuple[SubjectResult, ...]], Iterator[str]], ...] = (
    _length,
    _warmup,
    _spread,
    _machine,
)


def _notes(recording: Recording, rows: tuple[SubjectResult, ...]) -> Iterator[str]:
    for row in rows:
        for value in row.percentiles_ms:
            if value.note:
                yield f"{row.label}: p{value.percent:g} {value.note}"
    models = [model for run in recording.runs for model in run.models.values()]
    window_s = min(model.samples.warmup.window_s for model in models)
    if window_s < 1:
        yield f"warm-up windows of {window_s:g} s instead of 1 s: the run is short"
    if _in_cpp(recording) and "gpu" in recording.host:
        yield "the GPU's clock and heat were not watched"
    if recording.load.others is None:
        yield "the load of other processes is unknown"
    watched = [run.trace for run in recording.runs if run.trace is not None]
    if watched and all(trace.clock_mhz is None for trace in watched):
        yield "the CPU's clock cannot be read here: a drop would not be seen"
    if recording.dropped_variables:
        yield f"environment variables left out: {', '.join(recording.dropped_variables)}"
    for run in recording.runs:
        yield from run.warnings


def _in_cpp(recording: Recording) -> bool:
    """Whether convexport-bench wrote it, which has no Python to name."""
    return recording.host.get("python", "") is None


def _conditions(recording: Recording) -> dict[str, Any]:
    options = recording.options.to_dict()
    fed = {FED_NOISE if each.data is None else FED_IMAGES for each in recording.subjects}
    arrays = ", in C++: an array in, an array" if _in_cpp(recording) else ": numpy in, numpy"
    return {
        **{key: options[key] for key in options if key != "timeout_s"},
        "loop": "closed, one stream",
        "parts": f"host to host{arrays} out; no decoding, no preprocessing",
        "fed": " and ".join(sorted(fed)),
        "floor_ns": float(np.median([run.floor_ns for run in recording.runs])),
        "load": recording.load.to_dict(),
        "host": dict(recording.host),
    }
