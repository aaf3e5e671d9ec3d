"""The ONNX files that versions of TensorRT read: opset, IR version, and how weights are held.

qdq-portable   FP32 graph, opset 17: what 8.5 to 10 build weakly typed. Which FP16 and INT8 an
               engine computes in, flags decide; weights are FP32 → Q → DQ.
qdq-fp16       typed, opset 19: the first whose Q/DQ take FP16. What 10.12 and later build
               strongly typed: each tensor has in the engine the type that it has in the file.
"""

from __future__ import annotations

from dataclasses import dataclass

from packaging.version import Version

from convexport.exporter.targets import Target
from convexport.runtime.errors import UnsupportedError
from convexport.runtime.optional import require


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """One kind of ONNX file.

    Attributes:
        opset: of the default domain.
        ir_version: that of the first release of ONNX with this opset.
        typed: whether the engine's types are those of the graph; otherwise flags choose them.
    """

    name: str
    opset: int
    ir_version: int
    typed: bool


FLAVOURS = {
    flavour.name: flavour
    for flavour in (
        Flavour(name="qdq-portable", opset=17, ir_version=8, typed=False),
        Flavour(name="qdq-fp16", opset=19, ir_version=9, typed=True),
    )
}
# NVIDIA calls strong typing complete from here on, and weak typing deprecated.
_TYPED_SINCE = Version("10.12")


def flavour_of(target: Target) -> Flavour:
    """The flavour that the target reads; where its row names none, that of the version found here.

    Raises:
        MachineError: E0401, the row names none, and there is no TensorRT here.
        UnsupportedError: E0690, its version is not one that is known.
    """
    if target.flavour:
        return FLAVOURS[target.flavour]
    typed = found_version(target) >= _TYPED_SINCE
    return FLAVOURS["qdq-fp16" if typed else "qdq-portable"]


def versions_of(target: Target) -> str:
    """Which versions of TensorRT read the flavour that is written, as a specifier."""
    if target.flavour:
        return target.tensorrt
    return f"{target.tensorrt},{'>=' if flavour_of(target).typed else '<'}{_TYPED_SINCE}"


def found_version(target: Target) -> Version:
    """The version of the TensorRT on this machine.

    Raises:
        MachineError: E0401, there is none.
        UnsupportedError: E0690, the target is for others.
    """
    tensorrt = require("tensorrt", extra="tensorrt", purpose=f"the target {target.name}")
    found = Version(tensorrt.__version__)
    if found not in target.tensorrt_versions:
        raise UnsupportedError(
            "E0690",
            f"TensorRT {found} is none that the target {target.name} knows",
            why=f"it knows {target.tensorrt}",
            hint="install another version of TensorRT",
        )
    return found
