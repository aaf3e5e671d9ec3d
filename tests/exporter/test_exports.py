"""Every variant becomes ONNX with a free batch and nothing computed from shapes at run time.

On the meta device, where tensors have no values: what is checked is the translation.
Nets of more layers repeat the blocks of these; a sweep builds them all (docs/zoo.md).
"""

from __future__ import annotations

import contextlib
import io

import pytest
import torch

from convexport.architectures.layers import drop_auxiliary_heads
from convexport.architectures.registry import create, variants

_MOST_LAYERS = 60
NETS = [
    pytest.param(name, marks=[pytest.mark.slow] if row.counts.weight_layers > 40 else [])
    for name, row in variants().items()
    if row.num_classes and row.counts.weight_layers <= _MOST_LAYERS
]
# What a net must never compute from the size of its input.
COMPUTED = {"If", "Loop", "Scan", "NonZero", "Where", "GatherND", "ScatterND", "Resize"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETS)
def test_a_variant_becomes_onnx(name: str) -> None:
    variant = variants()[name]
    with torch.device("meta"):
        module = drop_auxiliary_heads(create(name)).eval()
        images = torch.empty(2, *variant.input)
    batch = torch.export.Dim("batch", min=1, max=4096)
    with contextlib.redirect_stdout(io.StringIO()):
        program = torch.onnx.export(
            module,
            (images,),
            dynamo=True,
            dynamic_shapes=({0: batch},),
            opset_version=18,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    graph = program.model.graph
    (output,) = graph.outputs
    assert str(output.shape) == f"[batch,{variant.num_classes}]"
    assert {node.domain for node in graph} == {""}
    assert not COMPUTED & {node.op_type for node in graph}
