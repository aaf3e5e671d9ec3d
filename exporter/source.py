"""A net that can be built, whatever it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convexport.exporter.options import BuildOptions
from convexport.exporter.to_onnx import onnx_from_module
from convexport.runtime.errors import InputError
from convexport.runtime.optional import require
from convexport.runtime.specs import Preprocess

if TYPE_CHECKING:
    import onnx
    import torch

Batch = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A net that can be built.

    Attributes:
        name: for people and file names.
        kind: ``zoo``, ``module`` or ``onnx``.
        shape: C×H×W of one image.
        preprocess: from an image to the input.
        labels: one a class, or none.
        weights: where they come from, as JSON; ``kind`` is random where they were never trained.
        identity: everything that the exported model depends on.
        notes: to be said loudly.
        export: opset and metadata → ONNX.
        reference: float32 N×C×H×W → logits, in FP32 and eval mode.
        reference_name: what computes the reference.
        load_notes: what had to be done to load the weights; loads them.
    """

    name: str
    kind: str
    shape: tuple[int, int, int]
    preprocess: Preprocess
    labels: tuple[str, ...]
    weights: Mapping[str, Any]
    identity: Mapping[str, Any]
    notes: tuple[str, ...]
    export: Callable[[int, dict[str, str]], onnx.ModelProto]
    reference: Callable[[Batch], Batch]
    reference_name: str
    load_notes: Callable[[], tuple[str, ...]] = lambda: ()


def source_from_torch(*, load: Callable[[], torch.nn.Module], **fields: Any) -> Source:
    """A source whose reference and export are those of the module that ``load`` gives."""

    def export(opset: int, metadata: dict[str, str]) -> onnx.ModelProto:
        ir = require("onnx_ir", extra="export", purpose="exporting a module")
        model = onnx_from_module(load(), fields["shape"], opset=opset, metadata=metadata)
        proto: onnx.ModelProto = ir.to_proto(model)
        return proto

    def reference(batch: Batch) -> Batch:
        torch = require("torch", extra="export", purpose="running the reference")
        with torch.no_grad():
            logits: Batch = load()(torch.from_numpy(batch)).numpy()
        return logits

    return Source(
        **fields, export=export, reference=reference, reference_name="PyTorch, FP32, eval mode"
    )


def labels_for(options: BuildOptions, known: tuple[str, ...]) -> tuple[str, ...]:
    """The labels of ``--labels``, or those that are known where none were given.

    Raises:
        InputError: E0390, the file cannot be read, or a label is empty or occurs twice.
    """
    if options.labels is None:
        return known
    try:
        labels = tuple(options.labels.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "E0390", f"the labels cannot be read: {error}", where=str(options.labels)
        ) from error
    if not labels:
        raise InputError("E0390", "0 labels in the file", where=str(options.labels))
    if len(set(labels)) != len(labels) or not all(label.strip() for label in labels):
        raise InputError(
            "E0390",
            "a label is empty or occurs twice",
            where=str(options.labels),
            hint="write equal ones apart, as `crane (bird)` and `crane (machine)`",
        )
    return labels


def require_labels(labels: tuple[str, ...], classes: int) -> tuple[str, ...]:
    """The labels, if there is one for each class, or none at all.

    Raises:
        InputError: E0391, their number is another.
    """
    if labels and len(labels) != classes:
        raise InputError(
            "E0391",
            f"{len(labels)} labels for {classes} classes",
            where="--labels",
            hint="give one label a line, in the order of the classes",
        )
    return labels
