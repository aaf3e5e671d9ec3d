"""The stages of INT8: ranges, repair, and the Q/DQ graph that held-out images choose."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx_ir as ir

from convexport.benchmarks.verify import require_signal
from convexport.calibration import placement as placements
from convexport.calibration.checkpoint import Checkpoint
from convexport.calibration.collect import collect, summary
from convexport.calibration.guards import census_of_activations, census_of_weights
from convexport.calibration.images import ImageSet
from convexport.calibration.input_range import InputTally, input_doubts
from convexport.calibration.observed import Outputs, write_observed
from convexport.calibration.placement import Placement
from convexport.calibration.ranges_file import load_ranges, save_ranges
from convexport.calibration.repair import equalize
from convexport.calibration.scale_sources import scale_sources
from convexport.calibration.sensitivity import Sensitivity
from convexport.calibration.thresholds import Method, Thresholds
from convexport.exporter.artifacts import ALL_INT8, CALIBRATION, EQUALIZED, QUANTIZED, RANGES
from convexport.exporter.budget import keep_within
from convexport.exporter.held_out import HeldOut
from convexport.exporter.int8_trials import Graph, Trials, described
from convexport.exporter.stages import (
    Facts,
    Progress,
    compare_with_reference,
    every_float,
    fp32_parity,
    graph_facts,
    save,
)
from convexport.exporter.targets import Target
from convexport.runtime.batches import fixed_batch
from convexport.runtime.errors import GateError, UnsupportedError
from convexport.runtime.files import json_bytes
from convexport.runtime.ort_session import OrtSession
from convexport.runtime.specs import Preprocess

# Each holds a group of batches in memory, and what came out of it.
_MOST_WORKERS = 8

# The simplified graph (False) and the equalized one (True), each with its ranges.
Graphs = Mapping[bool, tuple[Path, Path]]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The images of a calibration, and where they go.

    Attributes:
        images: set the ranges.
        held_out: on these recipes are tried.
        target: whose runtime compares the graph with the reference.
        rules: the name of the Q/DQ rules.
        notes: what a user must know about the images.
        progress: told images done and images in all.
        report: told what is being tried.
        quantizes: whether INT8 follows, so that there has to be something to quantize.
        every: observe every float tensor, not only those that the placement quantizes.
        checkpoint: where an interrupted pass is taken up again.
    """

    images: ImageSet
    held_out: HeldOut
    preprocess: Preprocess
    target: Target
    rules: str
    notes: tuple[str, ...]
    progress: Progress
    report: Callable[[str], None]
    quantizes: bool = True
    every: bool = False
    checkpoint: Path | None = None

    @cached_property
    def placement(self) -> Placement:
        """The rules."""
        found: Placement = getattr(placements, self.rules)
        return found

    def trials(self, graphs: Graphs, scratch: Path) -> Trials:
        """Where recipes are tried on the held-out images."""
        loaded = {
            each: Graph(model, Thresholds(load_ranges(seen)[0]))
            for each, (model, seen) in graphs.items()
        }
        return Trials(loaded, self.held_out, self.placement, scratch, self.report)


def calibrate_stage(simplified: Path, request: Calibration, directory: Path) -> Facts:
    """Images → ranges of every tensor that the target's placement quantizes, or of every one."""
    model = ir.load(simplified)
    tensors = _tensors_to_observe(model, request) if request.quantizes else ()
    if request.every:
        tensors = every_float(model)
    weights, tally = census_of_weights(model.graph), InputTally()
    del model
    runner, outputs = _observed(simplified, tensors, directory / "observed.onnx")
    fixed = fixed_batch(runner)
    size = fixed or _batch_size(request.preprocess)
    reader = request.images.batches(request.preprocess, size, on_bad="skip")
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        request.progress(done, len(request.images))

    batches = (tally.add(batch.array) for batch in reader)
    workers = min(_MOST_WORKERS, len(os.sched_getaffinity(0)))
    kept = Checkpoint(request.checkpoint) if request.checkpoint else None
    ranges = collect(runner, batches, outputs, workers=workers, progress=advance, checkpoint=kept)
    save_ranges(directory / RANGES, ranges)
    if kept:
        kept.done()
    report, seen = reader.report(), tally.seen()
    activations = census_of_activations({name: each.channels for name, each in ranges.items()})
    doubts = (*report.doubts(), *input_doubts(seen, request.preprocess))
    return {
        **report.facts(),
        "set": request.images.description,
        "stand_in": request.images.stand_in,
        "notes": list(request.notes),
        "doubts": [*doubts, *activations.doubts(), *weights.doubts()],
        "input": seen.to_dict(),
        "activations": activations.to_dict(),
        "weights": weights.to_dict(),
        "passed_over": dict(request.images.passed_over),
        "ranges": summary(ranges),
    }


def equalize_stage(
    simplified: Path, ranges: Path, reference: Path, request: Calibration, directory: Path
) -> Facts:
    """Ranges → a graph with even channels, in parity with the reference, and its ranges.

    Where nothing is worth it there are no files, and ``pairs`` is empty. What a ReLU6 cuts off
    depends on the ranges: where they were too narrow for that, those pairs are left alone.
    """
    file, seen = directory / EQUALIZED, load_ranges(ranges)[0]
    for clipped in (True, False):
        model = ir.load(simplified)
        pairs = equalize(model, seen, clipped=clipped)
        if not pairs:
            file.unlink(missing_ok=True)
            return {"pairs": []}
        save(ir.to_proto(model), file)
        del model
        try:
            parity = fp32_parity(file, reference, request.target, "equalization")
            break
        except GateError:
            if not clipped:
                raise
    calibrated = calibrate_stage(file, request, directory)
    return {
        "pairs": [asdict(pair) for pair in pairs],
        "parity": parity,
        "ranges": calibrated["ranges"],
    }


def quantize_stage(
    graphs: Graphs,
    calibration: Mapping[str, Any],
    reference: Path,
    request: Calibration,
    choice: tuple[Method, tuple[str, ...], float | None],
    directory: Path,
) -> Facts:
    """Ranges → thresholds → scales → Q/DQ, compared with the reference.

    Args:
        graphs: which there are.
        calibration: what ``calibrate_stage`` found.
        choice: the method, the repairs and the largest drop that were asked for.
    """
    method, repairs, max_drop = choice
    trials = request.trials(graphs, directory)
    recipe = trials.best(method, repairs)
    ranking = trials.sensitivities(recipe)
    spent = keep_within(max_drop, trials, recipe, ranking, reference) if max_drop else None
    if spent is not None and spent.recipe.kept:
        trials.build(recipe, directory / ALL_INT8)  # to be measured beside the other
        recipe = spent.recipe
    decided, precisions = trials.build(recipe, directory / QUANTIZED)
    images = request.held_out.images
    held_out = {"images": len(images), "set": images.description}
    budget = spent and spent.to_dict()
    choice_made = {**described(trials.done, recipe), "held_out": held_out, "budget": budget}
    written = {
        **choice_made,
        "layers": _layers(ranking, precisions),
        "thresholds": {name: each.value for name, each in decided.thresholds.items()},
        **calibration,
        "ranges": summary(trials.graphs[recipe.equalized].thresholds.ranges),
    }
    (directory / CALIBRATION).write_bytes(json_bytes(written))
    parity = compare_with_reference(directory / QUANTIZED, reference, request.target)
    require_signal(parity, "INT8")
    return {
        "precisions": precisions,
        "counts": dict(Counter(precisions.values())),
        "parity": parity.to_dict(),
        "choice": choice_made,
        **graph_facts(ir.to_proto(ir.load(directory / QUANTIZED))),
    }


def _layers(ranking: Sequence[Sensitivity], precisions: Mapping[str, str]) -> list[Facts]:
    modules = Counter(each.node.rpartition("/")[0] for each in ranking)
    return [
        {
            # A module that is used twice is two layers.
            "layer": module if modules[module] == 1 and module else each.node,
            "operator": each.operator,
            "sqnr_db": each.sqnr_db,
            "precision": precisions[each.node],
        }
        for each in ranking
        for module in [each.node.rpartition("/")[0]]
    ]


def _tensors_to_observe(model: ir.Model, request: Calibration) -> tuple[str, ...]:
    if any(node.op_type in ("QuantizeLinear", "QLinearConv") for node in model.graph):
        raise UnsupportedError(
            "E0684",
            "the model is quantized already",
            why="quantizing what is quantized loses twice",
            hint="give the FP32 model, or build this one as it is with --fp32",
        )
    sources = scale_sources(model.graph, request.placement)
    # Those that take another's scale too: what reads them has its biases corrected by their means.
    tensors = (*dict.fromkeys([*(name for group in sources.values() for name in group), *sources]),)
    if not tensors:
        raise UnsupportedError(
            "E0682",
            "the net has no operator that runs in INT8",
            where=f"target {request.target.name}",
            hint="build it with --fp32",
        )
    return tensors


def _observed(
    model: Path, tensors: tuple[str, ...], path: Path
) -> tuple[OrtSession, dict[str, Outputs]]:
    """A session that tells of the named tensors, and how; its file is not kept.

    One thread: several batches go through at once, which keeps cores busier than several threads
    at one batch do, and the numbers do not depend on how many cores there are.
    """
    try:
        outputs = write_observed(model, tensors, path)
        return OrtSession(path, threads=1, early=True), outputs
    finally:
        path.unlink(missing_ok=True)


def _batch_size(preprocess: Preprocess) -> int:
    """Small images go through in larger batches, at about the memory of one at 224×224."""
    height, width = preprocess.crop
    return max(1, min(32, 224 * 224 // (height * width)))
