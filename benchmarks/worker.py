"""One fresh measuring process: ``python -m convexport.benchmarks.worker``.

It reads one JSON request on stdin and writes one JSON answer on stdout. The jobs are

    measure   load all subjects and measure them side by side    -> Run
    memory    load one subject alone and run it a few times      -> Memory

An error of ours travels in the answer; anything else ends the process with a traceback.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convexport.benchmarks.meter import Call, LatencyOptions, measure, overhead_ns
from convexport.benchmarks.recording import Memory, ModelRun, Run, Subject
from convexport.runtime.errors import ConvexportError, InputError
from convexport.runtime.files import sha256_of
from convexport.runtime.sessions import Session, open_session, require_runtime

_MEMORY_CALLS = 10


@dataclass
class Span:
    """When the measuring began, after loading and warm-up, in ``time.perf_counter_ns``."""

    begin_ns: int = 0

    def begin(self, ns: int) -> None:
        """It begins."""
        self.begin_ns = ns


def main() -> None:
    """Answer one request."""
    answer = os.dup(1)
    # What a native library prints would spoil the answer: it goes to stderr instead.
    os.dup2(2, 1)
    request = json.loads(sys.stdin.buffer.read())
    subjects = [Subject.from_dict(subject) for subject in request["subjects"]]
    options = LatencyOptions(**request["options"])
    span = Span()
    try:
        job = _JOBS[request["job"]]
        value: dict[str, Any] = {"ok": job(subjects, options, span, **request.get("extra", {}))}
        value["span_ns"] = [span.begin_ns, time.perf_counter_ns()]
    except ConvexportError as error:
        value = {"error": {"kind": type(error).__name__, **error.to_dict()}}
    with os.fdopen(answer, "wb") as stdout:
        stdout.write(json.dumps(value, allow_nan=False).encode())


def _measure(subjects: list[Subject], options: LatencyOptions, span: Span) -> dict[str, Any]:
    _import_runtimes(subjects)
    # Whoever loads first grows the heap for the others.
    random.Random(options.seed).shuffle(subjects)
    loaded = {subject.label: _load(subject, options) for subject in subjects}
    calls = {label: call for label, (_, _, call) in loaded.items()}
    samples = measure(calls, options, begun=span.begin)
    models = {
        label: ModelRun(load_ms, session.runtime, session.provider, samples[label])
        for label, (session, load_ms, _) in loaded.items()
    }
    return Run(models, overhead_ns()).to_dict()


def _memory(subjects: list[Subject], options: LatencyOptions, span: Span) -> dict[str, Any]:
    _import_runtimes(subjects)
    baseline = _peak_rss()
    _, _, call = _load(subjects[0], options)
    for _ in range(_MEMORY_CALLS):
        call()
    return asdict(Memory(_peak_rss(), baseline))


def _import_runtimes(subjects: list[Subject]) -> None:
    """So that no model pays for it."""
    for subject in subjects:
        require_runtime(subject.runtime, subject.provider)


_JOBS = {"measure": _measure, "memory": _memory}


def _load(subject: Subject, options: LatencyOptions) -> tuple[Session, float, Call]:
    """The session, how long loading took in ms, and a call of it."""
    _require_hash(subject)
    start = time.perf_counter()
    session = open_session(
        subject.model,
        runtime=subject.runtime,
        provider=subject.provider,
        precision=subject.precision,
        threads=options.threads,
    )
    load_ms = (time.perf_counter() - start) * 1e3
    feed = {subject.input_name: _images(subject, session, options)}
    return session, load_ms, lambda: session.run(feed)


def _require_hash(subject: Subject) -> None:
    try:
        found = sha256_of(subject.model)
    except OSError as error:
        raise InputError(
            "E0362", f"cannot read the model: {error.strerror}", where=str(subject.model)
        ) from error
    if found != subject.sha256:
        raise InputError(
            "E0363",
            f"{subject.label}: the model file is not the one that was asked for",
            where=f"{subject.model}: sha256 {found[:16]}, asked for {subject.sha256[:16]}",
        )


def _images(subject: Subject, session: Session, options: LatencyOptions) -> npt.NDArray[np.generic]:
    """(batch, *input_shape) in the dtype of the model: the data in turn, or seeded noise.

    Noise is normal, as normalised pixels are, and uniform over 0..255 for whole numbers: never
    zeros, for which kernels and denormals are not those of a picture.
    """
    shape = (options.batch, *subject.input_shape)
    dtypes = {spec.name: spec.dtype for spec in session.inputs}
    dtype = np.dtype(dtypes.get(subject.input_name, "float32"))
    if subject.data is not None:
        images = _read_images(subject.data, subject.input_shape)
        return images[np.arange(options.batch) % len(images)].astype(dtype)
    rng = np.random.default_rng(options.seed)
    if dtype.kind in "iu":
        return rng.integers(0, 256, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def _read_images(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
    try:
        images = np.load(path, allow_pickle=False)
        if images.shape[1:] != shape or len(images) == 0:
            raise ValueError(f"shape {images.shape}, expected (n, {', '.join(map(str, shape))})")
    except (OSError, ValueError) as error:
        raise InputError("E0364", f"cannot feed these images: {error}", where=str(path)) from error
    array: npt.NDArray[np.generic] = images
    return array


def _peak_rss() -> int | None:
    """VmHWM: getrusage would count what the parent had when it forked."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return peaks[0] if peaks else None


if __name__ == "__main__":
    main()
