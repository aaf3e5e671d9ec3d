"""The measuring stages of a build: accuracy on the net's own task, and latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convexport.benchmarks.accuracy import paired_accuracy
from convexport.benchmarks.host import describe_host
from convexport.benchmarks.latency import LatencyOptions, Subject, bench
from convexport.exporter.options import Precision
from convexport.exporter.targets import Target
from convexport.runtime.batches import fixed_batch, run_in_batches
from convexport.runtime.files import sha256_of
from convexport.runtime.sessions import Session


@dataclass(frozen=True)
class Entrant:
    """A model file of a stage, as a target runs it in a precision."""

    model: Path
    target: Target
    precision: Precision

    def open(self) -> Session:
        """Loaded as the target will run it."""
        return self.target.open(self.model, self.precision)

    def identity(self) -> dict[str, Any]:
        """What a measurement of it depends on; the stage's directory is named after its key."""
        # Engines of one request differ from build to build.
        own = sha256_of(self.model) if self.model.suffix == ".plan" else None
        return {
            "model": self.model.parent.name,
            "sha256": own,
            "target": asdict(self.target),
            "precision": self.precision,
        }


def accuracy_stage(entrant: Entrant, reference: Path) -> dict[str, Any]:
    """Top-1 of the model and of the reference on the labelled evaluation images, paired."""
    logits = run_in_batches(
        entrant.open(), np.load(reference / "evaluation_inputs.npy", mmap_mode="r")
    )
    expected = np.load(reference / "evaluation_logits.npy")
    labels = np.load(reference / "evaluation_labels.npy")
    return paired_accuracy(expected, logits, labels).to_dict()


def measuring_conditions(seconds: float) -> dict[str, Any]:
    """What a latency depends on beside the model: a figure of another machine is not ours."""
    return {"seconds": seconds, "host": describe_host()}


def latency_stage(
    entrants: Mapping[str, Entrant],
    reference: Path,
    seconds: float,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Latency on all cores, side by side; the first, by label, is the baseline.

    At batch 1, or the one that the model insists on.
    """
    session = next(iter(entrants.values())).open()
    spec = session.inputs[0]
    subjects = [
        Subject(
            label=label,
            model=entrant.model,
            provider=entrant.target.provider,
            input_name=spec.name,
            input_shape=tuple(int(dim) for dim in spec.shape[1:]),
            sha256=sha256_of(entrant.model),
            data=reference / "parity_inputs.npy",
            runtime=entrant.target.runtime,
            precision=entrant.precision,
        )
        for label, entrant in entrants.items()
    ]
    options = LatencyOptions(duration_s=seconds, batch=fixed_batch(session) or 1)
    return bench(subjects, options, report=report).to_dict()
