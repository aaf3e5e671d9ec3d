"""The rules of our own, on ONNX written as text: what they rewrite, what not, and parity."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxsim
import onnxslim
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

from convexport.exporter.simplify import simplify
from convexport.exporter.simplify.rules import apply_rules
from convexport.runtime.errors import InputError


def graph(body: str, *, opset: int = 18, shape: str = "N, 3, 5, 7") -> onnx.ModelProto:
    return parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": {opset}]>
        net (float[{shape}] x) => (float[a, b] y) {{ {body} }}""")


def ruled(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, int]]:
    """Our rules alone, on a model with shapes inferred as the libraries leave them."""
    ir = onnx_ir.from_proto(onnx.shape_inference.infer_shapes(model))
    applied = apply_rules(ir)
    return onnx_ir.to_proto(ir), applied


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node if node.op_type != "Constant"]


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto, batch: int = 2) -> None:
    x = np.random.default_rng(0).standard_normal((batch, 3, 5, 7), dtype=np.float32)
    want = ReferenceEvaluator(before).run(None, {"x": x})[0]
    have = ReferenceEvaluator(after).run(None, {"x": x})[0]
    assert have.shape == want.shape
    np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-6)
    assert [value.name for value in after.graph.output] == ["y"]


POOL, FLATTEN = "global average pool", "flatten"


@pytest.mark.parametrize(
    ("body", "opset", "after", "applied"),
    [
        (
            "k = Constant<value_ints = [2, 3]> () y = ReduceMean<keepdims = 0> (x, k)",
            18,
            ["GlobalAveragePool", "Flatten"],
            {POOL: 1},
        ),
        (
            "k = Constant<value_ints = [-1, -2]> () m = ReduceMean<keepdims = 1> (x, k)"
            "y = Flatten<axis = 1> (m)",
            18,
            ["GlobalAveragePool", "Flatten"],
            {POOL: 1},
        ),
        (
            "y = ReduceMean<axes = [2, 3], keepdims = 0> (x)",
            13,
            ["GlobalAveragePool", "Flatten"],
            {POOL: 1},
        ),
        (
            "k = Constant<value_ints = [2, 3]> () r = Relu (x) m = ReduceMean (r, k)"
            "n = Neg (r) l = ReduceMean (n, k) s = Add (m, l) y = Flatten<axis = 1> (s)",
            18,
            ["Relu", "GlobalAveragePool", "Neg", "GlobalAveragePool", "Add", "Flatten"],
            {POOL: 2},
        ),
        (
            "s = Constant<value_ints = [-1, 105]> () y = Reshape (x, s)",
            18,
            ["Flatten"],
            {FLATTEN: 1},
        ),
        (
            "s = Constant<value_ints = [0, -1]> () y = Reshape (x, s)",
            18,
            ["Flatten"],
            {FLATTEN: 1},
        ),
        (
            "k = Constant<value_ints = [2, 3]> () s = Constant<value_ints = [-1, 3]> ()"
            "m = ReduceMean (x, k) y = Reshape (m, s)",
            18,
            ["GlobalAveragePool", "Flatten"],
            {POOL: 1, FLATTEN: 1},
        ),
    ],
    ids=["mean", "negative", "attribute", "two", "reshape", "zero", "both"],
)
def test_a_rule_fits(body: str, opset: int, after: list[str], applied: dict[str, int]) -> None:
    model = graph(body, opset=opset)
    changed, counts = ruled(model)
    assert (operators(changed), counts) == (after, applied)
    assert_same(model, changed)
    onnx.checker.check_model(changed, full_check=True)


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("k = Constant<value_ints = [1]> () m = ReduceMean (x, k) y = Flatten (m)", ""),
        ("k = Constant<value_ints = [1, 2]> () y = ReduceMean<keepdims = 0> (x, k)", ""),
        ("k = Constant<value_ints = [1, 2, 3]> () m = ReduceMean (x, k) y = Flatten (m)", ""),
        ("m = ReduceMean (x) y = Flatten (m)", ""),
        ("k = Constant<value_ints = [2, 3]> () m = ReduceSum (x, k) y = Flatten (m)", ""),
        ("s = Constant<value_ints = [-1, 35]> () y = Reshape (x, s)", ""),
        ("s = Constant<value_ints = [105, -1]> () y = Reshape (x, s)", ""),
        ("s = Constant<value_ints = [2, 105]> () y = Reshape (x, s)", "2, 3, 5, 7"),
        ("s = Constant<value_ints = [-1, 105]> () y = Reshape (x, s)", "2, 3, 5, 7"),
    ],
)
def test_a_rule_does_not_fit(body: str, shape: str) -> None:
    model = graph(body, shape=shape or "N, 3, 5, 7")
    changed, counts = ruled(model)
    assert (operators(changed), counts) == (operators(model), {})
    assert_same(model, changed)


def test_a_pool_that_is_also_an_output_keeps_its_name() -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 18]>
        net (float[N, 3, 5, 7] x) => (float[N, 3, 1, 1] pooled, float[N, 3] y) {
            k = Constant<value_ints = [2, 3]> ()
            pooled = ReduceMean (x, k)
            s = Constant<value_ints = [-1, 3]> ()
            y = Reshape (pooled, s)
        }""")
    changed, counts = ruled(model)
    assert [value.name for value in changed.graph.output] == ["pooled", "y"]
    assert counts == {POOL: 1, FLATTEN: 1}
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 7), dtype=np.float32)
    for want, have in zip(
        ReferenceEvaluator(model).run(None, {"x": x}),
        ReferenceEvaluator(changed).run(None, {"x": x}),
        strict=True,
    ):
        np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-6)


BODY = "k = Constant<value_ints = [2, 3]> () i = Identity (x) y = ReduceMean<keepdims = 0> (i, k)"


def broken(*arguments: Any, **options: Any) -> Any:
    raise RuntimeError("a core of C++ gave up")


def test_onnxsim_is_asked_first_and_metadata_stays() -> None:
    model = graph(BODY)
    model.metadata_props.add(key="convexport.name", value="tiny")
    done = simplify(model)
    assert (done.tool, done.applied) == ("onnxsim", {POOL: 1})
    assert operators(done.model) == ["GlobalAveragePool", "Flatten"]
    assert [(p.key, p.value) for p in done.model.metadata_props] == [("convexport.name", "tiny")]
    assert not done.model.graph.initializer, "the axes are left over"
    assert_same(model, done.model)


def test_onnxslim_stands_in_for_onnxsim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxsim, "simplify", broken)
    model = graph(BODY)
    done = simplify(model)
    assert (done.tool, done.applied) == ("onnxslim", {POOL: 1})
    assert operators(done.model) == ["GlobalAveragePool", "Flatten"]
    assert_same(model, done.model)


def test_where_neither_can_both_reasons_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxsim, "simplify", broken)
    monkeypatch.setattr(onnxslim, "slim", broken)
    with pytest.raises(InputError) as error:
        simplify(graph(BODY))
    assert error.value.code == "E0382"
    assert error.value.why.count("RuntimeError: a core of C++ gave up") == 2


def test_simplifying_twice_changes_nothing() -> None:
    once = simplify(graph(BODY)).model
    twice = simplify(once)
    assert twice.applied == {}
    assert list(twice.model.graph.node) == list(once.graph.node)
    assert list(twice.model.graph.initializer) == list(once.graph.initializer)


def test_the_model_that_was_given_is_left_alone() -> None:
    model = graph(BODY)
    before = model.SerializeToString()
    simplify(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    ("pool", "fits"),
    [
        ("AveragePool<kernel_shape = [1, 1]>", True),
        ("AveragePool<kernel_shape = [1, 1], strides = [1, 1], pads = [0, 0, 0, 0]>", True),
        ("MaxPool<kernel_shape = [1, 1]>", True),
        ("AveragePool<kernel_shape = [1, 1], strides = [2, 2]>", False),
        ("MaxPool<kernel_shape = [1, 1], strides = [1, 2]>", False),
        ("AveragePool<kernel_shape = [2, 1]>", False),
        ("AveragePool<kernel_shape = [1, 1], pads = [1, 1, 1, 1], count_include_pad = 1>", False),
    ],
)
def test_a_pool_of_one_pixel_is_removed_and_only_that(pool: str, fits: bool) -> None:
    before = graph(f"r = Relu (x) p = {pool} (r) n = Neg (p) y = Flatten<axis = 1> (n)")
    after, applied = ruled(before)
    assert applied.get("identity pool", 0) == int(fits)
    assert (pool.partition("<")[0] in operators(after)) != fits
    assert_same(before, after)
