"""The TensorRT lint: each rule trips on its graph and on no other's, and the command says so.

The rules are checked against what they were read from, not against TensorRT: none is here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, numpy_helper, parser

from convexport.exporter.targets import TARGETS
from convexport.exporter.trt_lint import RULES, Finding, lint
from convexport.exporter.trt_parsers import PARSERS, parsers_of

from .lint_models import BY_HAND, PASSES_IN, RELU, ROWS

SMALL = np.ones((2, 2, 1, 1), np.float32)


def parsed(text: str, opset: int, *, named: bool = True) -> onnx.ModelProto:
    imports = f'"": {opset}, "com.example": 1'
    model = parser.parse_model(f"<ir_version: 8, opset_import: [{imports}]> g {text}")
    for at, node in enumerate(model.graph.node):
        node.name = f"n{at}" if named else ""
    return model


def findings(model: onnx.ModelProto, version: str) -> list[Finding]:
    rows = [row for row in PARSERS if str(row.version) == version]
    assert rows, version
    return lint(ir.from_proto(model), rows)


def ids(model: onnx.ModelProto, version: str) -> set[str]:
    return {each.rule for each in findings(model, version)}


def test_every_rule_has_a_graph_that_trips_it_and_one_that_passes() -> None:
    assert {*ROWS} | BY_HAND == {*RULES}


@pytest.mark.parametrize("rule", ROWS)
def test_a_rule_trips_and_passes(rule: str) -> None:
    version, opset, trips, passes = ROWS[rule]
    hits = [each for each in findings(parsed(trips, opset), version) if each.rule == rule]
    assert hits and all(each.where and each.what and each.versions == (version,) for each in hits)
    assert rule not in ids(parsed(passes, PASSES_IN.get(rule, opset)), version)


@pytest.mark.parametrize("rule", ROWS)
def test_a_graph_that_passes_has_no_errors_at_all(rule: str) -> None:
    """What one rule takes to be right, no other calls wrong; but for its opset."""
    version, opset, _, passes = ROWS[rule]
    found = findings(parsed(passes, PASSES_IN.get(rule, opset)), version)
    wrong = {each.rule for each in found if each.severity == "error"}
    assert wrong <= {"opset-misread", "reduce-axes-input"} - {rule}


@pytest.mark.parametrize("rule", ROWS)
def test_a_rule_is_silent_for_versions_that_it_is_not_about(rule: str) -> None:
    _, opset, trips, _ = ROWS[rule]
    others = [row for row in PARSERS if not RULES[rule].holds(row)]
    found = lint(ir.from_proto(parsed(trips, opset)), others)
    assert rule not in {each.rule for each in found}


@pytest.mark.parametrize(("kind", "odd"), [(0, True), (TensorProto.UINT8, True), (3, False)])
def test_the_type_that_q_without_a_zero_point_gives(kind: int, odd: bool) -> None:
    text = f"""(float[N,2] x) => (float[N,2] y) <float s = {{0.1}}> {{
        q = QuantizeLinear<output_dtype = {kind}> (x, s) y = DequantizeLinear (q, s) }}"""
    assert ("zero-point-default" in ids(parsed(text, 21), "11.0")) == odd


def test_names_that_are_missing_or_shared() -> None:
    text = RELU.replace("y = Relu (x)", "a = Relu (x) y = Relu (a)")
    assert "node-names" in ids(parsed(text, 17, named=False), "8.5.2")
    assert "node-names" not in ids(parsed(text, 17), "8.5.2")


def test_weights_in_another_file(tmp_path: Path) -> None:
    text = "(float[N,2,4,4] x) => (float[N,2,4,4] y) { y = Conv (x, w) }"
    model = parsed(text, 17)
    model.graph.initializer.append(numpy_helper.from_array(SMALL, "w"))
    onnx.save(model, tmp_path / "in.onnx")
    onnx.save(model, tmp_path / "out.onnx", save_as_external_data=True, size_threshold=0)
    for name, expected in (("in", set()), ("out", {"external-data"})):
        found = lint(ir.load(tmp_path / f"{name}.onnx"), PARSERS)
        assert {each.rule for each in found} == expected


@pytest.mark.parametrize(
    "text",
    [
        "(float[N,2,4,4] x) => (float[N,9] y) <int64[2] s = {0,-1}> { y = Reshape (x, s) }",
        "(float[2,2] x, bool c) => (float y) { y = If (c) <"
        "then_branch = t () => (float u) { u = ReduceMean<keepdims = 0> (x) },"
        "else_branch = e () => (float v) { v = ReduceMax<keepdims = 0> (x) }> }",
    ],
)
def test_odd_graphs_are_looked_at_without_noise(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Shapes that contradict each other, and graphs within nodes."""
    assert ids(parsed(text, 17), "8.5.2") <= {"node-names"}
    assert not caplog.records


def test_rules_are_complete() -> None:
    for rule in RULES.values():
        assert rule.why and rule.fix and rule.source and rule.severity in ("error", "warning")
        assert any(rule.holds(row) for row in PARSERS), f"{rule.id} is about no version"


@pytest.mark.parametrize(
    ("target", "versions"),
    [
        ("jetson-jp5", ["8.5.2"]),
        ("jetson-jp6", ["10.3"]),
        ("jetson-jp7", ["10.13", "10.16", "11.0"]),
        ("tensorrt", ["8.5.2", "8.6.1", "10.3", "10.13", "10.16", "11.0"]),
    ],
)
def test_a_target_is_asked_for_all_versions_that_it_may_have(
    monkeypatch: pytest.MonkeyPatch, target: str, versions: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert [str(row.version) for row in parsers_of(TARGETS[target])] == versions


@pytest.mark.parametrize(
    ("found", "row"), [("8.5.3.1", "8.5.2"), ("10.0.1", "10.3"), ("10.9.0", "10.3")]
)
def test_the_version_that_is_here_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, found: str, row: str
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__=found))
    (parser,) = parsers_of(TARGETS["tensorrt"])
    assert str(parser.version) == found  # rules hold for versions, whatever the nearest row is
    (known,) = (each for each in PARSERS if str(each.version) == row)
    assert parser.operators == known.operators and parser.opset == known.opset


def test_the_table_of_operators_is_onnxs_own() -> None:
    """A name with a typing error would refuse what is supported."""
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    for row in PARSERS:
        assert row.operators <= known
    assert len(PARSERS[0].operators) == 136 + 3, "what the library says, and three by hand"


@pytest.mark.parametrize(
    ("operator", "place", "versions"),
    [
        ("Slice", "x, b, b, a", ["8.5.2", "8.6.1"]),
        ("ReduceMean", "x, a", [str(row.version) for row in PARSERS]),
    ],
)
def test_axes_that_are_computed(operator: str, place: str, versions: list[str]) -> None:
    """Slice takes them from 10.3 on, ReduceMean never."""
    text = (
        "(float[N,2,4,4] x, int64[1] a) => (float[N,c,h,w] y) <int64[1] b = {1}>"
        f" {{ y = {operator} ({place}) }}"
    )
    found = lint(ir.from_proto(parsed(text, 18)), PARSERS)
    assert [list(each.versions) for each in found if each.rule == "computed-axes"] == [versions]


@pytest.fixture
def opset_18(home: Path) -> Path:
    """What torch writes of ``x.mean([2, 3])``."""
    text = ROWS["reduce-axes-input"][2].replace("(x, a)", "<keepdims = 1> (x, a)")
    onnx.save(parsed(text.replace("ReduceMean <", "ReduceMean<"), 18), home / "mean.onnx")
    return home / "mean.onnx"


def test_inspect_prints_findings_with_their_fixes(invoke: Any, opset_18: Path) -> None:
    done = invoke("inspect", opset_18, "--target", "jetson-jp5")
    assert done.code == 6
    for text in ("error reduce-axes-input", "reduces over all axes", "n0", "fix: ", "8.5.2"):
        assert text in done.out
    assert invoke("inspect", opset_18, "--target", "jetson-jp6").code == 0
    assert invoke("inspect", opset_18).code == 0


def test_inspect_gives_the_same_as_json(invoke: Any, opset_18: Path) -> None:
    done = invoke("inspect", opset_18, "--target", "jetson-jp5", "--json")
    assert done.code == 6
    found = done.json()["lint"]
    assert found["errors"] == 2 and found["warnings"] == 0
    assert {each["rule"] for each in found["findings"]} == {"opset-misread", "reduce-axes-input"}
    assert all(each["fix"] and each["source"] for each in found["findings"])


def test_warnings_alone_are_no_failure(invoke: Any, home: Path) -> None:
    onnx.save(parsed(ROWS["free-size"][2], 17), home / "free.onnx")
    done = invoke("inspect", home / "free.onnx", "--target", "jetson-jp5")
    assert done.code == 0 and "warning free-size" in done.out


def test_inspect_looks_into_bundles(invoke: Any, bundle: Path) -> None:
    done = invoke("inspect", bundle, "--target", "jetson-jp5", "--json")
    assert done.code == 6
    rules = {each["rule"] for each in done.json()["lint"]["findings"]}
    assert {"zero-point-type", "bias-quantized", "opset-misread"} <= rules, "made for the CPU"


def test_a_target_without_tensorrt_has_no_rules(invoke: Any, opset_18: Path) -> None:
    assert invoke("inspect", opset_18, "--target", "cpu").failed_with(2, "E0290")
    done = invoke("inspect", opset_18, "--target", "jetson-jp9")
    assert done.failed_with(2, "E0280") and "jetson-jp7" in done.err
