"""The stages of a build: each writes files into an empty directory and returns its facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from convexport.benchmarks.parity import Parity, compare, require_parity
from convexport.benchmarks.verify import LIMITS, require_signal
from convexport.calibration import placement as placements
from convexport.calibration.collect import TensorRange, collect, summary
from convexport.calibration.images import ImageSet
from convexport.calibration.placement import Placement, scale_sources
from convexport.calibration.qdq import insert_qdq, scale_of
from convexport.calibration.thresholds import Method, thresholds
from convexport.exporter.artifacts import (
    CALIBRATION,
    EXPORTED,
    QUANTIZED,
    RANGES,
    SIMPLIFIED,
)
from convexport.exporter.onnx_file import require_finite
from convexport.exporter.simplify import simplify
from convexport.exporter.source import Source
from convexport.exporter.targets import Target
from convexport.runtime.batches import filled, fixed_batch, run_in_batches
from convexport.runtime.errors import UnsupportedError
from convexport.runtime.files import json_bytes
from convexport.runtime.ort_session import OrtSession
from convexport.runtime.specs import Preprocess

if TYPE_CHECKING:
    from convexport.exporter.data import Images

PARITY_BATCHES = (1, 3, 8)

Progress = Callable[[int, int], None]
Facts = dict[str, Any]


def reference_stage(source: Source, images: Images, directory: Path, progress: Progress) -> Facts:
    """What the reference answers on the parity and the evaluation images, beside its inputs."""
    sets = {"parity": images.parity, "evaluation": images.evaluation}
    total = sum(len(each) for each in sets.values() if each is not None)
    done, facts = 0, {}
    for name, each in sets.items():
        if each is None:
            continue
        inputs, labels = each.arrays(source.preprocess)
        logits = []
        for start in range(0, len(inputs), 8):
            logits.append(source.reference(inputs[start : start + 8]))
            done += len(logits[-1])
            progress(done, total)
        np.save(directory / f"{name}_inputs.npy", inputs)
        np.save(directory / f"{name}_labels.npy", labels)
        np.save(directory / f"{name}_logits.npy", np.concatenate(logits))
        facts[name] = {"images": len(inputs), "set": each.description}
    return {"reference": source.reference_name, "notes": list(source.load_notes()), **facts}


def export_stage(
    source: Source, target: Target, reference: Path, metadata: dict[str, str], directory: Path
) -> Facts:
    """Module → ONNX, in parity with the reference."""
    model = source.export(target.opset, metadata)
    require_finite(model, source.name)
    save(model, directory / EXPORTED)
    facts = _graph_facts(model)
    del model  # its weights and ONNX Runtime's need not be held at once
    return {
        **facts,
        "parity": fp32_parity(directory / EXPORTED, reference, target, "export"),
    }


def simplify_stage(exported: Path, reference: Path, target: Target, directory: Path) -> Facts:
    """ONNX → simplified ONNX, in parity with the reference."""
    simplified = simplify(onnx.load(exported))
    save(simplified.model, directory / SIMPLIFIED)
    facts = {
        "tool": simplified.tool,
        "rules": simplified.applied,
        **_graph_facts(simplified.model),
    }
    del simplified
    return {
        **facts,
        "parity": fp32_parity(directory / SIMPLIFIED, reference, target, "simplify"),
    }


def calibrate_stage(
    simplified: Path,
    images: ImageSet,
    preprocess: Preprocess,
    target: Target,
    directory: Path,
    progress: Progress,
) -> Facts:
    """Images → ranges of every tensor that the target's placement quantizes."""
    model = ir.load(simplified)
    tensors = _tensors_to_observe(model, target)
    runner = _observed(model, tensors, directory)
    fixed = fixed_batch(runner)
    reader = images.batches(preprocess, fixed or _batch_size(preprocess), on_bad="skip")
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, len(images))

    batches = (filled(batch.array, fixed) for batch in reader)
    ranges = collect(runner, batches, tensors, progress=advance)
    _save_ranges(directory / RANGES, ranges)
    report = reader.report()
    return {
        "images": report.read,
        "set": images.description,
        "stand_in": images.stand_in,
        "fingerprint": report.fingerprint,
        "doubts": list(report.doubts()),
        "skipped": [list(each) for each in report.skipped],
        "duplicates": len(report.duplicates),
        "image_notes": dict(report.notes),
        "passed_over": dict(images.passed_over),
        "ranges": summary(ranges),
    }


def quantize_stage(
    simplified: Path,
    ranges: Path,
    reference: Path,
    calibration: Mapping[str, Any],
    target: Target,
    method: Method,
    directory: Path,
) -> Facts:
    """Ranges → thresholds → scales → Q/DQ, compared with the reference."""
    model = ir.load(simplified)
    rules = _placement(target)
    chosen = thresholds(_load_ranges(ranges), method)
    scales = {
        name: scale_of(chosen[source], rules.activations)
        for name, source in scale_sources(model.graph, rules).items()
    }
    precisions = insert_qdq(model, scales, rules)
    proto = ir.to_proto(model)
    save(proto, directory / QUANTIZED)
    described = {
        "method": {"name": method.name, "percentile": method.percentile},
        "thresholds": {name: threshold.value for name, threshold in chosen.items()},
        **calibration,
    }
    (directory / CALIBRATION).write_bytes(json_bytes(described))
    parity = compare_with_reference(directory / QUANTIZED, reference, target, "int8")
    require_signal(parity, "INT8")
    return {
        "precisions": precisions,
        "counts": dict(Counter(precisions.values())),
        "parity": parity.to_dict(),
        **_graph_facts(proto),
    }


def fp32_parity(model: Path, reference: Path, target: Target, stage: str) -> Facts:
    """Compare an FP32 model with the reference: all images, and the first few at other batches.

    Raises:
        GateError: it differs by more than 1e-4 of the largest logit.
    """
    everything = compare_with_reference(model, reference, target)
    require_parity(everything, stage, LIMITS["fp32"])
    inputs = np.load(reference / "parity_inputs.npy", mmap_mode="r")
    expected = np.load(reference / "parity_logits.npy")
    session = target.open(model)
    facts = {"all": everything.max_rel}
    for batch in PARITY_BATCHES if fixed_batch(session) is None else ():
        rows = np.arange(batch) % len(inputs)  # again from the first, where there are too few
        actual = session.run({session.inputs[0].name: inputs[rows]})[session.outputs[0].name]
        parity = compare(expected[rows], actual)
        require_parity(parity, f"{stage}, batch {batch}", LIMITS["fp32"])
        facts[str(batch)] = parity.max_rel
    return {"max_rel": facts, "images": everything.n, "limit": LIMITS["fp32"]}


def compare_with_reference(
    model: Path, reference: Path, target: Target, precision: str = "fp32"
) -> Parity:
    """Compare a model, run by the target, with the reference on all parity images."""
    inputs = np.load(reference / "parity_inputs.npy", mmap_mode="r")
    logits = run_in_batches(target.open(model, precision), inputs)
    return compare(np.load(reference / "parity_logits.npy"), logits)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model so that the same model gives the same bytes."""
    path.write_bytes(model.SerializeToString(deterministic=True))


def _placement(target: Target) -> Placement:
    placement: Placement = getattr(placements, target.placement)
    return placement


def _tensors_to_observe(model: ir.Model, target: Target) -> tuple[str, ...]:
    if any(node.op_type in ("QuantizeLinear", "QLinearConv") for node in model.graph):
        raise UnsupportedError(
            "E0684",
            "the model is quantized already",
            why="quantizing what is quantized loses twice",
            hint="give the FP32 model, or build this one as it is with --fp32",
        )
    tensors = tuple(dict.fromkeys(scale_sources(model.graph, _placement(target)).values()))
    if not tensors:
        raise UnsupportedError(
            "E0682",
            "the net has no operator that runs in INT8",
            where=f"target {target.name}",
            hint="build it with --fp32",
        )
    return tensors


def _observed(model: ir.Model, tensors: tuple[str, ...], directory: Path) -> OrtSession:
    """A session that gives the named tensors too. Its file is not kept."""
    values = {value.name: value for node in model.graph for value in node.outputs}
    known = {value.name for value in model.graph.outputs}
    model.graph.outputs.extend(
        values[name] for name in tensors if name in values and name not in known
    )
    path = directory / "observed.onnx"
    save(ir.to_proto(model), path)
    try:
        return OrtSession(path)
    finally:
        path.unlink()


def _batch_size(preprocess: Preprocess) -> int:
    """Small images go through in larger batches, at about the memory of one at 224×224."""
    height, width = preprocess.crop
    return max(1, min(32, 224 * 224 // (height * width)))


def _save_ranges(path: Path, ranges: Mapping[str, TensorRange]) -> None:
    np.savez_compressed(
        path,
        names=np.array(list(ranges)),
        bounds=np.array([(seen.minimum, seen.maximum) for seen in ranges.values()]),
        counts=np.stack([seen.counts for seen in ranges.values()]),
    )


def _load_ranges(path: Path) -> dict[str, TensorRange]:
    with np.load(path, allow_pickle=False) as data:
        rows = zip(data["names"].tolist(), data["bounds"].tolist(), data["counts"], strict=True)
        return {name: TensorRange(low, high, counts) for name, (low, high), counts in rows}


def _graph_facts(model: onnx.ModelProto) -> Facts:
    return {
        "opset": next(entry.version for entry in model.opset_import if not entry.domain),
        "nodes": len(model.graph.node),
        "operators": dict(Counter(node.op_type for node in model.graph.node)),
        "output_kind": _output_kind(model),
    }


def _output_kind(model: onnx.ModelProto) -> str:
    """Whether the net's last operator already makes probabilities of its logits."""
    last = {name: node.op_type for node in model.graph.node for name in node.output}
    return "probabilities" if last.get(model.graph.output[0].name) == "Softmax" else "logits"
