"""The measuring stages of a build: accuracy on the net's own task, and latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convexport.benchmarks.accuracy import paired_accuracy
from convexport.benchmarks.host import describe_host
from convexport.benchmarks.latency import LatencyOptions, Subject, bench
from convexport.exporter.targets import Target
from convexport.runtime.batches import run_in_batches
from convexport.runtime.files import sha256_of
from convexport.runtime.ort_session import OrtSession


def accuracy_stage(model: Path, reference: Path, target: Target) -> dict[str, Any]:
    """Top-1 of the model and of the reference on the labelled evaluation images, paired."""
    logits = run_in_batches(
        OrtSession(model, provider=target.provider),
        np.load(reference / "evaluation_inputs.npy", mmap_mode="r"),
    )
    expected = np.load(reference / "evaluation_logits.npy")
    labels = np.load(reference / "evaluation_labels.npy")
    return paired_accuracy(expected, logits, labels).to_dict()


def measuring_conditions(seconds: float) -> dict[str, Any]:
    """What a latency depends on beside the model: a figure of another machine is not ours."""
    return {"seconds": seconds, "host": describe_host()}


def latency_stage(
    files: Mapping[str, Path],
    reference: Path,
    target: Target,
    seconds: float,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Latency at batch 1 on all cores of each file; the first is the baseline."""
    spec = OrtSession(next(iter(files.values())), provider=target.provider).inputs[0]
    subjects = [
        Subject(
            label=label,
            model=path,
            provider=target.provider,
            input_name=spec.name,
            input_shape=tuple(int(dim) for dim in spec.shape[1:]),
            sha256=sha256_of(path),
            data=reference / "parity_inputs.npy",
        )
        for label, path in files.items()
    ]
    options = LatencyOptions(duration_s=seconds)
    return bench(subjects, options, report=report).to_dict()
