"""Bundles with a plan for the double of TensorRT, and the double's libraries."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convexport.runtime.trt_config import TrtOptions
from convexport.runtime.trt_plan import PlanFacts, this_platform
from tests.tiny import WEIGHTS, seal, write_bundle
from tests.trt.conftest import sha256

from .toolchain import DOUBLES, TENSORRT, TESTS, compiler

Make = Callable[..., Path]

IN, OUT = "tensor in input 0 0 -1 1 2 2", "tensor out logits 0 0 -1 3"
PLAN = (IN, OUT, "batch 1 8", "memory 1000")
OPTIONS = TrtOptions(typed=False, batch=(1, 4, 8))


def compile_doubles(scratch: Path) -> dict[str, Path]:
    """For each version the folder with the double's library."""
    folders = {name: scratch / name for name in TENSORRT}
    for name, folder in folders.items():
        folder.mkdir()
        words = [compiler(), "-std=c++17", "-shared", "-fPIC", "-I", DOUBLES[name]]
        made = folder / f"libnvinfer.so.{TENSORRT[name][0]}"
        subprocess.run([*words, TESTS / "trt/fake_nvinfer.cpp", "-o", made, "-ldl"], check=True)
    return folders


def as_tensorrt(data: dict[str, Any]) -> None:
    """A manifest for TensorRT."""
    data.update(runtime="tensorrt", provider="CUDA", model="model.plan", target="tensorrt")


def plan_bundle(
    folder: Path, *lines: str, options: TrtOptions = OPTIONS, tensorrt: str = "10.3.0.26"
) -> Path:
    """A bundle whose plan the double runs; see trt/fake_nvinfer.cpp for its lines."""
    write_bundle(folder)
    plan = folder / "model.plan"
    weights = " ".join(["weights 3 4", *(str(value) for value in WEIGHTS.ravel())])
    plan.write_text("\n".join([*(lines or PLAN), weights]))
    facts = PlanFacts(
        sha256=sha256(plan),
        onnx_sha256=sha256(folder / "model.onnx"),
        tensorrt=tensorrt,
        gpu="Orin",
        compute_capability="8.7",
        platform=this_platform(),
        driver="12.6",
        options=options,
    )
    facts.write(plan)
    return seal(folder, as_tensorrt)
