"""Each version's builder is told what was asked for, by names that its bindings have.

These tests run against a recording double: they prove wiring, not that TensorRT builds anything.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from convexport.runtime import trt_builder
from convexport.runtime.errors import ConvexportError, MachineError, UnsupportedError, UsageError
from convexport.runtime.trt_builder import BuiltPlan, build_plan, memory_needed
from convexport.runtime.trt_config import TrtOptions
from convexport.runtime.trt_versions import (
    GENERATIONS,
    bits,
    fits,
    generation,
    generations,
    parse_version,
)

from .conftest import HERE, VERSIONS, Says

SURFACE = json.loads((HERE / "surface.json").read_text())
CHOOSES = {v: v != "11.1" for v in VERSIONS}  # whether the builder may choose types
TYPED = {v: not v.startswith("8") for v in VERSIONS}


def told(onnx: Path, options: TrtOptions, cache: bytes = b"") -> tuple[dict[str, Any], BuiltPlan]:
    made = build_plan(onnx, options, cache)
    return json.loads(made.plan), made


@pytest.mark.parametrize("version", [v for v in VERSIONS if CHOOSES[v]])
def test_a_builder_that_chooses_types_gets_flags(
    tensorrt: Says, onnx_file: Path, version: str
) -> None:
    tensorrt(version)
    said, _ = told(onnx_file, TrtOptions(typed=False, fp16=True, int8=True, batch=(1, 4, 8)))
    assert said["network"] == (["EXPLICIT_BATCH"] if version.startswith("8") else [])
    assert said["set"] == ["FP16", "INT8"]
    assert said["cleared"] == ["TF32"]
    assert said["profiles"] == [{"input": [[n, 1, 2, 2] for n in (1, 4, 8)]}]
    assert said["profiling_verbosity"] == "DETAILED"


@pytest.mark.parametrize("version", [v for v in VERSIONS if TYPED[v]])
def test_a_graph_with_types_sets_no_precision(
    tensorrt: Says, onnx_file: Path, version: str
) -> None:
    tensorrt(version)
    said, _ = told(onnx_file, TrtOptions(typed=True))
    assert said["network"] == ["STRONGLY_TYPED"]
    assert said["set"] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_the_other_way_is_refused(tensorrt: Says, onnx_file: Path, version: str) -> None:
    tensorrt(version)
    for typed, possible in ((True, TYPED[version]), (False, CHOOSES[version])):
        if not possible:
            with pytest.raises(UnsupportedError, match="E0602"):
                build_plan(onnx_file, TrtOptions(typed=typed))


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_else_by_its_name(tensorrt: Says, onnx_file: Path, version: str) -> None:
    tensorrt(version)
    options = TrtOptions(
        typed=TYPED[version], workspace_mib=64, tf32=True, refit=True, own_kernels=True
    )
    said, _ = told(onnx_file, options)
    assert said["pools"] == {"WORKSPACE": 64 << 20}
    assert sorted(said["set"]) == ["REFIT", "TF32"] and said["cleared"] == []
    assert said["tactics"] == ["EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"]
    preview = [["DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805", True]]
    assert said["preview"] == (preview if version.startswith("8") else [])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("more", "shown", "first"),
    [
        ({"level": 5}, ("builder_optimization_level", 5), "8.6"),
        ({"hardware": "ampere_plus"}, ("hardware_compatibility_level", "AMPERE_PLUS"), "8.6"),
        (
            {"hardware": "same_compute_capability"},
            ("hardware_compatibility_level", "SAME_COMPUTE_CAPABILITY"),
            "10.16",
        ),
        ({"version_compatible": True}, ("set", ["VERSION_COMPATIBLE"]), "8.6"),
    ],
)
def test_what_a_version_has_no_name_for_is_refused(
    tensorrt: Says,
    onnx_file: Path,
    version: str,
    more: dict[str, Any],
    shown: tuple[str, Any],
    first: str,
) -> None:
    tensorrt(version)
    options = TrtOptions(typed=TYPED[version], **more)
    if parse_version(version) < parse_version(first):
        with pytest.raises(UnsupportedError, match="E0602"):
            build_plan(onnx_file, options)
    else:
        assert told(onnx_file, options)[0][shown[0]] == shown[1]


def test_a_dla_needs_a_version_that_drives_one_and_a_core(tensorrt: Says, onnx_file: Path) -> None:
    weak = TrtOptions(typed=False, fp16=True, dla=1)
    tensorrt("10.3", dla_cores=2)
    said, _ = told(onnx_file, weak)
    assert (said["default_device_type"], said["DLA_core"]) == ("DLA", 1)
    assert "GPU_FALLBACK" in said["set"]
    tensorrt("10.3", dla_cores=1)
    with pytest.raises(MachineError, match="E0402 there is no DLA core 1"):
        build_plan(onnx_file, weak)
    tensorrt("10.16", dla_cores=2)
    with pytest.raises(UnsupportedError, match=r"E0602 TensorRT 10\.16\.\S+ has no DLA"):
        build_plan(onnx_file, weak)


@pytest.mark.parametrize("version", [v for v in VERSIONS if CHOOSES[v]])
def test_layers_that_fp16_cannot_hold_stay_in_fp32(
    tensorrt: Says, onnx_file: Path, version: str
) -> None:
    tensorrt(version)
    kept = TrtOptions(typed=False, fp16=True, fp32_layers=("head/LogSoftmax",))
    said, _ = told(onnx_file, kept)
    names = ("head/LogSoftmax", "(Unnamed Layer* 4) [Unary]", "(Unnamed Layer* 5) [Shuffle]")
    assert said["held"] == {name: ["FLOAT", "FLOAT"] for name in names}
    assert said["set"] == ["FP16", "OBEY_PRECISION_CONSTRAINTS"]
    with pytest.raises(UnsupportedError, match=r"E0606[\s\S]*where: gone/Exp"):
        build_plan(onnx_file, TrtOptions(typed=False, fp16=True, fp32_layers=("gone/Exp",)))


def test_a_timing_cache_is_taken_or_begun_anew(tensorrt: Says, onnx_file: Path) -> None:
    tensorrt("8.5")
    options = TrtOptions(typed=False)
    first = build_plan(onnx_file, options)
    assert first.timing_cache and not first.cache_taken
    second = build_plan(onnx_file, options, first.timing_cache)
    assert second.cache_taken and len(second.timing_cache) > len(first.timing_cache)
    tensorrt("8.6")
    other = build_plan(onnx_file, options, first.timing_cache)
    assert not other.cache_taken and other.timing_cache.startswith(b"8.6.")


@pytest.mark.parametrize("version", ["8.5", "10.3"])
def test_all_of_the_parsers_errors_are_told(tensorrt: Says, onnx_file: Path, version: str) -> None:
    tensorrt(version, parser_errors=["no such operator", "odd zero point"])
    with pytest.raises(UnsupportedError, match=r"E0603.*2 errors") as caught:
        build_plan(onnx_file, TrtOptions(typed=False))
    names = ("node 0", "node 1") if version == "8.5" else ("features.0 (Conv)", "features.1 (Conv)")
    for name, text in zip(names, ("no such operator", "odd zero point"), strict=True):
        assert f"{name}: {text}" in caught.value.where


def test_a_build_without_memory_says_how_much_there_is(
    tensorrt: Says, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorrt("8.5", fail="say Error Code 2: OutOfMemory (requested 8 GiB)")
    with pytest.raises(MachineError, match=r"E0406[\s\S]*4096 MiB are free") as caught:
        build_plan(onnx_file, TrtOptions(typed=False))
    assert "requested 8 GiB" in caught.value.what
    monkeypatch.setenv("FAKE_CUDA_FREE_MIB", "100")
    with pytest.raises(MachineError, match="at least 101 MiB are needed, 100 MiB are free"):
        build_plan(onnx_file, TrtOptions(typed=False, workspace_mib=101))
    monkeypatch.setattr(trt_builder, "free_memory", lambda: 1 << 20)
    with onnx_file.open("r+b") as file:
        file.truncate(1 << 20)
    assert memory_needed(onnx_file, TrtOptions(typed=False)) == (2 << 20, 3 << 20)
    with pytest.raises(MachineError, match=r"E0406 the host has[\s\S]*at least 3 MiB"):
        build_plan(onnx_file, TrtOptions(typed=False))


@pytest.mark.parametrize(
    ("fail", "kind", "text"),
    [
        ("say Q/DQ node is odd", UnsupportedError, "E0604[\\s\\S]*Q/DQ node is odd"),
        ("start", MachineError, "E0408[\\s\\S]*initialization failure with error: 35"),
    ],
)
def test_a_failed_build_is_told_in_tensorrts_words(
    tensorrt: Says, onnx_file: Path, fail: str, kind: type[ConvexportError], text: str
) -> None:
    tensorrt("10.3", fail=fail)
    with pytest.raises(kind, match=text):
        build_plan(onnx_file, TrtOptions(typed=False))


@pytest.mark.parametrize(
    ("shape", "batch", "code"),
    [([4, 1, 2, 2], (1, 4, 8), "E0205"), ([-1, 1, -1, -1], (1, 1, 1), "E0604")],
)
def test_a_batch_that_the_graph_cannot_have_is_refused(
    tensorrt: Says, onnx_file: Path, shape: list[int], batch: tuple[int, int, int], code: str
) -> None:
    tensorrt("10.3", input=shape)
    with pytest.raises(ConvexportError, match=code):
        build_plan(onnx_file, TrtOptions(typed=False, batch=batch))


def test_a_fixed_batch_needs_no_profile(tensorrt: Says, onnx_file: Path) -> None:
    tensorrt("10.3", input=[4, 1, 2, 2])
    assert told(onnx_file, TrtOptions(typed=False, batch=(4, 4, 4)))[0]["profiles"] == []


@pytest.mark.parametrize(
    "bad",
    [
        {"batch": (2, 1, 4)},
        {"batch": (0, 1, 4)},
        {"level": 6},
        {"workspace_mib": 0},
        {"hardware": "any"},
        {"dla": -1},
        {"typed": True, "fp16": True},
        {"typed": True, "fp32_layers": ("a",)},
    ],
)
def test_options_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="E0204"):
        TrtOptions(**{"typed": False, **bad})


def test_options_survive_json() -> None:
    options = TrtOptions(typed=False, fp16=True, batch=(2, 2, 2), dla=0, fp32_layers=("a",))
    assert TrtOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options


@pytest.mark.parametrize(
    ("version", "versions", "inside"),
    [
        ("8.5.2.2", ">=8.5.2,<8.6", True),
        ("8.5.1.7", ">=8.5.2,<8.6", False),
        ("8.6.1.6", ">=8.5.2,<8.6", False),
        ("10.13.0", ">=10.13,<12", True),
        ("10.3.0", ">=10.13,<12", False),
    ],
)
def test_ranges_of_versions(version: str, versions: str, inside: bool) -> None:
    assert fits(version, versions) == inside
    assert (Version(version) in SpecifierSet(versions)) == inside


@pytest.mark.parametrize(
    ("versions", "since"),
    [
        (">=8.5.2,<8.6", [(8, 5)]),
        (">=10.3,<10.4", [(10, 0)]),
        (">=10.13,<12", [(10, 12), (11, 0), (11, 4)]),
        (">=8.5,<12,<10.12", [(8, 5), (8, 6), (10, 0), (10, 8)]),
    ],
)
def test_generations_of_a_range(versions: str, since: list[tuple[int, int]]) -> None:
    assert [row.since for row in generations(versions)] == since


def test_old_versions_are_refused_and_rows_are_in_order() -> None:
    with pytest.raises(UnsupportedError, match=r"E0601 TensorRT 8\.4\.1 is too old"):
        generation("8.4.1")
    with pytest.raises(UnsupportedError, match="E0601"):
        generation("new")
    assert generation("10.12.0").prefers_graph and not generation("10.3.0").prefers_graph
    assert [row.since for row in GENERATIONS] == sorted(row.since for row in GENERATIONS)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_table_agrees_with_the_names(version: str) -> None:
    """Where names do tell, they tell what the rows say."""
    names, row = SURFACE[version]["names"], generation(version)
    typed = "STRONGLY_TYPED" in names["NetworkDefinitionCreationFlag"]
    flags = "INT8" in names["BuilderFlag"]
    kinds = {(True, True): "either", (True, False): "graph", (False, True): "builder"}
    assert row.types == kinds[typed, flags]
    assert row.int64 == ("INT64" in names["DataType"])
    assert row.levels == ("builder_optimization_level" in names["IBuilderConfig"])
    hardware = {name.lower() for name in names.get("HardwareCompatibilityLevel", ["NONE"])}
    assert {"none", *row.hardware} == hardware
    assert row.libraries == ({"CUDNN", "CUBLAS", "CUBLAS_LT"} <= {*names["TacticSource"]})
    preview = "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"
    assert row.core_libraries == (preview in names["PreviewFeature"])
    assert bool(row.runs_plans_of) == ("VERSION_COMPATIBLE" in names["BuilderFlag"])


def test_the_double_has_no_name_of_another_version(tensorrt: Says) -> None:
    trt: ModuleType = tensorrt("10.3")
    config = trt.Builder(trt.ILogger()).create_builder_config()
    with pytest.raises(AttributeError):
        config.max_workspace_size = 1
    with pytest.raises(AttributeError):
        _ = config.max_workspace_size
    assert bits(trt, "NetworkDefinitionCreationFlag", "EXPLICIT_PRECISION") == 0
    assert int(trt.BuilderFlag.FP16) != int(tensorrt("8.6").BuilderFlag.FP16)
