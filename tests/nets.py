"""Nets written by hand: sound, or with one thing wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

GRAPH = """
    c = Conv<kernel_shape = [3, 3]> (x, w)
    r = Relu (c)
    p = GlobalAveragePool (r)
    f = Flatten<axis = 1> (p)
    y = Gemm<transB = 1> (f, v, b)
"""
Edit = Callable[[onnx.ModelProto], object]


def model(
    body: str = GRAPH,
    *,
    taken: str = "",
    given: str = "",
    batch: str = "N",
    channels: int = 1,
    opset: int = 17,
    ir: int = 8,
) -> onnx.ModelProto:
    """A graph in ONNX's own text with seeded weights: of 5 nodes, for images of 16x16."""
    taken = taken or f"float[{batch}, {channels}, 16, 16] x"
    given = given or f"float[{batch}, 5] y"
    head = f'<ir_version: {ir}, opset_import: ["": {opset}]> net ({taken}) => ({given})'
    made = parser.parse_model(f"{head} {{ {body} }}")
    random = np.random.default_rng(0)
    for name, shape in {"w": (4, channels, 3, 3), "v": (5, 4), "b": (5,)}.items():
        array = random.standard_normal(shape, dtype=np.float32)
        made.graph.initializer.append(numpy_helper.from_array(array, name))
    return made


def small_net(path: Path, edit: Edit = lambda made: None) -> Path:
    """The sound net, edited."""
    made = model()
    edit(made)
    path.write_bytes(made.SerializeToString())
    return path


def set_weight(made: onnx.ModelProto, name: str, change: Callable[[np.ndarray], object]) -> None:
    """Change an initializer's values in place."""
    tensor = next(each for each in made.graph.initializer if each.name == name)
    array = numpy_helper.to_array(tensor).copy()
    change(array)
    tensor.CopyFrom(numpy_helper.from_array(array, name))
