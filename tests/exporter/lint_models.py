"""For every rule of the TensorRT lint a graph that trips it and one that does not, as ONNX text.

A row: a version of TensorRT to which the rule applies, the opset, and both graphs.
"""

from __future__ import annotations

Row = tuple[str, int, str, str]

_X = "(float[N,2,4,4] x) => "
_SCALED = "float s = {0.1}, int8 z = {0}"
_W1 = "float[2,2,1,1] w = {1,2,3,4}"
_PADS = "int64[8] p = {0,0,0,0,0,0,1,1}"


def _qdq(extra: str = _SCALED, inputs: str = "s, z") -> str:
    """Q/DQ on the input, with other parameters."""
    return (
        f"{_X}(float[N,2,4,4] y) <{extra}> {{ q = QuantizeLinear (x, {inputs})"
        f" d = DequantizeLinear (q, {inputs}) y = Relu (d) }}"
    )


def _weights(scale: str, *, axis: str = "", operator: str = "Conv", stored: bool = False) -> str:
    """A convolution of quantized weights (3 out, 2 in)."""
    shape = "3,2,1,1" if operator == "Conv" else "2,3,1,1"
    kind = "int8" if stored else "float"
    zeros = "{0,0,0}" if "3" in scale else "{0,0}" if "2" in scale else "{0}"
    quantize = "" if stored else f"q = QuantizeLinear{axis} (w, s, z)"
    size = scale.partition(" ")[0]
    return (
        f"{_X}(float[N,3,4,4] y) <float{scale}, int8{size} z = {zeros},"
        f" {kind}[{shape}] w = {{1,2,3,4,5,6}}> {{ {quantize}"
        f" d = DequantizeLinear{axis} ({'w' if stored else 'q'}, s, z) y = {operator} (x, d) }}"
    )


def _pool(attributes: str, outputs: str = "y", declared: str = "(float[N,2,3,3] y)") -> str:
    return f"{_X}{declared} {{ {outputs} = MaxPool<kernel_shape = [2,2]{attributes}> (x) }}"


def _resize(attributes: str) -> str:
    return (
        f"{_X}(float[N,2,8,8] y) <float[4] f = {{1,1,2,2}}>"
        f' {{ y = Resize<mode = "linear"{attributes}> (x, , f) }}'
    )


def _concat(second: str) -> str:
    return (
        f"{_X}(float[N,4,4,4] y) <{_SCALED}, float t = {{0.2}}> {{ a = QuantizeLinear (x, s, z)"
        f" b = DequantizeLinear (a, s, z) r = Relu (x) c = QuantizeLinear (r, {second}, z)"
        f" d = DequantizeLinear (c, {second}, z) y = Concat<axis = 1> (b, d) }}"
    )


_HALF = (
    "(float16[N,2,4,4] x) => (float16[N,2,4,4] y) <float16 s = {1}, int8 z = {0}>"
    " { q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) y = Relu (d) }"
)
RELU = _X + "(float[N,2,4,4] y) { y = Relu (x) }"
_PAIR = "q = QuantizeLinear ({0}, s, z) d = DequantizeLinear (q, s, z)"
_MEAN = "(float[N,2,1,1] y)"

ROWS: dict[str, Row] = {
    "opset-misread": ("8.5.2", 18, RELU, RELU),
    "opset-newer": ("10.3", 21, RELU, RELU),
    "reduce-axes-input": (
        "8.6.1",
        18,
        f"{_X}{_MEAN} <int64[2] a = {{2,3}}> {{ y = ReduceMean (x, a) }}",
        f"{_X}{_MEAN} {{ y = GlobalAveragePool (x) }}",
    ),
    "computed-axes": (
        "10.3",
        18,
        f"(float[N,2,4,4] x, int64[2] a) => {_MEAN} {{ y = ReduceMean (x, a) }}",
        f"{_X}{_MEAN} <int64[2] a = {{2,3}}> {{ y = ReduceMean (x, a) }}",
    ),
    "pad-axes": (
        "8.5.2",
        18,
        f"{_X}(float[N,2,4,5] y) <int64[2] p = {{0,1}}, float v = {{0}}, int64[1] a = {{3}}>"
        " { y = Pad (x, p, v, a) }",
        f"{_X}(float[N,2,5,5] y) <{_PADS}> {{ y = Pad (x, p) }}",
    ),
    "computed-pads": (
        "11.0",
        17,
        "(float[N,2,4,4] x, int64[8] p) => (float[N,2,a,b] y) { y = Pad (x, p) }",
        f"{_X}(float[N,2,5,5] y) <{_PADS}> {{ y = Pad (x, p) }}",
    ),
    "operator": ("8.5.2", 18, f"{_X}(float[N,2,4,4] y) {{ y = Mish (x) }}", RELU),
    "operator-unknown": (
        "11.0",
        18,
        "(int32[4] x) => (int32[4] y) { y = BitwiseNot (x) }",
        RELU,
    ),
    "domain": (
        "10.3",
        17,
        f"{_X}(float[N,2,4,4] y) {{ y = com.example.Swish (x) }}",
        RELU,
    ),
    "data-dependent": (
        "8.5.2",
        17,
        f"{_X}(int64[4,n] y) {{ y = NonZero (x) }}",
        RELU,
    ),
    "type": (
        "8.5.2",
        17,
        "(uint16[4] x) => (float[4] y) { y = Cast<to = 1> (x) }",
        "(uint8[4] x) => (float[4] y) { y = Cast<to = 1> (x) }",
    ),
    "float64": (
        "11.0",
        17,
        "(double[4] x) => (float[4] y) { y = Cast<to = 1> (x) }",
        "(int32[4] x) => (float[4] y) { y = Cast<to = 1> (x) }",
    ),
    "int64-range": (
        "8.5.2",
        17,
        "(int32[4] x) => (int64[4] y) <int64 b = {9223372036854775807}>"
        " { c = Cast<to = 7> (x) y = Add (c, b) }",
        f"{_X}(float[N,1,4,4] y) <int64[1] b = {{1}}, int64[1] e = {{9223372036854775807}},"
        " int64[1] a = {1}> { y = Slice (x, b, e, a) }",
    ),
    "int64-boundary": (
        "8.6.1",
        17,
        "(int32[4] x) => (int64[4] y) { y = Cast<to = 7> (x) }",
        "(int64[4] x) => (float[4] y) { y = Cast<to = 1> (x) }".replace("int64", "int32"),
    ),
    "free-size": ("10.3", 17, "(float[N,2,H,W] x) => (float[N,2,H,W] y) { y = Relu (x) }", RELU),
    "batchnorm": (
        "8.5.2",
        17,
        f"{_X}(float[N,2,4,4] y) <float[2] a = {{1,1}}, float[2] b = {{0,0}}>"
        " { y = BatchNormalization (x, a, b, b, a) }",
        RELU,
    ),
    "resize-mode": (
        "8.5.2",
        19,
        _resize(', coordinate_transformation_mode = "half_pixel_symmetric"'),
        _resize(""),
    ),
    "resize-cubic": (
        "10.3",
        17,
        _resize("").replace("linear", "cubic"),
        _resize(""),
    ),
    "pool-indices": (
        "8.5.2",
        17,
        _pool("", "y, i", "(float[N,2,3,3] y, int64[N,2,3,3] i)"),
        _pool(""),
    ),
    "pool-dilations": (
        "11.0",
        17,
        _pool(", dilations = [2,2]", declared="(float[N,2,2,2] y)"),
        _pool(", dilations = [1,1]"),
    ),
    "zero-point-missing": ("8.5.2", 17, _qdq(inputs="s"), _qdq()),
    "zero-point-default": ("10.3", 17, _qdq(inputs="s"), _qdq()),
    "zero-point-type": ("8.5.2", 17, _qdq("float s = {0.1}, uint8 z = {0}"), _qdq()),
    "zero-point-value": ("10.3", 17, _qdq("float s = {0.1}, int8 z = {3}"), _qdq()),
    "zero-point-size": ("8.5.2", 17, _qdq("float s = {0.1}, int8[2] z = {0,0}"), _qdq()),
    "scale-computed": (
        "11.0",
        17,
        "(float[N,2,4,4] x, float s) => (float[N,2,4,4] y) <int8 z = {0}>"
        " { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }",
        _qdq(),
    ),
    "scale-value": ("8.5.2", 17, _qdq("float s = {0}, int8 z = {0}"), _qdq()),
    "scale-type": (
        "8.5.2",
        19,
        _HALF,
        _qdq(),
    ),
    "scale-and-input": (
        "10.13",
        23,
        "(float16[N,2,4,4] x) => (float[N,2,4,4] y) <float s = {1}, int8 z = {0}>"
        " { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }",
        _qdq(),
    ),
    "axis-omitted": ("11.0", 17, _weights("[2] s = {1,1}"), _weights(" s = {1}")),
    "activation-axis": (
        "10.3",
        17,
        _qdq("float[2] s = {0.1,0.1}, int8[2] z = {0,0}").replace("Linear (", "Linear<axis = 1> ("),
        _weights("[3] s = {1,1,1}", axis="<axis = 0>"),
    ),
    "weight-axis": (
        "8.5.2",
        17,
        _weights("[2] s = {1,1}", axis="<axis = 1>"),
        _weights("[3] s = {1,1,1}", axis="<axis = 1>", operator="ConvTranspose"),
    ),
    "weight-int8": ("8.5.2", 17, _weights(" s = {1}", stored=True), _weights(" s = {1}")),
    "int8-identity": (
        "8.5.2",
        17,
        f"{_X}(float[N,2,4,4] y) <{_SCALED}> {{ i = Identity (z) q = QuantizeLinear (x, s, i)"
        " y = DequantizeLinear (q, s, i) }",
        f"{_X}(float[N,2,4,4] y) <{_SCALED}>"
        f" {{ i = Identity (x) {_PAIR.format('i')} y = Relu (d) }}",
    ),
    "bias-quantized": (
        "10.3",
        17,
        f"{_X}(float[N,2,4,4] y) <{_W1}, int32[2] b = {{1,2}}, float s = {{0.1}}>"
        " { d = DequantizeLinear (b, s) y = Conv (x, w, d) }",
        f"{_X}(float[N,2,4,4] y) <{_W1}, float[2] b = {{1,2}}> {{ y = Conv (x, w, b) }}",
    ),
    "output-quantized": (
        "8.5.2",
        17,
        f"{_X}(float[N,2,4,4] d) <{_SCALED}> {{ {_PAIR.format('x')} }}",
        _qdq(),
    ),
    "conv-transpose": (
        "10.3",
        17,
        f"{_X}(float[N,2,4,4] y) <{_W1}, {_SCALED}>"
        f" {{ {_PAIR.format('x')} y = ConvTranspose (d, w) }}",
        f"{_X}(float[N,2,4,4] y) <{_W1}, {_SCALED}> {{ {_PAIR.format('x')} y = Conv (d, w) }}",
    ),
    "int8-with-fp32": (
        "11.0",
        19,
        _qdq(),
        _HALF,
    ),
    "concat-scales": ("8.5.2", 17, _concat("t"), _concat("s")),
    "pad-apart": (
        "11.0",
        17,
        f"{_X}(float[N,2,5,5] y) <{_W1}, {_SCALED}, {_PADS}>"
        f" {{ a = Pad (x, p) {_PAIR.format('a')} y = Conv (d, w) }}",
        f"{_X}(float[N,2,5,5] y) <{_W1}, {_SCALED}, {_PADS}>"
        f" {{ {_PAIR.format('x')} a = Pad (d, p) y = Conv (a, w) }}",
    ),
    "activation-apart": (
        "8.5.2",
        17,
        f"{_X}(float[N,2,4,4] y) <{_W1}, {_SCALED}>"
        f" {{ a = Conv (x, w) {_PAIR.format('a')} y = Relu (d) }}",
        f"{_X}(float[N,2,4,4] y) <{_W1}, {_SCALED}>"
        f" {{ a = Conv (x, w) r = Relu (a) {_PAIR.format('r')} y = Conv (d, w) }}",
    ),
}
# A graph that passes has another opset.
PASSES_IN = {"opset-misread": 17, "opset-newer": 20, "resize-mode": 17}
# Nothing that text can say: the tests make these by hand.
BY_HAND = {"external-data", "node-names"}
