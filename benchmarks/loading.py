"""A subject in its worker: loaded by the runtime that it names, and fed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convexport.benchmarks.meter import Call, LatencyOptions
from convexport.benchmarks.recording import Subject
from convexport.benchmarks.torch_session import TorchSession, require_torch
from convexport.runtime.batches import fixed_batch
from convexport.runtime.errors import InputError
from convexport.runtime.files import sha256_of
from convexport.runtime.sessions import Session, open_session, require_runtime


@dataclass
class Span:
    """When the measuring began, after loading and warm-up, in ``time.perf_counter_ns``."""

    begin_ns: int = 0

    def begin(self, ns: int) -> None:
        """It begins."""
        self.begin_ns = ns


@dataclass(frozen=True)
class Loaded:
    """A subject that runs.

    Attributes:
        session: that runs it.
        load_ms: how long loading took.
        images: n -> (n, *input_shape) to feed.
        input_name: of its one input.
    """

    session: Session
    load_ms: float
    images: Callable[[int], npt.NDArray[np.generic]]
    input_name: str

    def call(self, batch: int) -> Call:
        """A call with that many images, always the same ones."""
        feed = {self.input_name: self.images(batch)}
        return lambda: self.session.run(feed)

    @property
    def fixed_batch(self) -> int | None:
        """The batch that the model insists on."""
        return fixed_batch(self.session)

    @property
    def largest_batch(self) -> int | None:
        """The largest batch that an engine was built for; None where there is no such limit."""
        largest: int | None = getattr(self.session, "max_batch", None)
        return largest


def import_runtimes(subjects: Sequence[Subject]) -> None:
    """So that no model pays for it."""
    for subject in subjects:
        if subject.net is None:
            require_runtime(subject.runtime, subject.provider)
        else:
            require_torch(subject.runtime)


def load(subject: Subject, options: LatencyOptions) -> Loaded:
    """Load a subject; of the options ``threads`` and ``seed`` are used.

    Raises:
        InputError: E0362 or E0363, the file cannot be read or is another; E0303, not be loaded.
        MachineError: its runtime or provider is not here.
    """
    _require_hash(subject)
    start = time.perf_counter()
    session = _open(subject, options.threads)
    load_ms = (time.perf_counter() - start) * 1e3
    return Loaded(
        session,
        load_ms,
        lambda batch: _images(subject, session, batch, options.seed),
        subject.input_name,
    )


def load_alone(subjects: Sequence[Subject], options: LatencyOptions) -> Loaded:
    """The only subject of a job; see ``load``."""
    import_runtimes(subjects)
    return load(subjects[0], options)


def _open(subject: Subject, threads: int) -> Session:
    if subject.net is not None:
        return TorchSession(subject.model, subject.net, runtime=subject.runtime, threads=threads)
    return open_session(
        subject.model,
        runtime=subject.runtime,
        provider=subject.provider,
        precision=subject.precision,
        threads=threads,
    )


def hash_of(model: Path) -> str:
    """The SHA-256 of a model file.

    Raises:
        InputError: E0362, it cannot be read.
    """
    try:
        return sha256_of(model)
    except OSError as error:
        what = f"cannot read the model: {error.strerror}"
        raise InputError("E0362", what, where=str(model)) from error


def _require_hash(subject: Subject) -> None:
    found = hash_of(subject.model)
    if found != subject.sha256:
        raise InputError(
            "E0363",
            f"{subject.label}: the model file is not the one that was asked for",
            where=f"{subject.model}: sha256 {found[:16]}, asked for {subject.sha256[:16]}",
        )


def _images(subject: Subject, session: Session, batch: int, seed: int) -> npt.NDArray[np.generic]:
    """(batch, *input_shape) in the dtype of the model: the data in turn, or seeded noise.

    Noise is normal, as normalised pixels are, and uniform over 0..255 for whole numbers: never
    zeros, for which kernels and denormals are not those of a picture.
    """
    shape = (batch, *subject.input_shape)
    dtypes = {spec.name: spec.dtype for spec in session.inputs}
    dtype = np.dtype(dtypes.get(subject.input_name, "float32"))
    if subject.data is not None:
        images = _read_images(subject.data, subject.input_shape)
        return images[np.arange(batch) % len(images)].astype(dtype)
    rng = np.random.default_rng(seed)
    if dtype.kind in "iu":
        return rng.integers(0, 256, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def _read_images(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
    try:
        # Of many images those of one batch alone are to be in memory.
        images = np.load(path, allow_pickle=False, mmap_mode="r")
        if images.shape[1:] != shape or len(images) == 0:
            raise ValueError(f"shape {images.shape}, expected (n, {', '.join(map(str, shape))})")
    except (OSError, ValueError) as error:
        raise InputError("E0364", f"cannot feed these images: {error}", where=str(path)) from error
    return np.asarray(images)
