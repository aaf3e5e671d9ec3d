"""The stages of a build: each writes files into an empty directory and returns its facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import EncodeError

from convexport.benchmarks.parity import Parity, compare, require_parity
from convexport.benchmarks.verify import LIMITS
from convexport.exporter.artifacts import EXPORTED, SIMPLIFIED
from convexport.exporter.onnx_file import require_finite
from convexport.exporter.simplify import simplify
from convexport.exporter.source import Source
from convexport.exporter.targets import Target
from convexport.runtime.batches import fixed_batch, run_in_batches
from convexport.runtime.errors import UnsupportedError
from convexport.runtime.files import save_array

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
        save_array(directory / f"{name}_inputs.npy", inputs)
        save_array(directory / f"{name}_labels.npy", labels)
        save_array(directory / f"{name}_logits.npy", np.concatenate(logits))
        facts[name] = {"images": len(inputs), "set": each.description}
    return {"reference": source.reference_name, "notes": list(source.load_notes()), **facts}


def export_stage(
    source: Source, target: Target, reference: Path, metadata: dict[str, str], directory: Path
) -> Facts:
    """Module → ONNX, in parity with the reference."""
    model = source.export(target.opset, metadata)
    require_finite(model, source.name)
    save(model, directory / EXPORTED)
    facts = graph_facts(model)
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
        **graph_facts(simplified.model),
    }
    del simplified
    return {
        **facts,
        "parity": fp32_parity(directory / SIMPLIFIED, reference, target, "simplify"),
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
    most = getattr(session, "max_batch", max(PARITY_BATCHES))  # of a TensorRT engine
    batches = PARITY_BATCHES if fixed_batch(session) is None else ()
    for batch in (each for each in batches if each <= most):
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
    """Write a model so that the same model gives the same bytes.

    Raises:
        UnsupportedError: E0692, it is larger than protobuf can be.
    """
    try:
        data = model.SerializeToString(deterministic=True)
    except EncodeError as error:
        raise UnsupportedError(
            "E0692",
            "the net does not fit into one ONNX file",
            where=path.name,
            why=f"protobuf ends at 2 GiB: {error}",
            hint="a net with fewer weights, or with some of them in FP16",
        ) from error
    path.write_bytes(data)


def every_float(model: ir.Model) -> tuple[str, ...]:
    """The names of the input and of all float tensors that are computed."""
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    return tuple(
        str(value.name)
        for value in values
        if isinstance(value.type, ir.TensorType)
        and value.dtype == ir.DataType.FLOAT
        and value.name not in model.graph.initializers
    )


def graph_facts(model: onnx.ModelProto) -> Facts:
    """Opset, nodes and operators of a graph, and what kind of output it has."""
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
