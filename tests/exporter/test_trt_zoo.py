"""What is exported of the zoo has no findings for any TensorRT target, in any precision.

One small net of each family, on small images, with random weights: what is checked is the form of
the graphs. Thresholds are made up.
"""

from __future__ import annotations

import sys

import onnx
import onnx_ir as ir
import pytest
import torch
from packaging.version import Version

from convexport.architectures.layers import drop_auxiliary_heads
from convexport.architectures.registry import create, find, variants
from convexport.calibration.placement import TENSORRT, quantized_tensors
from convexport.calibration.qdq import insert_qdq, scale_of
from convexport.calibration.thresholds import Threshold
from convexport.exporter.flavour_graphs import at_opset, with_float_weights
from convexport.exporter.flavours import FLAVOURS
from convexport.exporter.half import half_from_ranges
from convexport.exporter.half_qdq import half_from_qdq
from convexport.exporter.simplify import simplify
from convexport.exporter.stages import every_float
from convexport.exporter.targets import TARGETS
from convexport.exporter.to_onnx import onnx_from_module
from convexport.exporter.trt_lint import lint
from convexport.exporter.trt_parsers import Parser, parsers_of

PORTABLE, TYPED = FLAVOURS["qdq-portable"], FLAVOURS["qdq-fp16"]
# A net of each family; those that take long to export are left to CI.
NETS = {
    "lenet5": (1, 32, 32),
    "nin_small": (1, 28, 28),
    "inception_keras_small": (3, 32, 32),
    "resnet20_cifar": (3, 32, 32),
    "squeezenet1_1": (3, 64, 64),
    "mobilenet_v1_025": (3, 32, 32),
    "cnn_gap": (1, 64, 64),
    "lenet5+nin_small*2": (1, 32, 32),
}
SLOW = {
    "alexnet": (3, 64, 64),
    "wrn_16_8_cifar": (3, 32, 32),
    "zfnet": (3, 64, 64),
    "vgg11_bn": (3, 32, 32),
    "bn_inception": (3, 64, 64),
    "inception_v3": (3, 107, 107),
    "resnext50_32x4d": (3, 32, 32),
    "inception_resnet_v1": (3, 107, 107),
    "preact_resnet18": (3, 32, 32),
    "densenet_40_k12_cifar": (3, 32, 32),
    "se_resnet18": (3, 32, 32),
    "mobilenet_v3_small_050": (3, 32, 32),
    "efficientnet_b0": (3, 32, 32),
}
# BatchNorm and ReLU stand before the convolution there, so that nothing can take BatchNorm in.
EXCEPTIONS = {
    "wrn_16_8_cifar": {"batchnorm"},
    "preact_resnet18": {"batchnorm"},
    "densenet_40_k12_cifar": {"batchnorm"},
}


def flavoured(name: str, shape: tuple[int, int, int]) -> dict[str, list[onnx.ModelProto]]:
    """What each flavour is of the net in FP32, INT8 and, where it is typed, FP16."""
    torch.manual_seed(0)
    module = drop_auxiliary_heads(create(name, num_classes=10, shape=shape)).eval()
    exported = onnx_from_module(module, shape, opset=18, metadata={})
    fp32 = simplify(ir.to_proto(exported)).model
    quantized = ir.from_proto(fp32)
    seen = dict.fromkeys(every_float(quantized), 1.0)
    tensors = quantized_tensors(quantized.graph, TENSORRT)
    scales = {each: scale_of(Threshold(1.0, 0.0, 1.0), "int8") for each in tensors}
    precisions = insert_qdq(quantized, scales, TENSORRT)
    portable = quantized.clone()
    with_float_weights(portable)
    typed = ir.from_proto(at_opset(ir.to_proto(quantized), TYPED))
    half = half_from_ranges(ir.from_proto(fp32), seen).model
    return {
        PORTABLE.name: [at_opset(each, PORTABLE) for each in (fp32, ir.to_proto(portable))],
        TYPED.name: [
            at_opset(fp32, TYPED),
            at_opset(ir.to_proto(half), TYPED),
            ir.to_proto(half_from_qdq(typed, seen, precisions).model),
        ],
    }


@pytest.mark.parametrize(
    ("name", "shape"),
    [*NETS.items(), *(pytest.param(*row, marks=pytest.mark.slow) for row in SLOW.items())],
)
def test_a_net_has_no_findings(
    monkeypatch: pytest.MonkeyPatch, name: str, shape: tuple[int, int, int]
) -> None:
    """Where no TensorRT is, the target of that name stands for all versions that it may have."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    asked: dict[str, dict[Version, Parser]] = {PORTABLE.name: {}, TYPED.name: {}}
    for target in TARGETS.values():
        for row in parsers_of(target) if target.tensorrt else ():
            newer = TYPED if row.version >= Version("10.12") else PORTABLE
            asked[target.flavour or newer.name][row.version] = row
    for flavour, files in flavoured(name, shape).items():
        assert asked[flavour]
        for file in files:
            found = lint(ir.from_proto(file), [*asked[flavour].values()])
            assert {each.rule for each in found} == EXCEPTIONS.get(name, set()), found


def test_no_family_is_left_out() -> None:
    tried = {find(name).family for name in (*NETS, *SLOW)}
    assert tried == {each.family for each in variants().values()}
