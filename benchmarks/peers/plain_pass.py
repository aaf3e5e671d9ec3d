"""The forward passes alone, through ONNX Runtime with convexport's session."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from arrays import batches
from tools import Quantize, Work

from convexport.runtime.ort_session import OrtSession, providers


def quantizer(options: Mapping[str, Any]) -> Quantize:
    """A pass over the images, of which nothing is kept."""
    providers()  # imports the runtime

    def run(work: Work) -> dict[str, float]:
        start = time.perf_counter()
        session = OrtSession(work.model)
        loaded = time.perf_counter()
        for batch in batches(work.images, work.count, work.batch):
            session.run({work.input_name: batch})
        return {"load": loaded - start, "run": time.perf_counter() - loaded}

    return run
