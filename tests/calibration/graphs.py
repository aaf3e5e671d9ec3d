"""Small graphs, and their evaluation by onnx's reference evaluator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from convexport.calibration.histograms import TensorRange, range_of


def model(text: str, constants: Mapping[str, np.ndarray]) -> ir.Model:
    """A model from onnx's text form; every node is named after its first output."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 19]>\n{text}')
    for name, array in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for node in proto.graph.node:
        node.name = node.output[0]
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def outputs(graph: ir.Model, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor of a graph with the one input ``x``."""
    found = ReferenceEvaluator(ir.to_proto(graph)).run(None, {"x": x}, intermediate=True)
    return {"x": x, **found}


def ranges(graph: ir.Model, x: np.ndarray) -> dict[str, TensorRange]:
    """What is seen of every float tensor."""
    return {
        name: range_of(np.asarray(value, np.float32), name)
        for name, value in outputs(graph, x).items()
        if np.asarray(value).ndim > 1
    }


def decibels(exact: np.ndarray, actual: np.ndarray) -> float:
    """Signal to noise."""
    return float(10 * np.log10((exact**2).sum() / ((exact - actual) ** 2).sum()))
