"""From stage results to a bundle: complete only with its manifest, and there only when complete."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import convexport
from convexport.benchmarks.report.document import REPORT, document, entry
from convexport.benchmarks.report.render import files as report_files
from convexport.exporter.artifacts import CALIBRATION
from convexport.exporter.device_bundle import add_device_files, write_sums
from convexport.exporter.options import Precision
from convexport.exporter.source import Source, require_labels
from convexport.exporter.targets import Target
from convexport.runtime.batches import run_in_batches
from convexport.runtime.bundle import (
    LABELS,
    MANIFEST,
    SAMPLE_EXPECTED,
    SAMPLE_INPUT,
    SCHEMA_VERSION,
    Manifest,
    is_random,
    read_manifest,
    verify_files,
)
from convexport.runtime.cpu import cpu_flags, integer_kernels
from convexport.runtime.errors import ConvexportError, InputError, UsageError
from convexport.runtime.files import json_bytes, new_directory, save_array, sha256_of, sweep
from convexport.runtime.sessions import Session
from convexport.runtime.trt_plan import ENGINE

MODEL = "model.onnx"
REFERENCE = "reference.onnx"

_ON_DEVICE = "Where there is no `engine/` yet, the device builds it first: `ON_DEVICE.md`.\n\n"

# How far a golden sample's output may be off on another machine. FP32 kernels differ in the order
# of their sums; INT8 and BF16 ones round to coarse steps, and one step early on spreads. BF16 on
# AMX and on AVX-512 was off by up to 0.7 %.
GOLDEN_TOLERANCE: Mapping[Precision, float] = {
    "fp32": 1e-4,
    "bf16": 2e-2,
    "fp16": 1e-2,
    "int8": 2e-2,
}


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a bundle is made of.

    Attributes:
        model: what the runtime loads.
        reference: the simplified FP32 ONNX.
        calibration: ``calibration.json``, where there was a calibration.
        sample: one input, float32 C×H×W.
        engine: a directory with a TensorRT engine of the model, for this machine. What TensorRT
            targets put into ``facts`` (``device_bundle.device_facts``) brings with it all that
            another machine needs to build its own.
        facts: goes into the manifest as it is.
        report: latency and what else was measured; in no hash, as no two runs measure the same.
        build_key: the hash of everything that was asked for.
    """

    model: Path
    reference: Path
    calibration: Path | None
    sample: np.ndarray
    facts: Mapping[str, Any]
    report: Mapping[str, Any]
    build_key: str
    engine: Path | None = None


def existing_bundle(output: Path, build_key: str, *, force: bool) -> Manifest | None:
    """The bundle that stands at ``output`` if it is just what was asked for, and intact.

    Raises:
        UsageError: E0283, something else stands there, and may not be replaced.
    """
    try:
        sweep(output.parent)  # first: what a killed build had put aside is put back
        if not output.exists() and not output.is_symlink():
            return None
    except OSError as error:  # a name that is too long for a file
        raise UsageError(
            "E0283", f"no bundle can be written there: {error.strerror}", hint="name it with -o"
        ) from error
    manifest, state = _look_at(output)
    same = manifest is not None and manifest.data.get("build_key") == build_key
    if same and state == "intact" and not force and (output / REPORT).is_file():
        return manifest
    empty = output.is_dir() and not output.is_symlink() and not any(output.iterdir())
    if manifest is None and not empty:
        raise UsageError(
            "E0283",
            f"{output.name} exists and is not a bundle",
            where=str(output),
            why="nothing but a bundle is ever replaced",
            hint="choose another place with -o",
        )
    if manifest is not None and not force:
        what = "was built from other inputs" if state == "intact" else f"is damaged: {state}"
        raise UsageError(
            "E0283",
            f"{output.name} exists and {what}",
            where=str(output),
            hint="--force replaces it; -o DIR writes elsewhere",
        )
    return None


def write_bundle(
    output: Path,
    parts: Parts,
    source: Source,
    target: Target,
    precision: Precision,
    runner: Target | None = None,
) -> Manifest:
    """Write the bundle beside its final place, then put it there.

    Args:
        runner: runs the model for the golden sample; the target itself, unless it cannot, here.

    Raises:
        StorageError: E0801, the disk is full or does not let us.
        InputError: E0391, the labels do not fit the classes.
    """
    with new_directory(output) as scratch:
        shutil.copyfile(parts.model, scratch / MODEL)
        shutil.copyfile(parts.reference, scratch / REFERENCE)
        if parts.calibration is not None:
            shutil.copyfile(parts.calibration, scratch / CALIBRATION)
        session = (runner or target).open(scratch / MODEL, precision)
        _write_labels(scratch, source, int(session.outputs[0].shape[-1]))
        _write_golden(scratch, parts.sample, session)
        data = _manifest(parts, source, target, precision, session)
        (scratch / "README.md").write_text(_readme(data), encoding="utf-8")
        if "tensorrt" in data:
            add_device_files(scratch, data)
        data["files"] = {
            path.relative_to(scratch).as_posix(): sha256_of(path)
            for path in sorted(scratch.rglob("*"))
            if path.is_file()
        }
        (scratch / MANIFEST).write_bytes(json_bytes(data))
        _write_report(scratch, output.resolve().name, parts.report)
        if "tensorrt" in data:
            write_sums(scratch)
        if parts.engine is not None:
            # In no sum: whoever builds it anew replaces it. The file beside the plan has its hash.
            (scratch / ENGINE).parent.mkdir()
            for path in parts.engine.glob(f"{ENGINE.name}*"):
                shutil.copyfile(path, (scratch / ENGINE).with_name(path.name))
    return read_manifest(output)


def _look_at(output: Path) -> tuple[Manifest | None, str]:
    if output.is_symlink() or not output.is_dir():
        return None, "not a directory"
    try:
        manifest = read_manifest(output)
    except ConvexportError:
        return None, "not a bundle"
    try:
        verify_files(output, manifest)
    except InputError as error:
        return manifest, error.what
    return manifest, "intact"


def _write_labels(scratch: Path, source: Source, classes: int) -> None:
    if not source.labels:
        return
    require_labels(source.labels, classes)
    (scratch / LABELS).write_text("\n".join(source.labels) + "\n", encoding="utf-8")


def _write_golden(scratch: Path, sample: np.ndarray, session: Session) -> None:
    batch = session.inputs[0].shape[0]
    inputs = np.repeat(sample[None], batch if isinstance(batch, int) else 1, axis=0)
    (scratch / SAMPLE_INPUT).parent.mkdir()
    save_array(scratch / SAMPLE_INPUT, inputs)
    save_array(scratch / SAMPLE_EXPECTED, run_in_batches(session, inputs))


def _manifest(
    parts: Parts, source: Source, target: Target, precision: Precision, session: Session
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "convexport": convexport.__version__,
        "build_key": parts.build_key,
        "name": source.name,
        "source": source.kind,
        "precision": precision,
        "target": target.name,
        "runtime": target.runtime,
        "provider": target.provider,
        "model": MODEL,
        "reference": REFERENCE,
        "input": asdict(session.inputs[0]),
        "output": asdict(session.outputs[0]),
        "preprocess": source.preprocess.to_dict(),
        "weights": dict(source.weights),
        "golden_tolerance": GOLDEN_TOLERANCE[precision],
        "checked_on": _checked_on(target, precision),
        **parts.facts,
    }


def _checked_on(target: Target, precision: Precision) -> str | None:
    on_cpu = target.runtime != "tensorrt"
    return integer_kernels(cpu_flags()) if precision == "int8" and on_cpu else None


def _write_report(scratch: Path, label: str, measured: Mapping[str, Any]) -> None:
    report = document([entry(scratch, read_manifest(scratch), label)], **measured)
    for name, content in report_files(report, markdown=False).items():
        (scratch / name).write_bytes(content)


def _readme(data: Mapping[str, Any]) -> str:
    weights, shape = data["weights"], "x".join(map(str, data["input"]["shape"]))
    warning = (
        "**It has random weights: it was never trained, or its last layer was not, and its answers "
        "mean nothing.**\n\n"
        if is_random(weights)
        else ""
    )
    return (
        f"# {data['name']}, {data['precision']}, for {data['target']}\n\n"
        f"{warning}{_ON_DEVICE if 'tensorrt' in data else ''}"
        f"Weights: {weights['kind']} ({weights['source']}). Written by convexport "
        f"{data['convexport']}.\n\n"
        "```python\n"
        "import convexport\n\n"
        'engine = convexport.load("path/to/this/directory")\n'
        f"logits = engine(batch)                # float32 {shape}\n"
        'top5 = engine.classify(["image.jpg"])\n'
        "```\n\n"
        "`manifest.json` holds the hash of every file, the preprocess and the parity with the\n"
        "reference; `report.html` shows what was measured, and where. `convexport verify` and\n"
        "`convexport bench` measure again, on the machine where you stand.\n"
    )
