"""Fresh worker processes: a request goes in, an answer comes out, the machine is watched."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convexport.benchmarks.meter import LatencyOptions, planned_s
from convexport.benchmarks.recording import Subject
from convexport.benchmarks.redaction import without_homes
from convexport.benchmarks.trace import Sampler, Trace
from convexport.runtime.children import run_child
from convexport.runtime.errors import MachineError, rebuilt

# With -P the current folder is not searched for modules.
_WORKER = (sys.executable, "-P", "-m", "convexport.benchmarks.worker")
# Variables that change threads, memory or numbers behind our back.
_ODD = (
    "DNNL_", "GOMP_", "KMP_", "MALLOC_", "MKL_", "OMP_", "ONEDNN_", "OPENBLAS_", "OPENVINO_",
    "ORT_", "OV_", "PYTHONDEV", "PYTHONMALLOC", "PYTHONTRACEMALLOC", "PYTHONPROFILE",
    "PYTHONWARN", "TBB_",
)  # fmt: skip
CPUS = frozenset({"CPU", "CPUExecutionProvider"})


@dataclass(frozen=True)
class Answer:
    """What a worker answered.

    Attributes:
        value: of its job.
        warnings: what it wrote to stderr.
        trace: of the machine while it measured; None where nobody watched.
    """

    value: dict[str, Any]
    warnings: list[str]
    trace: Trace | None


def ask(
    job: str,
    subjects: Sequence[Subject],
    options: LatencyOptions,
    env: Mapping[str, str],
    *,
    traced: bool = False,
    extra: Mapping[str, Any] | None = None,
) -> Answer:
    """The answer of a fresh worker.

    Args:
        job: one of the worker's.
        subjects: what to load.
        options: how to measure; it may take ``timeout_s`` longer than they plan.
        env: the worker's environment.
        traced: watch the machine meanwhile.
        extra: what else the job needs, as JSON.

    Raises:
        ConvexportError: what the worker met.
        MachineError: E0410 or E0411, it crashed or hung; E0462, it gave no answer.
    """
    request = {
        "job": job,
        "subjects": [subject.to_dict(paths=True) for subject in subjects],
        "options": options.to_dict(),
        "extra": extra or {},
    }
    timeout_s = options.timeout_s + max(1, len(subjects)) * planned_s(options)
    with Sampler(gpu=any(each.provider not in CPUS for each in subjects)) as sampler:
        started = sampler.start if traced else _unwatched
        stdout, stderr = run_child(
            _WORKER, json.dumps(request).encode(), timeout_s=timeout_s, env=env, started=started
        )
    try:
        answer = json.loads(stdout)
    except ValueError as error:
        why = "\n".join(stderr)
        raise MachineError("E0462", "a measuring process gave no answer", why=why) from error
    if "error" in answer:
        raise rebuilt(answer["error"])
    trace = sampler.trace(*answer["span_ns"]) if traced else None
    return Answer(answer["ok"], [without_homes(line) for line in stderr], trace)


def environment() -> tuple[dict[str, str], tuple[str, ...]]:
    """Our variables without the odd ones, and the names of those."""
    dropped = tuple(sorted(name for name in os.environ if name.startswith(_ODD)))
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    # numpy's own threads have no part in this and would only be others' load.
    return {**env, "OPENBLAS_NUM_THREADS": "1"}, dropped


def _unwatched(pid: int) -> None:
    pass
