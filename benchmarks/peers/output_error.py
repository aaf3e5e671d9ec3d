"""``error``: how far each tool's INT8 file is from FP32, on images that it was not calibrated with.

With r_i the FP32 logits of image i and d_i what an INT8 file adds to them,

    signal to noise = 10 log10( sum |r_i|^2 / sum |d_i|^2 )     difference = that of two files

and both get the 95 % percentile interval of a bootstrap over the images, drawn alike for both
files (Efron 1979, Annals of Statistics 7). A few images of great noise decide over sums: beside
them stands what the median image keeps, with the interval of order statistics. Images that are
crops of few photographs resemble each other: the interval is about these crops. Top-1 agreement
with FP32 is a proportion; that of two files on the same images is compared as
``convexport.benchmarks.accuracy`` compares accuracies.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bench_setup import Setup, file_of
from nets import Images, Net
from numpy.typing import NDArray
from runners import RUNTIMES
from tools import ONNX, UNQUANTIZED, Tool

from convexport.benchmarks.accuracy import paired_accuracy
from convexport.benchmarks.statistics import percentile, proportion
from convexport.runtime.files import sha256_of

_RESAMPLES = 10_000
# Images that tell what mere rounding does, of files that are not quantized.
_ROUNDING = 128
_INTERVAL = (0.025, 0.975)

Floats = NDArray[np.float64]
Logits = NDArray[Any]


@dataclass(frozen=True)
class Decibels:
    """A ratio of energies with its 95 % interval; None where there is no noise to divide by."""

    value: float | None
    low: float | None
    high: float | None


def energies(reference: Logits, actual: Logits) -> tuple[Floats, Floats]:
    """|r_i|^2 and |d_i|^2 of each image, from logits (n, classes)."""
    want, have = reference.astype(np.float64), actual.astype(np.float64)
    return (want**2).sum(axis=1), ((have - want) ** 2).sum(axis=1)


def decibels(above: Floats, below: Floats, *, seed: int = 0) -> Decibels:
    """10 log10(sum above / sum below), and its interval over images drawn for both alike."""
    if not above.sum() or not below.sum():
        return Decibels(None, None, None)
    n = len(above)
    times = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), _RESAMPLES)
    with np.errstate(divide="ignore"):
        drawn = 10 * np.log10((times @ above) / (times @ below))
    low, high = np.quantile(drawn, _INTERVAL)
    return Decibels(10 * math.log10(above.sum() / below.sum()), float(low), float(high))


def median_decibels(signal: Floats, noise: Floats) -> Decibels:
    """10 log10(signal / noise) of the median image, and its interval of order statistics."""
    with np.errstate(divide="ignore"):
        median = percentile(10 * np.log10(signal / noise), 50)
    told = (median.value, median.low, median.high)
    return Decibels(*(each if each is not None and math.isfinite(each) else None for each in told))


def compare_outputs(reference: Logits, actual: Logits, first: Logits) -> dict[str, Any]:
    """A file against FP32, and against the first tool's file; above 0 dB it is the better one."""
    signal, noise = energies(reference, actual)
    truth = reference.argmax(axis=1)
    agree = int((actual.argmax(axis=1) == truth).sum())
    paired = paired_accuracy(first, actual, truth)
    return {
        "snr_db": asdict(decibels(signal, noise)),
        "median_db": asdict(median_decibels(signal, noise)),
        "gain_db": asdict(decibels(energies(reference, first)[1], noise)),
        "top1": proportion(agree, len(truth)).to_dict(),
        "gain_pp": {"value": -paired.drop_pp, "low": -paired.high_pp, "high": -paired.low_pp},
    }


def output_error(setup: Setup, nets: Iterable[Net], *, count: int, evaluated: int) -> None:
    """The error of every file in every runtime that it is run by."""
    for net in nets:
        every = _Case(setup, net, count, net.images("evaluation", evaluated))
        few = _Case(setup, net, count, net.images("evaluation", min(evaluated, _ROUNDING)))
        for tool in (*UNQUANTIZED, *setup.tools):
            case = few if tool in UNQUANTIZED else every
            for runtime in tool.runtimes[tool is ONNX :]:  # its first is what all are compared with
                wanted = {"net": net.name, "images": count, "tool": tool.name, "runtime": runtime}
                setup.measured(
                    {"stage": "error", **wanted, "evaluated": case.images.count},
                    partial(case.measure, tool, runtime),
                )


class _NoLogitsError(Exception):
    """There are none; the answer says why."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        super().__init__(answer["status"])
        self.answer = dict(answer)


@dataclass(frozen=True)
class _Case:
    """One net, and the images on which all files of it are compared."""

    setup: Setup
    net: Net
    count: int
    images: Images

    def measure(self, tool: Tool, runtime: str) -> dict[str, Any]:
        """What is said about a tool's file in a runtime."""
        own = self.setup.tools[0]
        try:
            reference = self._logits(self.net.model, "onnxruntime")
            first = self._logits(self._file(own), own.runtimes[0])
            file = self._file(tool)
            actual = self._logits(file, runtime)
        except _NoLogitsError as error:
            return error.answer
        compared = compare_outputs(reference, actual, first)
        facts = {"file_sha256": sha256_of(file), "against": own.name}
        return {"status": "ok", **facts, "versions": self._versions(file, runtime), **compared}

    def _file(self, tool: Tool) -> Path:
        answer = self.setup.made(self.net, tool, self.count)
        if answer["status"] != "ok":
            raise _NoLogitsError(answer)
        return file_of(self.net, tool, self.count)

    def _logits(self, file: Path, runtime: str) -> Logits:
        path = self._kept(file, runtime)
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            part = path.with_suffix(".part.npy")
            answer = self.setup.ask(
                {
                    "job": "logits",
                    "runtime": runtime,
                    "model": str(file),
                    "threads": 0,
                    "images": str(self.images.path),
                    "count": self.images.count,
                    "output": str(part),
                },
                foreign=RUNTIMES[runtime].foreign,
            )
            if answer["status"] != "ok":
                raise _NoLogitsError(answer)
            path.with_suffix(".json").write_text(json.dumps(answer["versions"]))
            part.rename(path)
        logits: Logits = np.load(path)
        if not np.isfinite(logits).all():
            raise _NoLogitsError({"status": "failed", "why": "logits that are not finite"})
        return logits

    def _kept(self, file: Path, runtime: str) -> Path:
        """Under the hash of the file that gave them: another one's are never taken for its."""
        name = f"{sha256_of(file)[:16]}-{runtime}-{self.images.count}.npy"
        return self.net.directory / "logits" / name

    def _versions(self, file: Path, runtime: str) -> Any:
        return json.loads(self._kept(file, runtime).with_suffix(".json").read_text())
