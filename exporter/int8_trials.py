"""INT8 by trial: recipes are tried on held-out images, and the one that moves the outputs least
is taken; then layers are given back to floats until an accuracy budget holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from convexport.benchmarks.parity import compare
from convexport.calibration.placement import Placement
from convexport.calibration.quantize import Decided, Recipe, decide, quantize
from convexport.calibration.sensitivity import Sensitivity, add_twins, measure
from convexport.calibration.thresholds import CANDIDATES, Method, Thresholds
from convexport.exporter.held_out import HeldOut
from convexport.exporter.stages import save
from convexport.runtime.batches import fixed_batch
from convexport.runtime.ort_session import OrtSession

# A repair must gain this much on the held-out images; less is their chance.
LEAST_GAIN_DB = 0.1
# Images that a trial takes: a thousand logits each settle a tenth of a decibel.
_FEW = 32


@dataclass(frozen=True)
class Graph:
    """An FP32 graph, and what was seen and decided of its activations."""

    model: Path
    thresholds: Thresholds


@dataclass(frozen=True)
class Trial:
    """One recipe and what it did to the outputs.

    Attributes:
        sqnr_db: of the logits on the held-out images against the FP32 graph's; None where they
            did not differ or were not finite.
    """

    recipe: Recipe
    sqnr_db: float | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "method": str(self.recipe.method),
            "equalized": self.recipe.equalized,
            "bias_corrected": self.recipe.corrected,
            "sqnr_db": self.sqnr_db,
        }


@dataclass
class Trials:
    """Recipes of one net, tried on the same images.

    Args:
        graphs: the simplified graph under False and, where there is one, the equalized under True.
        held_out: methods are tried on the first few of them.
        scratch: a directory for models that are not kept.
        report: told what is being tried.
    """

    graphs: Mapping[bool, Graph]
    held_out: HeldOut
    placement: Placement
    scratch: Path
    report: Callable[[str], None]

    def __post_init__(self) -> None:
        self._few = self.held_out.few(_FEW)
        self.done: list[Trial] = []

    def build(self, recipe: Recipe, path: Path) -> tuple[Decided, dict[str, str]]:
        """Write the quantized graph of a recipe."""
        graph = self.graphs[recipe.equalized]
        model = ir.load(graph.model)
        decided, precisions = quantize(model, graph.thresholds, recipe, self.placement)
        save(ir.to_proto(model), path)
        return decided, precisions

    def best(self, method: Method, repairs: Sequence[str]) -> Recipe:
        """The best method on its own, again in even channels, then with its biases corrected."""
        methods = CANDIDATES if method.name == "auto" else (method,)
        recipes = [Recipe(method=each) for each in methods]
        if len(recipes) == 1 and not repairs:
            return recipes[0]
        best = max((self._try(recipe) for recipe in recipes), key=_decibels)
        if True in self.graphs:
            best = self._better(best, replace(best.recipe, equalized=True))
        if best.recipe.equalized:
            # Uneven channels may have said nothing about the methods.
            others = [each for each in methods if each != best.recipe.method]
            tried = [self._try(Recipe(method=each, equalized=True)) for each in others]
            best = max((best, *tried), key=_decibels)
        if "bias" in repairs:
            best = self._better(best, replace(best.recipe, corrected=True))
        return best.recipe

    @contextmanager
    def session(self, recipe: Recipe) -> Iterator[OrtSession]:
        """A recipe's graph, loaded; its file is not kept."""
        path = self.scratch / "trial.onnx"
        try:
            self.build(recipe, path)
            yield OrtSession(path)
        finally:
            path.unlink(missing_ok=True)

    def sensitivities(self, recipe: Recipe) -> tuple[Sensitivity, ...]:
        """The layers' own noise, in one pass over a few held-out images."""
        self.report("sensitivity of each layer")
        graph = self.graphs[recipe.equalized]
        model = ir.load(graph.model)
        decided = decide(model.graph, graph.thresholds, recipe.method, self.placement)
        layers = [
            (str(node.name), node.op_type)
            for node in add_twins(model, decided.scales, self.placement)
        ]
        if not layers or len(self._few.images) < 2:  # one image has no signal but its own mean
            return ()
        path = self.scratch / "twins.onnx"
        try:
            save(ir.to_proto(model), path)
            del model, decided  # with its twins the net is twice as large, and is loaded now
            session = OrtSession(path)
        finally:
            path.unlink(missing_ok=True)
        # One at a time: all that is put beside the layers is in memory at once.
        batches = (batch for batch, _ in self._few.batches(fixed_batch(session) or 1))
        return measure(session, batches, layers)

    @cached_property
    def _expected(self) -> np.ndarray:
        return self._few.logits(OrtSession(self.graphs[False].model))

    def _better(self, best: Trial, recipe: Recipe) -> Trial:
        trial = self._try(recipe)
        return trial if _decibels(trial) >= _decibels(best) + LEAST_GAIN_DB else best

    def _try(self, recipe: Recipe) -> Trial:
        self.report(f"trying {recipe.method}")
        with self.session(recipe) as session:
            actual = self._few.logits(session)
        trial = Trial(recipe, compare(self._expected, actual).sqnr_db)
        self.done.append(trial)
        return trial


def described(trials: Sequence[Trial], chosen: Recipe) -> dict[str, Any]:
    """What was tried and taken, as JSON."""
    return {
        "method": asdict(chosen.method),
        "equalized": chosen.equalized,
        "bias_corrected": chosen.corrected,
        "tried": [trial.to_dict() for trial in trials],
    }


def _decibels(trial: Trial) -> float:
    """No number counts as no signal: outputs that do not differ at all would not be INT8's."""
    return -np.inf if trial.sqnr_db is None else trial.sqnr_db
