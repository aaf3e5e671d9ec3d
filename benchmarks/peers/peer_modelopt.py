"""NVIDIA ModelOpt's quantizer of ONNX files, on the CPU.

Its files are meant for TensorRT. By default it turns what is not INT8 into FP16, for which CPUs
have no fast kernels; here that stays FP32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tools import Quantize, Work


def quantizer(options: Mapping[str, Any]) -> Quantize:
    """``modelopt.onnx.quantization.quantize``."""
    from modelopt.onnx.quantization import quantize

    def run(work: Work) -> dict[str, float]:
        # It takes one array, and goes over it in steps of the shape that it is told.
        images = np.load(work.images, mmap_mode="r")[: work.count]
        shape = "x".join(map(str, (work.batch, *images.shape[1:])))
        quantize(
            str(work.model),
            quantize_mode="int8",
            calibration_data=images,
            calibration_method=options["method"],
            calibration_shapes=f"{work.input_name}:{shape}",
            calibration_eps=["cpu"],
            high_precision_dtype="fp32",
            output_path=str(work.output),
            log_level="WARNING",
        )
        return {}

    return run
