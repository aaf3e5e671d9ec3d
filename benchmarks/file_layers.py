"""The layers of an ONNX file: what each computes and moves, and which of them a kernel stands for.

Operations are two for each product that a convolution or a matrix adds; everything else is counted
as none, since what it costs is moving its tensors. Bytes are those of its inputs, weights and
output, each once, in the type that they are stored in: where a tensor is quantized right after it
was made, or dequantized right before it is used, that is the integer's. An activation behind a
layer with weights is part of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convexport.runtime.optional import require

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ACTIVATIONS = ("Relu", "Clip")
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
# They give other names to the same bytes.
_VIEWS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout")
# Operators that a runtime makes of those with weights are named like this, somewhere.
_PRODUCT = re.compile("conv(?!ert)|gemm|matmul|fullyconnected", re.IGNORECASE)


@dataclass(frozen=True)
class Layer:
    """A node of the file, or several that one kernel stands for, and what a pass has to do.

    Attributes:
        name: of its nodes.
        nodes: each of these names.
        module: where in the net it comes from: its name without the last part.
    """

    name: str
    nodes: tuple[str, ...]
    module: str
    op: str
    operations: int
    bytes: int


class FileLayers:
    """The layers of an ONNX file.

    Args:
        model: whose one input has no free dimension but the batch.
        batch: images a pass.
    """

    def __init__(self, model: Path, batch: int = 1) -> None:
        onnx = require("onnx", extra="export", purpose="counting operations")
        proto = onnx.load(str(model), load_external_data=False)
        for value in proto.graph.input:
            dims = value.type.tensor_type.shape.dim
            if dims and not dims[0].dim_value:
                dims[0].dim_value = batch
        graph = onnx.shape_inference.infer_shapes(proto).graph
        values = (*graph.input, *graph.value_info, *graph.output)
        types = {each.name: each.type.tensor_type for each in values}
        self._shapes: dict[str, list[int]] = {
            n: [d.dim_value for d in t.shape.dim] for n, t in types.items()
        }
        kinds = {name: tensor.elem_type for name, tensor in types.items()}
        for tensor in graph.initializer:
            self._shapes[tensor.name], kinds[tensor.name] = list(tensor.dims), tensor.data_type
        size = onnx.helper.tensor_dtype_to_np_dtype
        self._sizes: dict[str, int] = {
            name: size(kind).itemsize for name, kind in kinds.items() if kind
        }
        self._nodes = list(graph.node)
        self._maker = {name: node for node in self._nodes for name in node.output}
        self._users: dict[str, list[Any]] = {}
        for node in self._nodes:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
        self._by_name = {name: node for node in self._nodes for name in (*node.output, node.name)}

    @property
    def operations(self) -> int:
        """Of the whole file."""
        return sum(2 * self._products(node) for node in self._nodes)

    @property
    def weighted(self) -> tuple[Layer, ...]:
        """The layers with weights, in the order of the file."""
        return tuple(self._layer(node) for node in self._nodes if node.op_type in WEIGHTED)

    def of(self, names: Iterable[str], op: str) -> Layer | None:
        """The layer that a kernel stands for, or None for one that is of the runtime's making.

        Args:
            names: of the file's nodes that the runtime says it made it of.
            op: what the runtime calls its operator.
        """
        found = [self._by_name[name] for name in names if name in self._by_name]
        several = {node.output[0]: node for node in found if node.op_type in WEIGHTED}
        if len(several) > 1:  # as of a classifier's matrices, which OpenVINO may make one kernel
            return _joined([self._layer(node) for node in several.values()])
        weighted = [*several.values()]
        weighted += [owner for node in found if (owner := self._owner(node)) is not None]
        if weighted and _PRODUCT.search(op):
            return self._layer(weighted[0])
        plain = [node for node in found if node.op_type not in (_QUANTIZE, _DEQUANTIZE)]
        return self._layer(plain[0]) if plain else None

    def _owner(self, node: Any) -> Any:
        """The only node with weights that it is, or whose activation or sum it is.

        What other nodes use, too, is computed for them: such a tensor leads to no owner.
        """
        ends, ahead = [], [node]
        while ahead:
            node = ahead.pop()
            if node.op_type in WEIGHTED:
                ends.append(node)
            elif node.op_type in (*_ACTIVATIONS, _QUANTIZE, _DEQUANTIZE, "Add"):
                names = node.input if node.op_type == "Add" else node.input[:1]
                alone = [name for name in names if len(self._users[name]) == 1]
                ahead += [self._maker[name] for name in alone if name in self._maker]
        return ends[0] if len(ends) == 1 else None

    def _layer(self, node: Any) -> Layer:
        name = node.name or node.output[0]
        moved = 0 if node.op_type in _VIEWS else self._moved(node)
        operations, module = 2 * self._products(node), name.rpartition("/")[0]
        return Layer(name, (name,), module, node.op_type, operations, moved)

    def _moved(self, node: Any) -> int:
        output = node.output[0]
        users = self._users.get(output, [])
        if node.op_type in WEIGHTED and len(users) == 1 and users[0].op_type in _ACTIVATIONS:
            output = users[0].output[0]
        return self._bytes_out(output) + sum(map(self._bytes_in, {*node.input} - {""}))

    def _bytes_in(self, name: str) -> int:
        maker = self._maker.get(name)
        stored = maker.input[0] if maker is not None and maker.op_type == _DEQUANTIZE else name
        return self._elements(name) * self._sizes.get(stored, 0)

    def _bytes_out(self, name: str) -> int:
        users = self._users.get(name, [])
        quantized = users and all(user.op_type == _QUANTIZE for user in users)
        return self._elements(name) * self._sizes.get(users[0].output[0] if quantized else name, 0)

    def _elements(self, name: str) -> int:
        return math.prod(self._shapes.get(name, [0]))

    def _products(self, node: Any) -> int:
        if node.op_type not in WEIGHTED:
            return 0
        shapes = self._shapes
        weight, output = shapes[node.input[1]], shapes[node.output[0]]
        if node.op_type == "Conv":
            return math.prod(output) * math.prod(weight[1:])
        if node.op_type == "ConvTranspose":
            return math.prod(shapes[node.input[0]]) * math.prod(weight[1:])
        inner = shapes[node.input[0]]
        transposed = any(each.name == "transA" and each.i for each in node.attribute)
        return math.prod(output) * inner[0 if transposed else -1]


def _joined(layers: Sequence[Layer]) -> Layer:
    """What is between them is moved nonetheless, if not to memory: an upper bound."""
    return replace(
        layers[0],
        name=" + ".join(layer.name for layer in layers),
        nodes=tuple(layer.name for layer in layers),
        operations=sum(layer.operations for layer in layers),
        bytes=sum(layer.bytes for layer in layers),
    )
