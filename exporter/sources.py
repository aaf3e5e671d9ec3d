"""What MODEL names: a net of the zoo, a module of the user's own, or an .onnx file.

Whatever it was, the build goes on with a ``Source``: what identifies it, how to export it, and
the reference whose outputs define "right".
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from convexport.exporter.options import BuildOptions
from convexport.exporter.own_models import (
    source_from_factory,
    source_from_onnx,
)
from convexport.exporter.source import Source
from convexport.exporter.zoo_source import source_from_zoo
from convexport.runtime.errors import UnsupportedError


def find_source(model: str, options: BuildOptions, report: Callable[[str], None]) -> Source:
    """What ``model`` names, with its weights had but its module not yet built.

    Raises:
        UsageError: E0220 to E0226, no net, or none of that shape; E0282, an option that does not
            fit.
        InputError: the file or the weights cannot be used.
        UnsupportedError: E0683, a .pt2 file; E0685, a block.
        MachineError: E0420 to E0425, pretrained weights cannot be had.
    """
    suffix = Path(model).suffix.lower()
    if suffix == ".onnx":
        return source_from_onnx(Path(model), options)
    if suffix == ".pt2":
        raise UnsupportedError(
            "E0683",
            "a .pt2 file is not opened",
            where=model,
            why="PyTorch falls back to unpickling it, and that runs whatever code is inside",
            hint="if you trust it, load it in a factory of your own: package.module:factory",
        )
    if ":" in model:
        return source_from_factory(model, options)
    return source_from_zoo(model, options, report)
