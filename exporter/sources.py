"""What MODEL names: a net of the zoo, a module of the user's own, or an .onnx file.

Whatever it was, the build goes on with a ``Source``: what identifies it, how to export it, and
the reference whose outputs define "right".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from convexport.exporter.options import BuildOptions
from convexport.exporter.own_models import (
    source_from_factory,
    source_from_onnx,
)
from convexport.exporter.source import Source, labels_for, require_labels, source_from_torch
from convexport.runtime.errors import UnsupportedError, UsageError

RANDOM_WEIGHTS = "RANDOM WEIGHTS: this net was never trained; its answers mean nothing"


def find_source(model: str, options: BuildOptions, report: Callable[[str], None]) -> Source:
    """What ``model`` names, with its weights had but its module not yet built.

    Raises:
        UsageError: E0220, no net of that name; E0282, an option that does not fit.
        InputError: the file or the weights cannot be used.
    """
    suffix = Path(model).suffix.lower()
    if suffix == ".onnx":
        return source_from_onnx(Path(model), options)
    if suffix == ".pt2":
        raise UnsupportedError(
            "E0683",
            "a .pt2 file is not opened",
            where=model,
            why="PyTorch falls back to unpickling it, and that runs whatever code is inside",
            hint="if you trust it, load it in a factory of your own: package.module:factory",
        )
    if ":" in model:
        return source_from_factory(model, options)
    return _from_zoo(model, options, report)


def _from_zoo(name: str, options: BuildOptions, report: Callable[[str], None]) -> Source:
    from convexport.architectures import registry, weights
    from convexport.architectures.imagenet import labels_of

    variant = registry.find(name)
    for flag, value in (
        ("--input-shape", options.input_shape),
        ("--preprocess", options.preprocess),
    ):
        if value is not None:
            raise UsageError("E0282", f"{flag} is for nets of your own; {name} has its own")
    resolved = weights.resolve(
        variant,
        options.weights,
        offline=options.offline,
        cache_dir=options.cache_dir,
        report=report,
    )
    classes = options.classes or resolved.num_classes or variant.num_classes
    shape = resolved.input or variant.input
    # The outputs of a net that was never trained are no classes of anything.
    known = () if resolved.kind == "random" else labels_of(variant, classes)
    load = cache(
        lambda: weights.load_module(variant, resolved, num_classes=classes, in_channels=shape[0])
    )
    return source_from_torch(
        name=name,
        kind="zoo",
        shape=shape,
        preprocess=resolved.preprocess or variant.preprocess,
        labels=require_labels(labels_for(options, resolved.labels or known), classes),
        weights={
            "kind": resolved.kind,
            "source": resolved.source,
            "sha256": resolved.sha256,
            "licence": resolved.licence,
        },
        identity={"zoo": name, "weights": resolved.sha256, "classes": classes},
        notes=resolved.notes or ((RANDOM_WEIGHTS,) if resolved.kind == "random" else ()),
        load=lambda: load()[0],
        load_notes=lambda: load()[1],
    )
