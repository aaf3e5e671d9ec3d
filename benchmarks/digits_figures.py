"""INT8 on digits: nets whose trained weights ship, and one that is made hard for INT8."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from convexport.benchmarks.figures import CLI, reason, run, succeeded
from convexport.calibration.digits import Split
from convexport.calibration.digits import digits as images_of
from convexport.calibration.qdq import constant

_NETS = ("lenet5", "resnet20_cifar", "mobilenet_v1_025", "mobilenet_v3_small_050")
_HOSTILE = ("mobilenet_v1_025",)
_OPTIONS = ("--bench-seconds", "0", "--json", "--offline")
_REPAIRS = {"as it is": "none", "repaired": "equalization,bias"}


def digits(out: Path, nets: Sequence[str]) -> list[str]:
    """Top-1 of the digits nets on the test split, FP32 reference and INT8, paired."""
    lines = []
    for name in nets or _NETS:
        done = succeeded(_build(out, name, name, "--int8", "--weights", "digits"), name)
        report = json.loads(done.output)["report"]["bundles"][0]
        lines.append(_told(name, report["accuracy"], report["parity"]["quantize"]))
    return lines


def hostile(out: Path, nets: Sequence[str]) -> list[str]:
    """The same of nets whose channels differ in size by powers of two, without repair and with."""
    lines = []
    for name in nets or _HOSTILE:
        model, options = hostile_net(out, name)
        for label, repair in _REPAIRS.items():
            place, what = f"{name}-{repair}", f"{name} {label}"
            done = _build(out, place, str(model), "--int8", "--repair", repair, *options)
            if done.code != 0:
                lines.append(f"{what}: refused: {reason(done)}")
                continue
            verify = ("verify", str(out / place), "--data", str(out / "test"), "--json")
            found = json.loads(succeeded(run((*CLI, *verify)), what).output)
            lines.append(_told(what, found["accuracy"], found["parity"]))
    return lines


def hostile_net(out: Path, name: str) -> tuple[Path, tuple[str, ...]]:
    """A digits net as an ONNX file with uneven channels, and what its build is to be told.

    The calibration images and ``test`` lie beside it, as a folder a class.
    """
    done = succeeded(_build(out, f"{name}-plain", name, "--weights", "digits"), name)
    model = ir.load(out / f"{name}-plain" / "model.onnx")
    unclip(model)
    rescale(model)
    ir.save(model, out / f"{name}.onnx")
    preprocess = out / "preprocess.json"
    preprocess.write_text(json.dumps(json.loads(done.output)["manifest"]["preprocess"]))
    for split in ("calibration", "test"):
        _write_images(split, out / split)
    calibrated = ("--calib", str(out / "calibration"), "--preprocess", str(preprocess))
    return out / f"{name}.onnx", calibrated


def unclip(model: ir.Model) -> None:
    """ReLU for ReLU6, which no factor could pass, in place."""
    for node in model.graph:
        if node.op_type == "Clip":
            node.op_type = "Relu"
            node.resize_inputs(1)


def rescale(model: ir.Model) -> int:
    """Each channel between a convolution and its only reader, a depthwise one, by a power of two.

    The net stays the same in FP32. In place.

    Returns:
        Before how many depthwise convolutions.
    """
    rng, done = np.random.default_rng(0), 0
    for node in model.graph:
        if node.op_type != "Conv" or node.attributes.get_int("group", 1) == 1:
            continue
        before = _producer(_producer(node, "Relu"), "Conv")
        factors = 2.0 ** rng.integers(-6, 7, size=len(constant(node.inputs[1])))
        for value, by in ((before.inputs[1], factors), (before.inputs[2], factors),
                          (node.inputs[1], 1 / factors)):  # fmt: skip
            array = constant(value)
            scaled = array * by.reshape(-1, *[1] * (array.ndim - 1))
            assert value is not None
            value.const_value = ir.tensor(scaled.astype(np.float32), name=value.name)
        done += 1
    return done


def _producer(node: ir.Node, op_type: str) -> ir.Node:
    value = node.inputs[0]
    producer = None if value is None else value.producer()
    assert producer is not None and producer.op_type == op_type, node.name
    return producer


def _write_images(split: Split, folder: Path) -> None:
    for index, item in enumerate(images_of(split).items):
        (folder / str(item.label)).mkdir(parents=True, exist_ok=True)
        item.content().save(folder / str(item.label) / f"{index:04d}.png")  # type: ignore[union-attr]


def _build(out: Path, place: str, *words: str) -> Any:
    places = ("-o", str(out / place), "--cache-dir", str(out / "cache"))
    return run((*CLI, "build", *words, *_OPTIONS, *places))


def _told(name: str, accuracy: Mapping[str, Any], parity: Mapping[str, Any]) -> str:
    before, after = accuracy["reference"], accuracy["actual"]
    return (
        f"{name:<25} FP32 {before['k']}/{before['n']} ({before['share']:.2%}), "
        f"INT8 {after['k']}/{after['n']} ({after['share']:.2%}), "
        f"drop {accuracy['drop_pp']:+.2f} points "
        f"(95 % {accuracy['low_pp']:+.2f} to {accuracy['high_pp']:+.2f}), "
        f"{parity['sqnr_db']:.1f} dB on {parity['n']} images"
    )
