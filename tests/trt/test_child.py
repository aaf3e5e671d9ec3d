"""Engines are built by a child process, which may die; with the recording double."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convexport.runtime.errors import (
    ConvexportError,
    GateError,
    InputError,
    MachineError,
    StorageError,
    UnsupportedError,
)
from convexport.runtime.trt_child import build_engine
from convexport.runtime.trt_config import TrtOptions
from convexport.runtime.trt_layers import read_layers, require_int8, summary
from convexport.runtime.trt_plan import read_facts
from convexport.runtime.trt_session import TrtSession
from tests.tiny import logits

from .conftest import VERSIONS, Says, sha256


def tensor(kind: str) -> dict[str, Any]:
    return {"Name": "t", "Location": "Device", "Dimensions": [1, 16, 8, 8], **_typed(kind)}


def _typed(kind: str) -> dict[str, str]:
    key = "Datatype" if kind.isalnum() else "Format/Datatype"
    return {key: kind}


# In the words of inspectors of 8.5, 10.3 and 11.
LAYERS = [
    {
        "Name": "Reformatting CopyNode for Input Tensor 0 to stem.conv/Conv + stem.act/Relu",
        "LayerType": "Reformat",
        "Inputs": [tensor("Row major linear FP32")],
        "Outputs": [tensor("Row major Int8 format")],
    },
    {
        "Name": "stem.conv/Conv + stem.act/Relu",
        "LayerType": "CaskConvolution",
        "Inputs": [tensor("Thirty-two wide channel vectorized row major Int8 format")],
        "Outputs": [tensor("Channel major FP16 format where channel % 8 == 0")],
    },
    {
        "Name": "__myl_Fc",
        "LayerType": "kgen",
        "Inputs": [tensor("Half")],
        "Outputs": [tensor("Float")],
        "Metadata": "[ONNX Layer: head.fc/Gemm]\x1e[ONNX Layer: head.fc/Gemm_2]",
    },
    "only a name",
]


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("/layer1/layer1.0/conv1/Conv + /layer1/layer1.0/relu/Relu", ("conv1", "relu")),
        ("/Mixed_5b/branch1x1/conv/Conv", ("Mixed_5b.branch1x1.conv",)),
    ],
)
def test_nodes_of_pytorchs_exporter_name_their_modules(name: str, modules: tuple[str, ...]) -> None:
    around = "layer1.0." if len(modules) == 2 else ""
    (layer,) = read_layers(json.dumps({"Layers": [name]}))
    assert layer.modules == tuple(f"{around}{each}" for each in modules)
    assert layer.convolutions == 1


def convolutions(*kinds: str) -> dict[str, Any]:
    rows = [{"Name": f"c{n}/Conv", "Inputs": [tensor(kind)]} for n, kind in enumerate(kinds)]
    rows.append({"Name": "r/Relu", "Inputs": [tensor("UInt8")]})
    return summary(read_layers(json.dumps({"Layers": rows})))


def test_an_int8_engine_has_most_convolutions_in_int8() -> None:
    floats = {f"c{n}/Conv": "fp16" for n in range(3)}
    assert "2 of 3 conv" in require_int8(convolutions("Int8", "Int8", "Half"), {})
    assert "1 of 1 conv" in require_int8(
        convolutions("Int8", "Half", "Half", "Half"), {**floats, "c0/Conv": "int8"}
    )
    assert "not confirmed" in require_int8(convolutions("", ""), {})
    for odd in (("Half",), ("Int8", "Half", "Half"), ("UInt8",)):
        with pytest.raises(GateError, match=r"E0502 \d of \d convolutions"):
            require_int8(convolutions(*odd), {})


def test_layers_are_told_with_precisions_and_modules() -> None:
    layers = read_layers(json.dumps({"Layers": LAYERS, "Bindings": []}))
    told = [(each.precision, each.output, each.modules, each.is_reformat) for each in layers]
    assert told == [
        ("fp32", "int8", ("stem.conv", "stem.act"), True),
        ("int8", "fp16", ("stem.conv", "stem.act"), False),
        ("fp16", "fp32", ("head.fc",), False),
        ("", "", (), False),
    ]
    assert summary(layers)["counts"] == {"int8": 1, "fp16": 1, "not told": 1}
    assert summary(layers)["reformats"] == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Layers": [{}]}'])
def test_an_unknown_report_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="E0319"):
        read_layers(text)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plan_comes_with_facts_layers_and_a_log(
    tensorrt: Says, onnx_file: Path, tmp_path: Path, version: str
) -> None:
    tensorrt(version, layers=LAYERS)
    plan, options = tmp_path / "out.plan", TrtOptions(typed=version == "11.1", batch=(1, 2, 4))
    made = build_engine(onnx_file, plan, options)
    assert made.layers["counts"] == {"int8": 1, "fp16": 1, "not told": 1}
    assert made.facts == read_facts(plan)
    assert made.facts.sha256 == sha256(plan) and made.facts.onnx_sha256 == sha256(onnx_file)
    assert "plugins are there" in plan.with_name("out.plan.log").read_text()
    batch = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 1, 2, 2)
    np.testing.assert_allclose(
        TrtSession(plan).run({"input": batch})["logits"], logits(batch), 1e-6
    )


def test_the_timing_cache_is_kept(tensorrt: Says, onnx_file: Path, tmp_path: Path) -> None:
    tensorrt("8.5")
    cache, options = tmp_path / "timing", TrtOptions(typed=False)
    first = build_engine(onnx_file, tmp_path / "a.plan", options, timing_cache=cache)
    size = cache.stat().st_size
    second = build_engine(onnx_file, tmp_path / "b.plan", options, timing_cache=cache)
    assert (first.cache_taken, second.cache_taken) == (False, True)
    assert cache.stat().st_size > size


def test_a_killed_build_says_what_memory_there_was(
    tensorrt: Says, onnx_file: Path, tmp_path: Path
) -> None:
    tensorrt("8.5", fail=f"signal {int(signal.SIGKILL)}")
    with pytest.raises(MachineError, match=r"E0412.*SIGKILL") as caught:
        build_engine(onnx_file, tmp_path / "a.plan", TrtOptions(typed=False))
    assert "4096 MiB of the GPU's memory" in caught.value.where
    assert "plugins are there" in caught.value.why  # the end of TensorRT's log
    assert "SIGKILL" in caught.value.hint
    assert not (tmp_path / "a.plan").exists()


def test_a_crash_is_not_called_a_lack_of_memory(
    tensorrt: Says, onnx_file: Path, tmp_path: Path
) -> None:
    tensorrt("8.5", fail=3)  # the double trips over it
    with pytest.raises(MachineError, match=r"E0412[^\n]*exit code 1") as caught:
        build_engine(onnx_file, tmp_path / "a.plan", TrtOptions(typed=False))
    assert "SIGKILL" not in caught.value.hint and "a.plan.log" in caught.value.hint


def test_a_full_disk_is_told_as_such(tensorrt: Says, onnx_file: Path, tmp_path: Path) -> None:
    tensorrt("8.5")
    (tmp_path / "a.plan").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="E0801"):
        build_engine(onnx_file, tmp_path / "a.plan", TrtOptions(typed=False))


@pytest.mark.parametrize(
    ("says", "kind", "text"),
    [
        ({"parser_errors": ["no such operator"]}, UnsupportedError, "E0603"),
        ({"fail": "say CUDA out of memory"}, MachineError, "E0406"),
        ({"says_version": "8.4.1"}, UnsupportedError, "E0601"),
    ],
)
def test_the_childs_errors_are_the_parents(
    tensorrt: Says,
    onnx_file: Path,
    tmp_path: Path,
    says: dict[str, Any],
    kind: type[ConvexportError],
    text: str,
) -> None:
    tensorrt("8.5", **says)
    with pytest.raises(kind, match=text):
        build_engine(onnx_file, tmp_path / "a.plan", TrtOptions(typed=False))
