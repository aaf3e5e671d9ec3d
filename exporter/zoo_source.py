"""A net of the zoo, or an ensemble of several, with its weights had but not yet built."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from convexport.exporter.options import BuildOptions
from convexport.exporter.source import Source, labels_for, require_labels, source_from_torch
from convexport.runtime.errors import UnsupportedError, UsageError
from convexport.runtime.files import read_json
from convexport.runtime.specs import Preprocess

if TYPE_CHECKING:
    from convexport.architectures.resolved import ResolvedWeights
    from convexport.architectures.variant import Variant

RANDOM_WEIGHTS = (
    "RANDOM WEIGHTS: this net, or its last layer, was never trained; its answers mean nothing"
)


def source_from_zoo(name: str, options: BuildOptions, report: Callable[[str], None]) -> Source:
    """The variant or ensemble of that name.

    Raises:
        UsageError: E0220 to E0226, there is none, or not for such images; E0282, an option that
            does not fit.
        InputError, MachineError: the weights cannot be used, or not be had.
        UnsupportedError: E0685, it is a block.
    """
    from convexport.architectures import registry, weights

    variant = registry.find(name)
    _require_net(variant)
    resolved = weights.resolve(
        variant,
        options.weights,
        offline=options.offline,
        cache_dir=options.cache_dir,
        report=report,
    )
    _require_options(variant, resolved, options)
    classes = options.classes or resolved.num_classes or variant.num_classes
    spec = _preprocess(variant, resolved, options)
    registry.require_size(variant, spec.shape)
    wanted: dict[str, Any] = {
        "num_classes": classes,
        "shape": spec.shape,
        "new_classifier": options.new_classifier,
    }
    load = cache(lambda: weights.load_module(variant, resolved, **wanted))
    facts = {key: getattr(resolved, key) for key in ("kind", "source", "sha256", "licence")}
    return source_from_torch(
        name=name.replace("*", "x"),
        kind="zoo",
        shape=spec.shape,
        preprocess=spec,
        labels=_labels(variant, resolved, options, classes),
        weights={**facts, "classifier": "random"} if options.new_classifier else facts,
        identity={"zoo": name, "weights": resolved.sha256, **wanted},
        notes=_notes(resolved, options),
        load=lambda: load()[0],
        load_notes=lambda: load()[1],
    )


def _require_net(variant: Variant) -> None:
    if not variant.num_classes:
        raise UnsupportedError(
            "E0685",
            f"{variant.name} is a block, not a net",
            why="it has no classifier, so there is no answer to compare",
            hint=f"convexport show {variant.name} counts it layer by layer",
        )


def _require_options(variant: Variant, resolved: ResolvedWeights, options: BuildOptions) -> None:
    if options.preprocess is not None and resolved.kind != "file":
        raise UsageError(
            "E0282",
            f"--preprocess is for weights of your own; {variant.name} has its own",
            hint="leave it out, or give --weights FILE",
        )
    if options.new_classifier and resolved.kind == "random":
        raise UsageError(
            "E0282",
            "--new-classifier is for trained weights; these are random altogether",
            hint="give --classes alone",
        )


def _preprocess(variant: Variant, resolved: ResolvedWeights, options: BuildOptions) -> Preprocess:
    if options.preprocess is not None:
        spec = Preprocess.from_dict(read_json(options.preprocess))
    else:
        spec = resolved.preprocess or variant.preprocess
    shape = options.input_shape or spec.shape
    if shape[0] not in (1, spec.shape[0]):
        channels = "1 channel" if spec.shape[0] == 1 else f"1 channel or {spec.shape[0]}"
        raise UsageError(
            "E0282", f"--input-shape with {shape[0]} channels", hint=f"its images have {channels}"
        )
    return spec.reshaped(shape)


def _labels(
    variant: Variant, resolved: ResolvedWeights, options: BuildOptions, classes: int
) -> tuple[str, ...]:
    """Those of the user, of the weights, or of ImageNet; of an untrained layer there are none."""
    from convexport.architectures.imagenet import labels_of

    known = resolved.labels or labels_of(variant, classes)
    if resolved.kind == "random" or options.new_classifier or len(known) != classes:
        known = ()
    return require_labels(labels_for(options, known), classes)


def _notes(resolved: ResolvedWeights, options: BuildOptions) -> tuple[str, ...]:
    if resolved.kind == "random":
        return resolved.notes or (RANDOM_WEIGHTS,)
    if resolved.kind == "digits" and (options.input_shape or options.new_classifier):
        return ("weights trained on handwritten digits, but for another input or classifier",)
    return resolved.notes
