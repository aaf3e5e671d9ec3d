"""Where the time of one answer goes: decoding a file, preprocessing, computing, answering.

The latency of a model leaves out what an application pays as well. Here each part of
``Engine.classify`` is timed on its own, on a photograph as a camera would hand it over.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convexport.benchmarks.bundle_subjects import subject_of
from convexport.benchmarks.host import affinity, load_between, load_snapshot
from convexport.benchmarks.latency import share_of
from convexport.benchmarks.loading import Span
from convexport.benchmarks.meter import LatencyOptions, collector_off, warm_up
from convexport.benchmarks.recording import Subject
from convexport.benchmarks.samples import Nanoseconds, pack, unpack
from convexport.benchmarks.statistics import percentile
from convexport.benchmarks.watch import Watch, watch_of, watched
from convexport.benchmarks.workers import ask, environment
from convexport.calibration.photographs import photograph_file
from convexport.runtime.batches import run_in_batches
from convexport.runtime.bundle import read_manifest
from convexport.runtime.engine import Engine, load
from convexport.runtime.preprocess import decode, to_array

PARTS = ("decode", "preprocess", "compute", "postprocess")
IMAGE = "scikit-learn's china.jpg, a JPEG of 640 x 427, one image a call"
_MS = 1e6
_LEAST = 20


@dataclass(frozen=True, eq=False)
class Parts:
    """What was seen of each part.

    Attributes:
        samples: nanoseconds, (n,) a part; entry i of all of them is one answer.
        watch: over the machine and the warm-ups; None in what an older version stored.
    """

    samples: Mapping[str, Nanoseconds]
    watch: Watch | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON: the medians with their intervals, of the sum too, and the raw samples."""
        columns = {**self.samples, "sum": np.sum([self.samples[name] for name in PARTS], axis=0)}
        medians = {
            f"{name}_ms": percentile(column / _MS, 50).to_dict() for name, column in columns.items()
        }
        packed = {name: pack(column) for name, column in self.samples.items()}
        return {**medians, "image": IMAGE, "samples_ns": packed, **watched(self.watch)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Parts:
        """The inverse of ``to_dict``; the medians are computed again.

        Raises:
            InputError: E0360, an array cannot be unpacked.
        """
        return cls({name: unpack(data["samples_ns"][name]) for name in PARTS}, watch_of(data))


def measure_parts(bundle: Path, options: LatencyOptions) -> Parts:
    """Time the parts of a bundle's answer in fresh processes, ``duration_s`` over all of them.

    Raises:
        InputError, MachineError, GateError: as ``engine.load``.
    """
    env, _ = environment()
    extra = {"bundle": str(bundle.absolute())}
    before = load_snapshot()
    subjects = [subject_of(bundle, read_manifest(bundle))]
    answers = [
        ask("parts", subjects, share_of(options, index), env, traced=True, extra=extra)
        for index in range(options.processes)
    ]
    watch = Watch(
        load=load_between(before, load_snapshot()),
        cpus=affinity(),
        provider=answers[0].value["provider"],
        traces=tuple(each.trace for each in answers),
        settled=tuple(each.value["settled"] for each in answers),
    )
    columns = {
        name: np.concatenate([unpack(each.value[name]) for each in answers]) for name in PARTS
    }
    return Parts(columns, watch)


def parts_job(
    subjects: list[Subject], options: LatencyOptions, span: Span, *, bundle: str
) -> dict[str, Any]:
    """In a worker: answer the same image again and again."""
    engine = load(bundle, threads=options.threads)
    content = photograph_file().read_bytes()
    rows: list[tuple[int, ...]] = []
    with collector_off():
        warmup, _ = warm_up(lambda: timed_answer(engine, content), options)
        span.begin(time.perf_counter_ns())
        end = time.perf_counter() + options.duration_s
        while len(rows) < _LEAST or time.perf_counter() < end:
            rows.append(timed_answer(engine, content))
    columns = np.array(rows, dtype=np.int64).T
    found = {name: pack(column) for name, column in zip(PARTS, columns, strict=True)}
    return {**found, "provider": engine.runner.provider, "settled": warmup.settled}


def timed_answer(engine: Engine, content: bytes) -> tuple[int, ...]:
    """The nanoseconds of each of PARTS, for one answer to an encoded image."""
    spec, clock = engine.manifest.preprocess, time.perf_counter_ns
    times = [clock()]
    image = decode(content, spec).image
    times.append(clock())
    pixels = to_array(image, spec)
    times.append(clock())
    logits = run_in_batches(engine.runner, pixels[None])[0]
    times.append(clock())
    engine.answer(logits)
    times.append(clock())
    return tuple(int(step) for step in np.diff(times))
