"""Latency of models, side by side, over fresh processes.

Host to host and closed loop: one stream calls a session's ``run`` with numpy in and numpy out,
the next call starts when the last has ended. Decoding and preprocessing are not in it. Each
process loads every model and measures them interleaved (see ``meter``); the processes differ by
their seed. Peak memory comes from one more process a model, which runs that model alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from convexport.benchmarks.host import describe_host, load_between, load_snapshot
from convexport.benchmarks.latency_result import BenchResult, evaluate
from convexport.benchmarks.meter import LatencyOptions, measure, overhead_ns, planned_s
from convexport.benchmarks.recording import Memory, Recording, Run, Subject
from convexport.benchmarks.samples import Samples, Warmup
from convexport.runtime.children import run_child
from convexport.runtime.errors import MachineError, UsageError, rebuilt

__all__ = [
    "BenchResult",
    "LatencyOptions",
    "Samples",
    "Subject",
    "Warmup",
    "bench",
    "evaluate",
    "measure",
    "overhead_ns",
]

# With -P the current folder is not searched for modules.
_WORKER = (sys.executable, "-P", "-m", "convexport.benchmarks.worker")
# Variables that change threads, memory or numbers behind our back.
_ODD = (
    "DNNL_", "GOMP_", "KMP_", "MALLOC_", "MKL_", "OMP_", "ONEDNN_", "OPENBLAS_", "OPENVINO_",
    "ORT_", "OV_", "PYTHONDEV", "PYTHONMALLOC", "PYTHONTRACEMALLOC", "PYTHONPROFILE",
    "PYTHONWARN", "TBB_",
)  # fmt: skip


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
    env, dropped = _environment()
    runs = []
    before = load_snapshot()
    for index in range(options.processes):
        report(f"process {index + 1} of {options.processes}: measuring {', '.join(labels)}")
        runs.append(_run(subjects, _share(options, index), env))
    load = load_between(before, load_snapshot())
    report("peak memory: one process a model")
    memory = {
        subject.label: Memory(**_ask("memory", [subject], options, env)[0]) for subject in subjects
    }
    return evaluate(
        Recording(tuple(subjects), options, tuple(runs), memory, load, describe_host(), dropped)
    )


def _share(options: LatencyOptions, index: int) -> LatencyOptions:
    """What one process does of the whole."""
    return replace(
        options,
        duration_s=options.duration_s / options.processes,
        seed=options.seed + index,
        processes=1,
    )


def _run(subjects: Sequence[Subject], options: LatencyOptions, env: dict[str, str]) -> Run:
    answer, stderr = _ask("measure", subjects, options, env)
    home = str(Path.home())
    warnings = [line.replace(home, "~") for line in stderr]
    return Run.from_dict({**answer, "warnings": warnings})


def _ask(
    job: str, subjects: Sequence[Subject], options: LatencyOptions, env: dict[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """The answer of a fresh worker, and what it wrote to stderr."""
    request = {
        "job": job,
        "subjects": [subject.to_dict(paths=True) for subject in subjects],
        "options": options.to_dict(),
    }
    timeout_s = options.timeout_s + len(subjects) * planned_s(options)
    stdout, stderr = run_child(_WORKER, json.dumps(request).encode(), timeout_s=timeout_s, env=env)
    try:
        answer = json.loads(stdout)
    except ValueError as error:
        raise MachineError(
            "E0462", "a measuring process gave no answer", why="\n".join(stderr)
        ) from error
    if "error" in answer:
        raise rebuilt(answer["error"])
    return answer["ok"], stderr


def _environment() -> tuple[dict[str, str], tuple[str, ...]]:
    """Our variables without the odd ones, and the names of those."""
    dropped = tuple(sorted(name for name in os.environ if name.startswith(_ODD)))
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    # numpy's own threads have no part in this and would only be others' load.
    return {**env, "OPENBLAS_NUM_THREADS": "1"}, dropped
