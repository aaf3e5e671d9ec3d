"""``--max-drop``: layers go back to floats until the bound of the loss is within the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from convexport.benchmarks.accuracy import paired_accuracy
from convexport.benchmarks.parity import compare
from convexport.benchmarks.statistics import proportion
from convexport.calibration.budget import smallest_kept
from convexport.calibration.quantize import Recipe
from convexport.calibration.sensitivity import Sensitivity
from convexport.exporter.int8_trials import Trials
from convexport.runtime.batches import run_in_batches
from convexport.runtime.errors import GateError


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


def keep_within(
    max_drop: float, trials: Trials, recipe: Recipe, ranking: Sequence[Sensitivity], reference: Path
) -> Spent:
    """The smallest set of layers in floats with which the budget's upper bound holds.

    Args:
        ranking: the layers, the noisiest first.
        reference: directory of the reference's answers, with labels where there are some.

    Raises:
        GateError: E0585, it holds with every layer in floats at best.
    """
    bound, measure = _counted(trials, reference)
    bounds: dict[frozenset[str], float] = {}

    def meets(kept: frozenset[str]) -> bool:
        trials.report(f"keeping {len(kept)} layers in floats")
        bounds[kept] = bound(replace(recipe, kept=kept))
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


def _counted(trials: Trials, reference: Path) -> tuple[Callable[[Recipe], float], str]:
    """Upper bound of a recipe's drop, and what it counts on which images."""
    labels_file = reference / "evaluation_labels.npy"
    if not labels_file.is_file():
        expected = trials.expected()

        def disagreement(recipe: Recipe) -> float:
            agree = compare(expected, trials.logits(recipe)).top1
            return proportion(agree.n - agree.k, agree.n).high

        return disagreement, (
            f"top-1 disagreement with FP32 on {trials.images.description} ({len(expected)}), "
            "with ONNX Runtime"
        )
    labels = np.load(labels_file)
    inputs = np.load(reference / "evaluation_inputs.npy", mmap_mode="r")
    wanted = np.load(reference / "evaluation_logits.npy")

    def drop(recipe: Recipe) -> float:
        with trials.session(recipe) as session:
            logits = run_in_batches(session, inputs)
        return paired_accuracy(wanted, logits, labels).high_pp / 100

    return drop, f"top-1 drop on {len(labels)} labelled images, with ONNX Runtime"
