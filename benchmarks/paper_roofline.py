"""On paper: the least time that a net can take on a device that is not here, from data sheets.

A bound, not a measurement: each layer with weights takes the longer of its operations at the dense
peak of the tensor cores and its bytes at the peak of the memory, each tensor moved once in the
type computed in; what lies between such layers is taken as free, as runtimes fuse it. Only what
stays in a cache from layer to layer can be faster, as at small batches on an H200.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from convexport.benchmarks.file_layers import FileLayers

BATCHES = (1, 8, 128)
_BYTES = {"fp16": 2, "int8": 1}
_STORED = 4  # of the FP32 file that is counted


@dataclass(frozen=True)
class Device:
    """Peaks of a data sheet, without sparsity.

    Attributes:
        operations_per_s: by precision; two for each product that is added.
        bytes_per_s: of its memory.
        source: where the figures are from.
    """

    name: str
    operations_per_s: dict[str, float]
    bytes_per_s: float
    source: str


DEVICES = (
    Device(
        "H200 SXM",
        {"fp16": 989e12, "int8": 1979e12},
        4.8e12,
        "NVIDIA H200 data sheet, half of its figures with sparsity",
    ),
    Device(
        "T4", {"fp16": 65e12, "int8": 130e12}, 300e9, "NVIDIA T4 data sheet; its memory's 300 GB/s"
    ),
    Device(
        "Jetson AGX Orin 64 GB",
        {"fp16": 42.5e12, "int8": 85e12},
        204.8e9,
        "NVIDIA Jetson AGX Orin technical brief: the GPU without the DLAs, half of its 170 sparse",
    ),
)


@dataclass(frozen=True)
class Bound:
    """The least time of one pass.

    Attributes:
        memory_bound: the share of it in layers that the memory holds back.
    """

    device: str
    precision: str
    batch: int
    milliseconds: float
    memory_bound: float

    @property
    def images_per_s(self) -> float:
        """At most."""
        return self.batch / self.milliseconds * 1e3


def bounds(model: Path) -> Iterator[Bound]:
    """One for each device, precision and batch.

    Args:
        model: the net's FP32 ``.onnx`` file.
    """
    for batch in BATCHES:
        layers = FileLayers(model, batch).weighted
        for device in DEVICES:
            for precision, size in _BYTES.items():
                computed = [x.operations / device.operations_per_s[precision] for x in layers]
                moved = [x.bytes * size / _STORED / device.bytes_per_s for x in layers]
                total = sum(map(max, computed, moved))
                waiting = sum(m for c, m in zip(computed, moved, strict=True) if m > c)
                yield Bound(device.name, precision, batch, total * 1e3, waiting / total)


def told(name: str, model: Path) -> Iterator[str]:
    """The bounds of a net in words."""
    for each in bounds(model):
        yield (
            f"{name:<18} {each.device:<22} {each.precision} batch {each.batch:<4}"
            f"{each.milliseconds:8.3f} ms {each.images_per_s:9.0f} images/s, "
            f"{each.memory_bound:4.0%} of it waiting for memory"
        )
