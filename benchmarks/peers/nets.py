"""What all tools are given: the simplified FP32 file of a net, and images as it takes them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convexport.benchmarks.torch_baseline import torch_subject
from convexport.calibration.digits import digits
from convexport.calibration.images import ImageSet
from convexport.calibration.photographs import photographs
from convexport.runtime.bundle import Manifest, read_manifest


@dataclass(frozen=True)
class Images:
    """An array of images, see ``arrays``, and how many they are."""

    path: Path
    count: int


@dataclass(frozen=True)
class Net:
    """One net in the working directory.

    Attributes:
        name: of the zoo, with the kind of its weights where they are not random.
        directory: its own.
        weights: as ``convexport build --weights`` takes them.
    """

    name: str
    directory: Path
    weights: str

    @property
    def manifest(self) -> Manifest:
        """Of the FP32 bundle."""
        return read_manifest(self.directory / "bundle")

    @property
    def model(self) -> Path:
        """The simplified FP32 file."""
        return self.directory / "bundle" / self.manifest.model

    def torch_weights(self) -> Path:
        """The net for PyTorch: its state_dict, and beside it what makes the module anew."""
        path = self.directory / "torch.pt"
        facts = path.with_suffix(".json")
        if not facts.exists():
            subject = torch_subject(
                self.manifest,
                "torch",
                cache_dir=self.directory,
                scratch=self.directory,
            )
            facts.write_text(json.dumps(subject.net))
        return path

    def images(self, purpose: str, count: int) -> Images:
        """``calibration`` images, or other ones for ``evaluation``.

        Digits for nets that were trained on them, and not more than their split has.
        """
        path = self.directory / f"{purpose}-{count}.npy"
        if not path.exists():
            _write(path, _chosen(self.weights, purpose, count), self.manifest)
        return Images(path, len(np.load(path, mmap_mode="r")))


def prepare(name: str, weights: str, work: Path, say: Callable[[str], None]) -> Net:
    """Build the FP32 bundle of a net, unless it stands there.

    Raises:
        SystemExit: the build failed.
    """
    label = name if weights == "random" else f"{name} ({weights})"
    net = Net(label, work / f"{name}-{weights.replace(':', '-')}", weights)
    bundle = net.directory / "bundle"
    if not (bundle / "manifest.json").exists():
        say(f"{label}: building the FP32 file")
        net.directory.mkdir(parents=True, exist_ok=True)
        options = ("--fp32", "--bench-seconds", "0", "--parity-images", "16", "--offline")
        command = ["build", name, "--weights", weights, *options, "-o", str(bundle)]
        done = subprocess.run([sys.executable, "-m", "convexport", *command], check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
    return net


def _chosen(weights: str, purpose: str, count: int) -> ImageSet:
    calibrating = purpose == "calibration"
    if weights == "digits":
        return digits("calibration" if calibrating else "test").sample(count)
    return photographs("calibration" if calibrating else "parity", count)


def _write(path: Path, images: ImageSet, manifest: Manifest) -> None:
    """A batch at a time, and under its name only when it is whole."""
    spec, part = manifest.preprocess, path.with_suffix(".part")
    array = np.lib.format.open_memmap(part, "w+", np.float32, (len(images), *spec.shape))
    done = 0
    for batch in images.batches(spec, 64, on_bad="fail"):
        array[done : done + len(batch.array)] = batch.array
        done += len(batch.array)
    array.flush()
    del array
    part.rename(path)
