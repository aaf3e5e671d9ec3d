"""NNCF's post-training quantization, of an OpenVINO model or of the ONNX model itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from arrays import Array, batches
from tools import Quantize, Work


def quantizer(options: Mapping[str, Any]) -> Quantize:
    """``nncf.quantize``; fast bias correction is on, as it comes."""
    import nncf
    import onnx
    import openvino

    given = {}
    if "preset" in options:
        given["preset"] = getattr(nncf.QuantizationPreset, options["preset"])

    def run(work: Work) -> dict[str, float]:
        start = time.perf_counter()
        as_onnx = options.get("onnx", False)
        model = onnx.load(work.model) if as_onnx else openvino.Core().read_model(work.model)
        loaded = time.perf_counter()
        dataset = nncf.Dataset(_Images(work), lambda batch: {work.input_name: batch})
        # By default it takes 300 images at most: here all that the others get.
        subset = -(-work.count // work.batch)
        quantized = nncf.quantize(model, dataset, subset_size=subset, **given)
        done = time.perf_counter()
        if as_onnx:
            onnx.save(quantized, work.output)
        else:
            openvino.save_model(quantized, work.output, compress_to_fp16=False)
        return {"load": loaded - start, "quantize": done - loaded}

    return run


class _Images:
    """The images anew at each iteration: NNCF goes over them more than once."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __iter__(self) -> Iterator[Array]:
        return batches(self._work.images, self._work.count, self._work.batch)

    def __len__(self) -> int:
        return -(-self._work.count // self._work.batch)
