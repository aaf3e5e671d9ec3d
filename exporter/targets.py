"""Where a bundle will run: one row a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from convexport.runtime.errors import UnsupportedError, UsageError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Target:
    """A runtime on a device, and what it allows.

    Attributes:
        runtime: what loads the model.
        provider: the execution provider that must run it.
        opset: of the ONNX that is written for it.
        precisions: what it runs, and for each where it does not why not.
        placement: the name of its Q/DQ rules in ``calibration.placement``.
    """

    name: str
    runtime: str
    provider: str
    opset: int
    precisions: tuple[str, ...]
    refusals: Mapping[str, str] = field(default_factory=dict)
    placement: str = ""


TARGETS = {
    target.name: target
    for target in (
        Target(
            name="cpu",
            runtime="onnxruntime",
            provider="CPUExecutionProvider",
            opset=18,
            precisions=("fp32", "int8"),
            refusals={
                "fp16": "ONNX Runtime's CPU kernels compute FP16 by way of FP32: slower, no gain"
            },
            placement="CPU",
        ),
        Target(
            name="cuda",
            runtime="onnxruntime",
            provider="CUDAExecutionProvider",
            opset=18,
            precisions=("fp32", "fp16"),
            refusals={
                "int8": "ONNX Runtime's CUDA provider runs Q/DQ in floats: slower than FP32",
            },
        ),
    )
}


def find_target(name: str) -> Target:
    """The row of that name.

    Raises:
        UsageError: E0280, there is none.
    """
    if name not in TARGETS:
        raise UsageError(
            "E0280",
            f"there is no target {name!r}",
            hint=did_you_mean(name, TARGETS, otherwise=f"one of {', '.join(TARGETS)}"),
        )
    return TARGETS[name]


def require_precision(target: Target, precision: str) -> None:
    """Refuse a precision that the target gains nothing from.

    Raises:
        UnsupportedError: E0680, with the reason and what it does run.
    """
    if precision not in target.precisions:
        raise UnsupportedError(
            "E0680",
            f"the target {target.name} does not run {precision}",
            why=target.refusals[precision],
            hint=f"choose {' or '.join(f'--{each}' for each in target.precisions)}",
        )
