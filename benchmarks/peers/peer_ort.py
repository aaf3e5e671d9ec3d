"""ONNX Runtime's own static quantizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arrays import batches
from tools import Quantize, Work


def quantizer(options: Mapping[str, Any]) -> Quantize:
    """``quantize_static``; what the options do not name is left as it comes."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # its module has no types
        def __init__(self, work: Work) -> None:
            self.work = work
            self.waiting = self.images = batches(work.images, work.count, work.batch)

        def __len__(self) -> int:
            return -(-self.work.count // self.work.batch)

        def set_range(self, start_index: int, end_index: int) -> None:
            # Asked for in order: the next ones that the file gives.
            self.waiting = (next(self.images) for _ in range(start_index, end_index))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.waiting, None)
            return None if batch is None else {self.work.input_name: batch}

    given: dict[str, Any] = {"calibrate_method": getattr(CalibrationMethod, options["method"])}
    if "activations" in options:
        given["activation_type"] = getattr(QuantType, options["activations"])
    if "per_channel" in options:
        given["per_channel"] = options["per_channel"]
    if "stride" in options:
        given["extra_options"] = {"CalibStridedMinMax": options["stride"]}

    def run(work: Work) -> dict[str, float]:
        quantize_static(work.model, work.output, Reader(work), **given)
        return {}

    return run
