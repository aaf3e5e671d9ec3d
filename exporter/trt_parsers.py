"""What the ONNX parser of each TensorRT version knows: opsets, types and operators, as a table.

Operators are those of the importers in onnx/onnx-tensorrt at 8.5-GA, 8.6-GA, 10.0-GA and 10.1-GA
(the 8.5.3.1 library names the same for 8.5), and what NVIDIA/TensorRT's CHANGELOG names since.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from packaging.version import Version

from convexport.exporter.flavours import found_version
from convexport.exporter.targets import Target
from convexport.runtime.errors import MachineError

_SINCE_8_5 = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil
Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace
DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather
GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual
GridSample HardSigmoid HardSwish Identity If InstanceNormalization IsNaN LRN LSTM LeakyRelu Less
LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean
MeanVarianceNormalization Min Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow
QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal
ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign Round Scan Scatter ScatterElements
ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth
Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample
Where Xor
"""
_8_5 = frozenset(_SINCE_8_5.split())
_8_6 = _8_5 | {"GroupNormalization", "IsInf", "LayerNormalization"}
_10_3 = _8_6 | {"CastLike", "DeformConv", "Gelu", "Hardmax", "Mish"}
_10_13 = _10_3 | {"BlackmanWindow", "HammingWindow", "HannWindow", "STFT"}
_10_16 = _10_13 | {"Attention", "RMSNormalization", "RotaryEmbedding", "TensorScatter"}
_11 = _10_16 | {"Swish"}

# DOUBLE is narrowed to FLOAT everywhere; UINT8 is for inputs and outputs, followed by a Cast.
_TYPES_8 = frozenset({"FLOAT", "FLOAT16", "DOUBLE", "INT8", "UINT8", "INT32", "INT64", "BOOL"})
_TYPES_10 = _TYPES_8 | {"BFLOAT16", "FLOAT8E4M3FN", "INT4"}
_TYPES_10_8 = _TYPES_10 | {"FLOAT4E2M1"}


@dataclass(frozen=True)
class Parser:
    """One version's parser.

    Attributes:
        opset: the highest that its documentation names; from 10.6 to 10.16 that of the ONNX 1.17
            that it holds.
        types: of tensors, by ONNX's names.
        operators: of the default domain.
    """

    version: Version
    opset: int
    types: frozenset[str]
    operators: frozenset[str]


PARSERS = (
    Parser(Version("8.5.2"), 17, _TYPES_8, _8_5),
    Parser(Version("8.6.1"), 17, _TYPES_8, _8_6),
    Parser(Version("10.3"), 20, _TYPES_10, _10_3),
    Parser(Version("10.13"), 22, _TYPES_10_8, _10_13),
    Parser(Version("10.16"), 22, _TYPES_10_8, _10_16),
    Parser(Version("11.0"), 25, _TYPES_10_8, _11),
)


def parsers_of(target: Target) -> tuple[Parser, ...]:
    """Those that a target may have: where its version is that of this machine, one if it is there.

    Raises:
        UnsupportedError: E0690, the version that is here is not known.
    """
    rows = tuple(row for row in PARSERS if row.version in target.tensorrt_versions)
    if target.flavour:
        return rows
    try:
        found = found_version(target)
    except MachineError:
        return rows
    # Of the same major: what 10 reads is nearer to 10.3 than to 8.6.
    near = [row for row in rows if row.version.major == found.major] or list(rows)
    known = next((row for row in reversed(near) if row.version <= found), near[0])
    return (replace(known, version=found),)
