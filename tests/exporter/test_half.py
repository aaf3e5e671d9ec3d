"""What FP16 cannot hold stays in FP32 and is named; the rest is typed, strictly.

FP16 is emulated node by node by onnx's reference implementation, which computes in the types
that are written in the graph: ONNX Runtime's CPU kernels would compute in FP32 and hide it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper, parser, shape_inference
from onnx.reference import ReferenceEvaluator

from convexport.exporter.half import Half, half_from_ranges
from convexport.runtime.errors import UnsupportedError, UsageError

Array = np.ndarray[Any, Any]

CONVS = """(float[N, 2, 8, 8] x) => (float[N, 3] y) {
    a = Conv<kernel_shape = [3, 3]> (x, wa, ba)
    r = Relu (a)
    b = Conv<kernel_shape = [3, 3]> (r, wb)
    s = Relu (b)
    p = GlobalAveragePool (s)
    f = Flatten (p)
    y = Gemm<transB = 1> (f, wc)
}"""
SHAPES = {"wa": (4, 2, 3, 3), "ba": (4,), "wb": (4, 4, 3, 3), "wc": (3, 4)}


def net(text: str, weights: dict[str, Array]) -> onnx.ModelProto:
    """A checked model with named nodes and inferred types, as simplification leaves it."""
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> net {text}')
    for name, array in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    for node in model.graph.node:
        node.name = f"node_{node.output[0]}"
    model = shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def weights(**scales: float) -> dict[str, Array]:
    random = np.random.default_rng(0)
    return {
        name: random.standard_normal(shape, dtype=np.float32) * np.float32(scales.get(name, 0.3))
        for name, shape in SHAPES.items()
    }


def images(scale: float = 1.0, shape: tuple[int, ...] = (4, 2, 8, 8)) -> Array:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32) * np.float32(scale)


def magnitudes(model: onnx.ModelProto, batch: Array) -> dict[str, float]:
    tensors = ReferenceEvaluator(model).run(None, {"x": batch}, intermediate=True)
    return {name: float(np.abs(each).max()) for name, each in tensors.items() if name}


def emulated(model: onnx.ModelProto, batch: Array) -> Array:
    with np.errstate(all="ignore"):
        return ReferenceEvaluator(model).run(None, {"x": batch})[0]


def narrowed(
    model: onnx.ModelProto, batch: Array | None = None, keep: tuple[str, ...] = ()
) -> tuple[onnx.ModelProto, Half]:
    """The typed model, its types checked; the given one must stay as it was."""
    before = model.SerializeToString(deterministic=True)
    seen = magnitudes(model, images() if batch is None else batch)
    half = half_from_ranges(ir.from_proto(model), seen, keep)
    assert model.SerializeToString(deterministic=True) == before
    typed = ir.to_proto(half.model)
    require_strict_types(typed)
    return typed, half


def require_strict_types(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    graph = inferred.graph
    types = {each.name: each.data_type for each in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        schema = onnx.defs.get_schema(node.op_type, 18)
        groups = defaultdict(set)
        for place, name in enumerate(node.input):
            if name:
                groups[schema.inputs[min(place, len(schema.inputs) - 1)].type_str].add(types[name])
        assert all(len(group) == 1 for group in groups.values()), f"{node.name} mixes types"
        if node.op_type == "Cast" and not node.name.startswith("node_"):
            assert types[node.input[0]] != types[node.output[0]], "a Cast to the same type"
            neighbours = [each for each in graph.node if node.output[0] in each.input]
            if node.input[0] in makers:
                neighbours.append(makers[node.input[0]])
            assert "Cast" not in {each.op_type for each in neighbours}, "a chain of Casts"
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    used = {name for node in graph.node for name in node.input}
    assert {each.name for each in graph.initializer} <= used, "a weight that nobody reads"


def close(actual: Array, expected: Array, share: float = 5e-3) -> bool:
    return bool(np.abs(actual - expected).max() <= share * np.abs(expected).max())


def test_what_fp16_holds_is_fp16() -> None:
    model = net(CONVS, weights())
    typed, half = narrowed(model)
    assert set(half.report.precisions.values()) == {"fp16"} and not half.report.kept
    assert [node.op_type for node in typed.graph.node].count("Cast") == half.report.casts == 2
    assert {each.data_type for each in typed.graph.initializer} == {TensorProto.FLOAT16}
    seen = magnitudes(model, images())
    largest = max(seen, key=seen.__getitem__)
    assert half.report.tightest == largest
    assert half.report.headroom_bits == pytest.approx(np.log2(65504 / seen[largest]))


def test_the_typed_graph_computes_what_onnx_says() -> None:
    model = net(CONVS, weights())
    typed, _ = narrowed(model)
    session = onnxruntime.InferenceSession(typed.SerializeToString())
    (fast,) = session.run(None, {"x": images()})
    slow, wide = emulated(typed, images()), emulated(model, images())
    assert fast.dtype == slow.dtype == np.float32
    # Seven nodes on the way, two roundings each at most, of values not much larger than the last.
    bound = 2 * 7 * 2.0**-11
    assert close(slow, wide, bound) and close(fast, wide, bound)
    assert not np.array_equal(slow, wide), "the emulation rounds nothing"


@pytest.mark.parametrize(("name", "node"), [("wa", "node_a"), ("wb", "node_b"), ("wc", "node_y")])
def test_weights_beyond_the_largest_number_keep_their_node_alone(name: str, node: str) -> None:
    given = weights(wa=1e-3)  # small enough that no activation overflows
    given[name].flat[:2] = 1e5, -7e4
    model, batch = net(CONVS, given), images(1e-3)
    typed, half = narrowed(model, batch)
    assert [name for name, kind in half.report.precisions.items() if kind == "fp32"] == [node]
    (row,) = half.report.kept
    assert (row.node, row.reason, row.tensor, row.count) == (node, "weight overflow", name, 2)
    assert row.magnitude == 1e5 and row.limit == 65504
    assert close(emulated(typed, batch), emulated(model, batch))
    kept = next(each for each in typed.graph.initializer if each.name == name)
    np.testing.assert_array_equal(numpy_helper.to_array(kept), given[name])


def test_an_activation_that_only_real_images_reach() -> None:
    model = net(CONVS, weights(wa=30.0, wb=1e-4))
    real = images(1e3)
    blind, half = narrowed(model, images(1e-2))
    assert set(half.report.precisions.values()) == {"fp16"}
    assert not np.isfinite(emulated(blind, real)).all(), "nothing overflows"
    typed, half = narrowed(model, real)
    rows = {(row.node, row.tensor) for row in half.report.kept}
    assert rows == {("node_a", "a"), ("node_r", "a"), ("node_r", "r"), ("node_b", "r")}
    assert {row.reason for row in half.report.kept} == {"activation overflow"}
    seen = magnitudes(model, real)
    row = next(row for row in half.report.kept if row.tensor == "a")
    assert row.magnitude == seen["a"] > 65504 and row.limit == 65504 / 4
    assert close(emulated(typed, real), emulated(model, real))


def test_weights_that_vanish() -> None:
    given = weights()
    given["wb"] *= np.float32(1e-8)
    given["wc"] *= np.float32(1e4)
    model = net(CONVS, given)
    typed, half = narrowed(model)
    rows = {row.tensor: row for row in half.report.kept}
    assert rows["wb"].reason == "weight underflow" and rows["wb"].count == 4
    assert half.report.precisions["node_b"] == "fp32"
    assert close(emulated(typed, images()), emulated(model, images()))
    given["wb"] = given["wb"].astype(np.float16).astype(np.float32)
    assert not close(emulated(net(CONVS, given), images()), emulated(model, images()))


def test_a_dead_channel_does_not_keep_its_layer() -> None:
    given = weights()
    given["wa"][1] *= np.float32(1e-10)
    model = net(CONVS, given)
    typed, half = narrowed(model)
    assert not half.report.kept
    (row,) = half.report.harmless
    assert (row.node, row.tensor, row.count) == ("node_a", "wa", 1)
    assert close(emulated(typed, images()), emulated(model, images()))


def test_activations_that_vanish() -> None:
    given = weights(wa=1e-5, ba=0.0, wb=1e3)
    model, batch = net(CONVS, given), images(1e-3)
    typed, half = narrowed(model, batch)
    assert {row.tensor for row in half.report.kept} >= {"a", "r"}
    assert {row.reason for row in half.report.kept} >= {"activation underflow"}
    assert close(emulated(typed, batch), emulated(model, batch))


def test_nodes_between_others_in_fp32_take_no_casts() -> None:
    model = net(CONVS, weights())
    _, half = narrowed(model, keep=("node_a", "node_b"))
    assert {row.node: row.reason for row in half.report.kept} == {
        "node_a": "requested",
        "node_r": "between",
        "node_b": "requested",
    }
    assert half.report.casts == 2  # behind b, and at the output
    _, half = narrowed(model, keep=("node_b",))
    assert half.report.casts == 4


def test_a_weight_of_both_precisions_is_stored_in_both() -> None:
    text = """(float[N, 2, 8, 8] x) => (float[N, 2, 8, 8] y) {
        a = Conv<kernel_shape = [1, 1]> (x, w)
        y = Conv<kernel_shape = [1, 1]> (a, w)
    }"""
    typed, half = narrowed(net(text, {"w": images(1, (2, 2, 1, 1))}), keep=("node_a",))
    assert half.report.precisions == {"node_a": "fp32", "node_y": "fp16"}
    assert sorted(each.data_type for each in typed.graph.initializer) == [1, 10]


def test_a_value_that_is_read_and_given_out() -> None:
    text = """(float[N, 2, 8, 8] x) => (float[N, 2, 8, 8] a, float[N, 2, 8, 8] y) {
        a = Relu (x)
        y = Conv<kernel_shape = [1, 1]> (a, w)
    }"""
    typed, half = narrowed(net(text, {"w": images(1, (2, 2, 1, 1))}))
    assert set(half.report.precisions.values()) == {"fp16"} and half.report.casts == 3
    assert [value.name for value in typed.graph.output] == ["a", "y"]


def test_what_is_fp16_already_stays_as_it_is() -> None:
    text = """(float[N, 3] x) => (float[N, 3] y) {
        a = Gemm (x, w)
        h = Cast<to = 10> (a)
        r = Relu (h)
        b = Cast<to = 1> (r)
        y = Gemm (b, w)
    }"""
    model = net(text, {"w": np.eye(3, dtype=np.float32)})
    typed, half = narrowed(model, images(1, (4, 3)), keep=("node_a",))
    assert (
        half.report.precisions["node_b"] == "fp16"
        and half.report.casts == 1
        and "node_r" not in half.report.precisions
    )
    assert close(emulated(typed, images(1, (4, 3))), emulated(model, images(1, (4, 3))))


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        (
            """(float[N, 3] x) => (float[N, 4] y) {
                a = Gemm (x, w)
                p = Softmax (a)
                q = Mul (p, half)
                l = Log (q)
                y = Gemm (l, v)
            }""",
            {"node_p": "operator", "node_q": "probabilities", "node_l": "operator"},
        ),
        (
            """(float[N, 3] x) => (float[N, 3] y) {
                a = Gemm (x, w)
                b = Relu (a)
                c = Add (b, one)
                y = Div (a, c)
            }""",
            {"node_y": "operator"},
        ),
        (
            """(float[N, 3] x) => (float[N, 3] y) {
                i = Shape (x)
                o = ConstantOfShape (i)
                a = Gemm (x, w)
                y = Add (a, o)
            }""",
            {"node_i": "between", "node_o": "type"},
        ),
        (
            """(float[N, 3] x) => (float[N, 3] y) {
                a = Gemm (x, w)
                y = If (yes) <
                    then_branch = positive () => (float[N, 3] t) { t = Relu (a) },
                    else_branch = negative () => (float[N, 3] e) { e = Neg (a) }
                >
            }""",
            {"node_y": "type"},
        ),
    ],
    ids=["softmax", "div", "typed by attribute", "subgraph"],
)
def test_operators_that_stay(text: str, reasons: dict[str, str]) -> None:
    constants = {
        "w": np.eye(3, dtype=np.float32),
        "v": np.ones((3, 4), np.float32),
        "half": np.array(0.5, np.float32),
        "one": np.array(1, np.float32),
        "yes": np.array(True),
    }
    words = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    model = net(text, {name: array for name, array in constants.items() if name in words})
    batch = images(5, (4, 3))
    typed, half = narrowed(model, batch)
    assert {row.node: row.reason for row in half.report.kept} == reasons
    assert close(emulated(typed, batch), emulated(model, batch))


@pytest.mark.parametrize(("size", "kept"), [(8, False), (128, True)])
def test_a_sum_over_much_is_kept(size: int, kept: bool) -> None:
    text = f"""(float[N, 2, {size}, {size}] x) => (float[N, 2, 1, 1] y) {{
        a = Conv<kernel_shape = [1, 1]> (x, w)
        y = GlobalAveragePool (a)
    }}"""
    model = net(text, {"w": images(1, (2, 2, 1, 1))})
    _, half = narrowed(model, images(1, (1, 2, size, size)))
    assert {row.reason for row in half.report.kept} == ({"sum"} if kept else set())


def test_lrn_stays_as_its_squares_would_overflow() -> None:
    text = """(float[N, 4, 8, 8] x) => (float[N, 4, 8, 8] y) {
        a = Conv<kernel_shape = [1, 1]> (x, w)
        b = LRN<size = 3> (a)
        y = Conv<kernel_shape = [1, 1]> (b, w)
    }"""
    batch = images(100, (2, 4, 8, 8))
    _, half = narrowed(net(text, {"w": images(1, (4, 4, 1, 1))}), batch)
    assert half.report.precisions == {"node_a": "fp16", "node_b": "fp32", "node_y": "fp16"}


def test_a_name_that_fits_no_node() -> None:
    with pytest.raises(UsageError) as error:
        narrowed(net(CONVS, weights()), keep=("node_bb",))
    assert error.value.code == "E0289" and "node_b" in error.value.hint


def test_a_pattern_may_not_take_everything() -> None:
    model = net(CONVS, weights())
    _, half = narrowed(model, keep=("node_[ab]",))
    assert half.report.precisions["node_a"] == half.report.precisions["node_b"] == "fp32"
    with pytest.raises(UnsupportedError) as error:
        narrowed(model, keep=("node_*",))
    assert error.value.code == "E0689" and "requested" in error.value.why
