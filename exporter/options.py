"""What a build is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import platformdirs

from convexport.benchmarks.parity import PARITY_IMAGES
from convexport.calibration.thresholds import Method
from convexport.exporter.trt_request import TrtRequest
from convexport.runtime.errors import UsageError, did_you_mean

Precision = Literal["fp32", "bf16", "fp16", "int8"]


REPAIRS = ("equalization", "bias")

# Of an image that a classifier sees; beyond it nothing fits into memory.
_LARGEST_SIDE = 4096


def default_cache() -> Path:
    """Where stage results and downloaded weights lie: the user's cache directory."""
    return Path(platformdirs.user_cache_dir("convexport"))


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """A request, checked but never altered.

    Attributes:
        precision: of the weights and activations that allow it; None is FP32, or with the target
            ``auto`` any that passes its gates.
        target: a name of ``exporter.targets``, or ``auto``: the fastest of those installed here.
        weights: ``pretrained``, ``digits``, ``random[:seed]`` or a checkpoint's path; None takes
            pretrained weights where they can be had, and otherwise random ones, said loudly.
        calib: directory of calibration images; None takes stand-ins.
        calib_images: how many of them at most.
        method: how thresholds are chosen.
        repair: what is done for a net that INT8 hurts, where it gains: names of ``REPAIRS``.
        max_drop: share in 0..1 of decisions that INT8 may change; None asks for no proof.
        keep_fp32: nodes that stay in FP32 though FP16 is asked for: names, or patterns of them.
        parity_images: how many images each stage is compared with the reference on.
        classes: number of classes where it is not the net's own.
        new_classifier: where the checkpoint has other classes, take a random classifier instead.
        input_shape: C×H×W of one image; a net of the zoo has its own by default.
        preprocess: a JSON file with the preprocess, for a net of the user's own.
        labels: a text file, one label a line.
        output: the bundle's directory; None makes a name in the current directory.
        force: replace what stands there.
        offline: open no connection.
        bench_seconds: how long latency is measured; 0 leaves it not measured.
        lock_timeout: seconds to wait for another build of the same.
        tensorrt: what is asked of an engine; for targets with TensorRT.
    """

    precision: Precision | None = None
    target: str = "cpu"
    weights: str | None = None
    calib: Path | None = None
    calib_images: int = 128
    method: Method = field(default_factory=Method)
    repair: tuple[str, ...] = REPAIRS
    max_drop: float | None = None
    keep_fp32: tuple[str, ...] = ()
    parity_images: int = PARITY_IMAGES
    classes: int | None = None
    new_classifier: bool = False
    input_shape: tuple[int, int, int] | None = None
    preprocess: Path | None = None
    labels: Path | None = None
    output: Path | None = None
    force: bool = False
    offline: bool = False
    bench_seconds: float = 10.0
    cache_dir: Path = field(default_factory=default_cache)
    lock_timeout: float = 600.0
    tensorrt: TrtRequest | None = None

    def __post_init__(self) -> None:
        _positive("--parity-images", self.parity_images)
        _positive("--calib-images", self.calib_images)
        _positive("--classes", self.classes)
        _positive("--lock-timeout", self.lock_timeout)
        if not math.isfinite(self.bench_seconds) or self.bench_seconds < 0:
            raise _senseless("--bench-seconds", self.bench_seconds)
        if self.max_drop is not None and not 0 < self.max_drop < 1:
            raise _senseless("--max-drop", self.max_drop, "a share such as 0.5%")
        if self.tensorrt is not None and not self.target.startswith(("tensorrt", "jetson")):
            raise _only("what is asked of an engine, such as --batch,", "a target with TensorRT")
        if self.keep_fp32 and self.precision != "fp16":
            raise _only("--keep-fp32", "--fp16")
        quantizes = self.precision == "int8" or (self.precision is None and self.target == "auto")
        if self.max_drop is not None and not quantizes:
            raise _only("--max-drop", "--int8")
        for name in self.repair:
            if name not in REPAIRS:
                raise UsageError(
                    "E0281",
                    f"there is no repair {name!r}",
                    hint=did_you_mean(name, REPAIRS, otherwise=f"one of {', '.join(REPAIRS)}"),
                )
        if self.target == "auto" and not self.bench_seconds:
            raise UsageError(
                "E0286",
                "--target auto needs latencies",
                where="--bench-seconds 0",
                why="it takes the fastest, and that has to be measured",
                hint="leave --bench-seconds out, or name the target",
            )
        for size in self.input_shape or ():
            _positive("--input-shape", size)
            if size > _LARGEST_SIDE:
                raise _senseless("--input-shape", size, f"a number up to {_LARGEST_SIDE}")


def _only(option: str, needed: str) -> UsageError:
    hint = f"add {needed}, or leave {option} out"
    return UsageError("E0284", f"{option} is for {needed}", hint=hint)


def _positive(name: str, value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise _senseless(name, value)


def _senseless(name: str, value: float, wanted: str = "a positive number") -> UsageError:
    return UsageError("E0281", f"{name} {value} makes no sense", hint=f"give {wanted}")
