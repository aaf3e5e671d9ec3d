from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convexport.benchmarks.recording import Subject
from convexport.runtime.files import sha256_of

MakeSubject = Callable[..., Subject]


@pytest.fixture
def make_subject(tmp_path: Path) -> MakeSubject:
    """Write a model of ``layers`` 3x3 convolutions on ``size`` x ``size`` images."""

    def make(label: str, *, layers: int = 1, size: int = 8, dtype: str = "FLOAT") -> Subject:
        path = tmp_path / f"{label}.onnx"
        kind = getattr(TensorProto, dtype)
        nodes = [helper.make_node("Cast", ["image"], ["x0"], to=TensorProto.FLOAT)]
        rng = np.random.default_rng(0)
        weights = []
        for index in range(layers):
            kernel = rng.standard_normal((3, 3, 3, 3)).astype(np.float32)
            weights.append(numpy_helper.from_array(kernel, f"w{index}"))
            names = [f"x{index}", f"w{index}"]
            nodes.append(helper.make_node("Conv", names, [f"x{index + 1}"], pads=[1] * 4))
        shape = ["batch", 3, size, size]
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("image", kind, shape)],
            [helper.make_tensor_value_info(f"x{layers}", TensorProto.FLOAT, shape)],
            weights,
        )
        opset = helper.make_opsetid("", 17)
        onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
        return Subject(
            label=label,
            model=path,
            provider="CPUExecutionProvider",
            input_name="image",
            input_shape=(3, size, size),
            sha256=sha256_of(path),
        )

    return make
