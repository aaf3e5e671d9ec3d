"""What a build for TensorRT ends with: an engine for this machine, or all that the device needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from convexport.exporter.flavours import flavour_of
from convexport.exporter.targets import Target
from convexport.runtime.errors import UnsupportedError

if TYPE_CHECKING:
    from convexport.exporter.pipeline import Build
    from convexport.exporter.results import BuildResult, Made


def require_delivery(target: Target) -> None:
    """Refuse a target whose build could not be finished, before the work is done.

    Raises:
        MachineError: E0401, TensorRT is not on this machine, where it is needed.
        UnsupportedError: E0690, its version is not known; E0692, no engine can be built yet.
    """
    flavour_of(target)
    raise _nothing_builds(target)


def deliver(build: Build, made: Made, output: Path, key: str) -> BuildResult:
    """From the ONNX of a TensorRT target to what is handed over.

    Args:
        made: its entrant's model is the ONNX; ``made.facts["flavour"]`` says which flavour it is,
            whether it is typed, and which layers an FP16 engine has to hold to FP32.
        output: where the bundle goes.
        key: the hash of everything that was asked for.

    Raises:
        UnsupportedError: E0692, as ``require_delivery``.
    """
    raise _nothing_builds(build.target)


def _nothing_builds(target: Target) -> UnsupportedError:
    return UnsupportedError(
        "E0692",
        f"no build ends at the target {target.name} yet",
        why="its ONNX can be written and checked, but there is nothing yet that makes "
        "an engine of it, here or on a device",
        hint=f"convexport inspect model.onnx --target {target.name} says what TensorRT "
        "would make of a file",
    )
