"""Latency of models, side by side, over fresh processes.

Host to host and closed loop: one stream calls a session's ``run`` with numpy in and numpy out,
the next call starts when the last has ended. Decoding and preprocessing are not in it. Each
process loads every model and measures them interleaved (see ``meter``); the processes differ by
their seed. Peak memory comes from one more process a model, which runs that model alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from convexport.benchmarks.gpu_trace import describe_gpu
from convexport.benchmarks.host import describe_host, load_between, load_snapshot, power
from convexport.benchmarks.latency_result import BenchResult, evaluate
from convexport.benchmarks.meter import LatencyOptions, measure, overhead_ns
from convexport.benchmarks.recording import Memory, Recording, Run, Subject
from convexport.benchmarks.samples import Samples, Warmup
from convexport.benchmarks.workers import CPUS, ask, environment
from convexport.runtime.errors import UsageError

__all__ = [
    "BenchResult",
    "LatencyOptions",
    "Samples",
    "Subject",
    "Warmup",
    "bench",
    "evaluate",
    "machine",
    "measure",
    "overhead_ns",
]


def bench(
    subjects: Sequence[Subject], options: LatencyOptions, *, report: Callable[[str], None]
) -> BenchResult:
    """Measure models against the first of them.

    Args:
        subjects: with different labels; each has one input.
        options: how long and how often.
        report: is given a line of progress now and then.

    Raises:
        UsageError: E0201, an input does not fit a model; E0264, no subjects, or a label twice.
        InputError: E0303 or E0362 to E0364, a model or its images cannot be used.
        MachineError: E0402, a provider is missing; E0410 or E0411, a process crashed or hung.
    """
    labels = [subject.label for subject in subjects]
    if not labels or len(set(labels)) != len(labels):
        raise UsageError(
            "E0264", "a benchmark needs models with different labels", where=f"{labels}"
        )
    env, dropped = environment()
    runs = []
    before = load_snapshot()
    for index in range(options.processes):
        report(f"process {index + 1} of {options.processes}: measuring {', '.join(labels)}")
        runs.append(_run(subjects, share_of(options, index), env))
    load = load_between(before, load_snapshot())
    report("peak memory: one process a model")
    memory = {
        subject.label: Memory(**ask("memory", [subject], options, env).value)
        for subject in subjects
    }
    host = machine([subject.provider for subject in subjects])
    return evaluate(Recording(tuple(subjects), options, tuple(runs), memory, load, host, dropped))


def machine(providers: Collection[str]) -> dict[str, Any]:
    """This machine; its plug, and its GPU where one of the providers runs on it, if known."""
    gpu = None if CPUS.issuperset(providers) else describe_gpu()
    found = {"power": power(), "gpu": gpu}
    return {**describe_host(), **{name: each for name, each in found.items() if each is not None}}


def share_of(options: LatencyOptions, index: int) -> LatencyOptions:
    """What one process does of the whole."""
    return replace(
        options,
        duration_s=options.duration_s / options.processes,
        seed=options.seed + index,
        processes=1,
    )


def _run(subjects: Sequence[Subject], options: LatencyOptions, env: Mapping[str, str]) -> Run:
    answer = ask("measure", subjects, options, env, traced=True)
    run = Run.from_dict({**answer.value, "warnings": answer.warnings})
    return replace(run, trace=answer.trace)
