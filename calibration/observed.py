"""A model that gives tensors from its inside."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import onnx
import onnx_ir as ir


def write_observed(model: Path, tensors: Iterable[str], path: Path) -> None:
    """Copy a model, with the named tensors as further outputs.

    Args:
        model: ONNX in one file.
        tensors: names of values; inputs and outputs among them are passed over.
    """
    graph = ir.load(model).graph
    known = {value.name for value in (*graph.inputs, *graph.outputs)}
    wanted = set(tensors) - known
    more = onnx.ModelProto()
    more.graph.output.extend(
        ir.to_proto(value) for node in graph for value in node.outputs if value.name in wanted
    )
    shutil.copyfile(model, path)
    with path.open("ab") as file:
        # Messages of protobuf that follow one another are merged, lists by appending: no second
        # copy of the weights is made in memory.
        file.write(more.SerializeToString())
