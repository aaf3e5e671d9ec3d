"""What a latency benchmark records, and nothing that can be computed from it.

A recording is the master: every number of a ``BenchResult`` follows from it, so a stored one is
enough to check a report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convexport.benchmarks.host import Load
from convexport.benchmarks.meter import LatencyOptions
from convexport.benchmarks.samples import ENCODING, Samples
from convexport.benchmarks.stored import known
from convexport.benchmarks.trace import Trace
from convexport.runtime.errors import InputError, UsageError


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One model to measure.

    Attributes:
        label: its name in the result, unlike any other's.
        model: the ``.onnx`` file.
        provider: the execution provider that must run it.
        input_name: of its one input.
        input_shape: of one image, without the batch.
        sha256: of the model file; a file with another hash is refused.
        data: an ``.npy`` file of shape (n, *input_shape) to feed; None feeds seeded noise.
        runtime: what must load it.
        precision: of the artefact.
        net: for PyTorch: ``name``, ``classes`` and ``shape`` of the net that ``model`` is the
            state_dict of.
    """

    label: str
    model: Path
    provider: str
    input_name: str
    input_shape: tuple[int, ...]
    sha256: str
    data: Path | None = None
    runtime: str = "onnxruntime"
    precision: str = "fp32"
    net: Mapping[str, Any] | None = None

    def to_dict(self, *, paths: bool = False) -> dict[str, Any]:
        """As JSON; of files only the names, unless ``paths``."""
        files = {"model": self.model, "data": self.data}
        names = {
            key: path and (str(path.absolute()) if paths else path.name)
            for key, path in files.items()
        }
        return {**asdict(self), **names, "input_shape": list(self.input_shape)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Subject:
        """The inverse of ``to_dict``."""
        files = {"model": Path(data["model"]), "data": data["data"] and Path(data["data"])}
        return cls(**{**known(cls, data), **files, "input_shape": tuple(data["input_shape"])})


@dataclass(frozen=True)
class ModelRun:
    """One model in one process. ``load_ms`` is with the file in the page cache."""

    load_ms: float
    runtime: str
    provider: str
    samples: Samples

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "load_ms": self.load_ms,
            "runtime": self.runtime,
            "provider": self.provider,
            "samples": self.samples.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelRun:
        """The inverse of ``to_dict``."""
        return cls(**{**known(cls, data), "samples": Samples.from_dict(data["samples"])})


@dataclass(frozen=True)
class Run:
    """One fresh process: its models by label, and what the meter reads for an empty call.

    ``trace`` is what the machine did meanwhile; None where nobody watched.
    """

    models: Mapping[str, ModelRun]
    floor_ns: float
    warnings: tuple[str, ...] = ()
    trace: Trace | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "models": {label: model.to_dict() for label, model in self.models.items()},
            "floor_ns": self.floor_ns,
            "warnings": list(self.warnings),
            "trace": self.trace and self.trace.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Run:
        """The inverse of ``to_dict``."""
        models = {label: ModelRun.from_dict(model) for label, model in data["models"].items()}
        watched = data.get("trace")
        trace = None if watched is None else Trace.from_dict(watched)
        return cls(models, float(data["floor_ns"]), tuple(data["warnings"]), trace)


@dataclass(frozen=True)
class Memory:
    """The largest resident set (VmHWM) of a fresh process that runs one model alone, in bytes.

    ``baseline`` is the same just before the model is loaded: Python, numpy and the runtime.
    None where the system does not tell.
    """

    peak: int | None
    baseline: int | None


@dataclass(frozen=True)
class Recording:
    """All that was recorded; the first subject is the one to compare against."""

    subjects: tuple[Subject, ...]
    options: LatencyOptions
    runs: tuple[Run, ...]
    memory: Mapping[str, Memory]
    load: Load
    host: Mapping[str, Any]
    dropped_variables: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "encoding": ENCODING,
            "subjects": [subject.to_dict() for subject in self.subjects],
            "options": self.options.to_dict(),
            "runs": [run.to_dict() for run in self.runs],
            "memory": {label: asdict(memory) for label, memory in self.memory.items()},
            "load": self.load.to_dict(),
            "host": dict(self.host),
            "dropped_variables": list(self.dropped_variables),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recording:
        """The inverse of ``to_dict``, but for the folders of the files.

        Raises:
            InputError: E0361, this is not a recording.
        """
        try:
            if data["encoding"] != ENCODING:
                raise ValueError(f"unknown encoding {data['encoding']!r}")
            recording = cls(
                subjects=tuple(Subject.from_dict(subject) for subject in data["subjects"]),
                options=LatencyOptions(**known(LatencyOptions, data["options"])),
                runs=tuple(Run.from_dict(run) for run in data["runs"]),
                memory={
                    label: Memory(**known(Memory, each)) for label, each in data["memory"].items()
                },
                load=Load(**known(Load, data["load"])),
                host=dict(data["host"]),
                dropped_variables=tuple(data["dropped_variables"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError, UsageError) as error:
            raise InputError("E0361", f"this is not a recording: {error!r}") from error
        labels = {subject.label for subject in recording.subjects}
        rows = [run.models for run in recording.runs] + [recording.memory]
        if not labels or not recording.runs or any(set(row) != labels for row in rows):
            raise InputError("E0361", "a recording lacks some of its subjects")
        return recording
