"""A net that reads digits, with channels of very different size: the same in FP32, not in INT8."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from convexport.benchmarks.digits_figures import hostile, rescale, unclip
from convexport.runtime.ort_session import OrtSession

NET = "mobilenet_v1_025"


@pytest.mark.slow
def test_uneven_channels_cost_nothing_once_they_are_repaired(tmp_path: Path) -> None:
    as_it_is, repaired = hostile(tmp_path, [NET])
    assert "as it is: refused: E0564" in as_it_is
    assert float(re.findall(r"INT8: (-?[\d.]+) dB", as_it_is)[0]) < 3
    drop, low, high = map(float, re.findall(r"([+-]\d+\.\d+)", repaired)[:3])
    assert drop <= 0.3 and low <= drop <= high < 1, repaired
    assert float(re.findall(r"([\d.]+) dB", repaired)[0]) > 30
    # The net that was refused is a good one: in FP32 it is what it was.
    plain = ir.load(tmp_path / f"{NET}-plain" / "model.onnx")
    unclip(plain)
    ir.save(plain, tmp_path / "even.onnx")
    assert rescale(plain) == 13
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32)
    even, uneven = (OrtSession(tmp_path / name) for name in ("even.onnx", f"{NET}.onnx"))
    output = even.outputs[0].name
    feed = {even.inputs[0].name: x}
    assert np.allclose(even.run(feed)[output], uneven.run(feed)[output], atol=1e-4)
