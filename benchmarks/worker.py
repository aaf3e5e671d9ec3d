"""One fresh measuring process: ``python -m convexport.benchmarks.worker``.

It reads one JSON request on stdin and writes one JSON answer on stdout. The jobs are

    measure   load all subjects and measure them side by side    -> Run
    inputs    what one subject takes                            -> TensorSpec each
    memory    load one subject alone and run it a few times      -> Memory
    stream    one subject in a scenario                          -> Stream
    search    the rate or the batch that a scenario is run at
    batches   one subject at several batches                     -> Stream each
    parts     a bundle, from an image file to its answer
    soak      one subject, for long

An error of ours travels in the answer; anything else ends the process with a traceback.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from convexport.benchmarks.batches import batches_job
from convexport.benchmarks.loading import Span, import_runtimes, load, load_alone
from convexport.benchmarks.meter import LatencyOptions, measure, overhead_ns
from convexport.benchmarks.parts import parts_job
from convexport.benchmarks.recording import Memory, ModelRun, Run, Subject
from convexport.benchmarks.scenario_jobs import search_job, stream_job
from convexport.benchmarks.soak import soak_job
from convexport.runtime.children import answer

_MEMORY_CALLS = 10


def main() -> None:
    """Answer one request."""
    answer(_answered)


def _answered(request: Mapping[str, Any]) -> dict[str, Any]:
    subjects = [Subject.from_dict(subject) for subject in request["subjects"]]
    options = LatencyOptions(**request["options"])
    span = Span()
    value = _JOBS[request["job"]](subjects, options, span, **request.get("extra", {}))
    return {"ok": value, "span_ns": [span.begin_ns, time.perf_counter_ns()]}


def _measure(subjects: list[Subject], options: LatencyOptions, span: Span) -> dict[str, Any]:
    import_runtimes(subjects)
    # Whoever loads first grows the heap for the others.
    random.Random(options.seed).shuffle(subjects)
    loaded = {subject.label: load(subject, options) for subject in subjects}
    calls = {label: each.call(options.batch) for label, each in loaded.items()}
    samples = measure(calls, options, begun=span.begin)
    models = {
        label: ModelRun(each.load_ms, each.session.runtime, each.session.provider, samples[label])
        for label, each in loaded.items()
    }
    return Run(models, overhead_ns()).to_dict()


def _inputs(subjects: list[Subject], options: LatencyOptions, span: Span) -> dict[str, Any]:
    return {"inputs": [asdict(spec) for spec in load_alone(subjects, options).session.inputs]}


def _memory(subjects: list[Subject], options: LatencyOptions, span: Span) -> dict[str, Any]:
    import_runtimes(subjects)
    baseline = peak_rss()
    call = load(subjects[0], options).call(options.batch)
    for _ in range(_MEMORY_CALLS):
        call()
    return asdict(Memory(peak_rss(), baseline))


def peak_rss() -> int | None:
    """Bytes that this process held at most; getrusage counts what the parent had at the fork."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return peaks[0] if peaks else None


_JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    "measure": _measure,
    "inputs": _inputs,
    "memory": _memory,
    "stream": stream_job,
    "search": search_job,
    "batches": batches_job,
    "parts": parts_job,
    "soak": soak_job,
}


if __name__ == "__main__":
    main()
