"""Load a bundle and run it: numpy in, numpy out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Iterable, List, Sequence, Tuple, Union

import numpy as np

from convexport.runtime.batches import run_in_batches
from convexport.runtime.bundle import (
    LABELS,
    Manifest,
    read_golden,
    read_labels,
    read_manifest,
    verify_files,
)
from convexport.runtime.cpu import cpu_flags, integer_kernels
from convexport.runtime.errors import GateError, InputError
from convexport.runtime.preprocess import preprocess
from convexport.runtime.sessions import Session, open_session
from convexport.runtime.specs import TensorSpec

Classified = List[Tuple[str, float]]


class Engine:
    """A loaded bundle. It keeps no state between calls, so threads may share it.

    Attributes:
        manifest: what the bundle says of itself.
        labels: one a class.
        runner: the session behind it.
    """

    def __init__(self, manifest: Manifest, labels: Tuple[str, ...], runner: Session) -> None:
        self.manifest = manifest
        self.labels = labels
        self.runner = runner

    @property
    def has_labels(self) -> bool:
        """Whether the classes have names of their own."""
        return LABELS in self.manifest.files

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Logits (N, classes) for a float32 batch as ``manifest.input`` says.

        Raises:
            UsageError: E0201, the shape or dtype is another.
        """
        output = self.runner.run({self.manifest.input.name: batch})
        return output[self.manifest.output.name]

    def classify(self, images: Iterable[Union[str, Path, bytes]], top: int = 5) -> List[Classified]:
        """The most probable labels of each image, given as a path or as an encoded file's bytes.

        Raises:
            InputError: an image cannot be used.
        """
        return [self._classify(image, top) for image in images]

    def _classify(self, image: Union[str, Path, bytes], top: int) -> Classified:
        source = Path(image) if isinstance(image, str) else image
        pixels = preprocess(source, self.manifest.preprocess)
        return self.answer(run_in_batches(self.runner, pixels[None])[0], top)

    def answer(self, logits: np.ndarray, top: int = 5) -> Classified:
        """The most probable labels, from one image's output (classes,)."""
        probabilities = logits
        if self.manifest.output_kind == "logits":
            exponents = np.exp(logits - logits.max())
            probabilities = exponents / exponents.sum()
        best = np.argsort(-probabilities, kind="stable")[:top]
        return [(self.labels[index], float(probabilities[index])) for index in best]

    def self_test(self, bundle: Path) -> float:
        """Run the golden sample; how far the output is off, relative to its largest magnitude.

        Raises:
            InputError: E0308, the sample cannot be used.
            GateError: E0500, farther than the manifest allows.
        """
        sample, expected = read_golden(bundle, self.manifest)
        actual = self(sample)
        error = float(np.abs(actual - expected).max() / np.abs(expected).max())
        if not error <= self.manifest.golden_tolerance:
            raise GateError(
                "E0500",
                f"the golden sample's output is off by {error:.2g} of its largest value",
                where=str(bundle),
                why=f"{self.manifest.golden_tolerance:g} is allowed: "
                "this machine computes something else than the one that built the bundle",
                hint="convexport verify BUNDLE; build again on a machine like this one",
            )
        return error


def _compare_units(manifest: Manifest) -> None:
    """Say so where INT8 runs on other units than those that it was checked on."""
    checked, here = manifest.data.get("checked_on"), integer_kernels(cpu_flags())
    if checked is not None and checked != here:
        warnings.warn(
            f"{manifest.name} was checked on {checked}, and this is {here}: INT8 may compute and "
            "cost something else. Run convexport verify and convexport bench on this machine",
            stacklevel=3,
        )


def _same(found: Sequence[TensorSpec], told: TensorSpec) -> bool:
    """Whether that is the only tensor; what a free dimension is called is up to the runtime."""
    shapes = ([dim if isinstance(dim, int) else "" for dim in s.shape] for s in (*found, told))
    kinds = {(s.name, s.dtype, *shape) for s, shape in zip((*found, told), shapes)}
    return len(found) == 1 and len(kinds) == 1


def _require_told(manifest: Manifest, session: Session, model: Path) -> None:
    told = (manifest.input, manifest.output)
    if not all(map(_same, (session.inputs, session.outputs), told)):
        raise InputError(
            "E0315",
            "the model does not take and give what the manifest says",
            where=str(model),
            hint="build the bundle again",
        )


def load(
    bundle: Union[str, Path],
    *,
    threads: int = 0,
    self_test: bool = True,
    spin: bool = True,
    cuda_graph: bool = False,
) -> Engine:
    """Load a bundle: hashes verified, runtime as the manifest says, golden sample run.

    Warns where INT8 meets another kind of CPU than the one that it was checked on.

    Args:
        bundle: its directory.
        threads: intra-op threads; 0 lets the runtime choose.
        self_test: run the golden sample once.
        spin: whether ONNX Runtime's idle threads spin between runs.
        cuda_graph: record TensorRT's launches and replay them: less work for the CPU.

    Raises:
        InputError: the bundle is incomplete or was changed.
        MachineError: the runtime, its provider or the CPU's units for it are not there.
        UsageError: E0207, another runtime than TensorRT is to record.
        UnsupportedError: E0600, the bundle is for a runtime that this version cannot load.
        GateError: E0500, the golden sample's output is not what it was.
    """
    directory = Path(bundle)
    manifest = read_manifest(directory)
    verify_files(directory, manifest)
    session = open_session(
        directory / manifest.model,
        runtime=manifest.runtime,
        provider=manifest.provider,
        precision=manifest.precision,
        threads=threads,
        spin=spin,
        cuda_graph=cuda_graph,
    )
    _require_told(manifest, session, directory / manifest.model)
    _compare_units(manifest)
    engine = Engine(manifest, read_labels(directory, manifest), session)
    if self_test:
        engine.self_test(directory)
    return engine
