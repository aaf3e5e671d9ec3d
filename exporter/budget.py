"""``--max-drop``: layers go back to floats until the bound of the loss is within the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from convexport.benchmarks.accuracy import paired_accuracy, tango_interval
from convexport.benchmarks.parity import compare
from convexport.benchmarks.statistics import proportion
from convexport.calibration.budget import smallest_kept
from convexport.calibration.quantize import Recipe
from convexport.calibration.sensitivity import Sensitivity
from convexport.exporter.held_out import HeldOut
from convexport.exporter.int8_trials import Trials
from convexport.exporter.measure import Entrant
from convexport.runtime.batches import run_in_batches
from convexport.runtime.errors import GateError
from convexport.runtime.ort_session import OrtSession
from convexport.runtime.specs import Runner


@dataclass(frozen=True)
class Spent:
    """What became of a budget.

    Attributes:
        max_drop: a share in 0..1, of top-1 where there are labels, otherwise of disagreement.
        recipe: with the layers that stay in floats.
        measure: what was counted, on which images.
        before: the upper end of the 95 % interval with all layers in INT8.
        after: the same with those kept.
        tried: how many sets of layers were measured.
    """

    max_drop: float
    recipe: Recipe
    measure: str
    before: float
    after: float
    tried: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "max_drop": self.max_drop,
            "measure": self.measure,
            "all_int8_upper_bound": self.before,
            "upper_bound": self.after,
            "kept": sorted(self.recipe.kept),
            "sets_tried": self.tried,
        }


@dataclass(frozen=True)
class Loss:
    """What a budget is counted in.

    Attributes:
        measure: what is counted, on which images.
        upper_bound: of what a model loses, as a share: the upper end of the 95 % interval, or of
            one of as many as are told that hold together.
    """

    measure: str
    upper_bound: Callable[[Runner, int], float]


def loss_of(held_out: HeldOut, fp32: Path, reference: Path) -> Loss:
    """The drop of top-1 where there are labels, otherwise how often top-1 is not FP32's.

    Args:
        fp32: the graph that is disagreed with, or whose top-1 drops.
        reference: directory of the reference's answers, with labels where there are some; without
            any those of the held-out images count, where they are the net's.
    """
    labels_file = reference / "evaluation_labels.npy"
    if labels_file.is_file():
        inputs = np.load(reference / "evaluation_inputs.npy", mmap_mode="r")
        wanted = np.load(reference / "evaluation_logits.npy")
        answer: Callable[[Runner], np.ndarray] = partial(run_in_batches, inputs=inputs)
        return _drop(wanted, answer, np.load(labels_file), "labelled images")
    expected, labels = held_out.labelled(OrtSession(fp32))
    if labels is not None:
        return _drop(expected, held_out.logits, labels, f"labelled {held_out.images.description}")

    def disagreement(session: Runner, tries: int) -> float:
        agree = compare(expected, held_out.logits(session)).top1
        return proportion(agree.n - agree.k, agree.n, tries=tries).high

    description = f"{held_out.images.description} ({len(expected)})"
    return Loss(f"top-1 disagreement with FP32 on {description}", disagreement)


def _drop(
    wanted: np.ndarray, answer: Callable[[Runner], np.ndarray], labels: np.ndarray, images: str
) -> Loss:
    def drop(session: Runner, tries: int) -> float:
        found = paired_accuracy(wanted, answer(session), labels)
        apart = (found.only_reference, found.only_actual)
        return tango_interval(*apart, len(labels), tries=tries)[1]

    return Loss(f"top-1 drop on {len(labels)} {images}", drop)


def keep_within(
    max_drop: float, trials: Trials, recipe: Recipe, ranking: Sequence[Sensitivity], reference: Path
) -> Spent:
    """The smallest set of layers in floats with which the budget's upper bound holds.

    Args:
        ranking: the layers, the noisiest first.
        reference: as in ``loss_of``.

    Raises:
        GateError: E0585, it holds with every layer in floats at best.
    """
    loss = loss_of(trials.held_out, trials.graphs[False].model, reference)
    measure = f"{loss.measure}, with ONNX Runtime"
    bounds: dict[frozenset[str], float] = {}

    def meets(kept: frozenset[str], tries: int) -> bool:
        trials.report(f"keeping {len(kept)} layers in floats")
        with trials.session(replace(recipe, kept=kept)) as session:
            bounds[kept] = loss.upper_bound(session, tries)
        return bounds[kept] <= max_drop

    names = [each.node for each in ranking]
    kept = smallest_kept(names, meets)
    none, everything = frozenset[str](), frozenset(names)
    if kept is None or kept == everything:
        raise GateError(
            "E0585",
            f"no layer can be INT8 within the budget of {max_drop:.2%}",
            where=f"{measure}; upper bounds: all INT8 {bounds[none]:.2%}, "
            f"all layers in floats {bounds[everything]:.2%}",
            why="what stays in floats costs what FP32 costs",
            hint="build --fp32, or allow a larger drop",
        )
    chosen = replace(recipe, kept=kept)
    return Spent(max_drop, chosen, measure, bounds[none], bounds[kept], len(bounds))


def require_within(max_drop: float, entrant: Entrant, loss: Loss) -> dict[str, Any]:
    """The same bound with the kernels of another runtime than the layers were chosen with.

    Raises:
        GateError: E0586, it is beyond the budget there.
    """
    bound, target = loss.upper_bound(entrant.open(), 1), entrant.target
    if bound > max_drop:
        raise GateError(
            "E0586",
            f"INT8 is not within the budget of {max_drop:.2%} on the target {target.name}",
            where=f"{loss.measure}; upper bound with {target.runtime}: {bound:.2%}",
            why="layers were chosen with ONNX Runtime, whose kernels round otherwise",
            hint="build for --target cpu, allow a larger drop, or give more labelled images",
        )
    return {"max_drop": max_drop, "measure": loss.measure, "upper_bound": bound}
