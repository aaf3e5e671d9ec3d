"""Ranges and a recipe → a graph with Q/DQ: thresholds, scales and their insertion in one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from convexport.calibration.placement import (
    Placement,
    is_integer,
    quantized_tensors,
    stranded,
)
from convexport.calibration.pools import keep_pools_in_floats, pools_to_convolutions
from convexport.calibration.qdq import Scale, insert_qdq, scale_of
from convexport.calibration.scale_sources import scale_sources
from convexport.calibration.thresholds import Method, Threshold, Thresholds


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that can be chosen about one net's INT8.

    Attributes:
        method: how thresholds are chosen; not ``auto``.
        equalized: whether channels were evened out before.
        corrected: whether biases take the weights' rounding back.
        kept: names of nodes that stay in floats.
    """

    method: Method
    equalized: bool = False
    corrected: bool = False
    kept: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Decided:
    """What a method decided of one graph.

    Attributes:
        thresholds: by the names of the activations that get Q/DQ.
        scales: the same, in the integers of the placement.
    """

    thresholds: Mapping[str, Threshold]
    scales: Mapping[str, Scale]


def decide(
    graph: ir.Graph, thresholds: Thresholds, method: Method, placement: Placement
) -> Decided:
    """The thresholds and scales of all activations that the placement quantizes."""
    sources = scale_sources(graph, placement)
    dtype = placement.activations
    chosen = {name: thresholds.of(group, method, dtype) for name, group in sources.items()}
    return Decided(chosen, {name: scale_of(each, dtype) for name, each in chosen.items()})


def quantize(
    model: ir.Model, thresholds: Thresholds, recipe: Recipe, placement: Placement
) -> tuple[Decided, dict[str, str]]:
    """Put Q/DQ into a model, in place.

    Returns:
        What was decided, and the precision of every node that was there before.
    """
    rules = replace(placement, kept=placement.kept | recipe.kept)
    if recipe.kept:
        rules = replace(rules, kept=rules.kept | stranded(model.graph, rules))
    if rules.rewritten_pools:
        chosen = {*quantized_tensors(model.graph, rules)}
        pools_to_convolutions(
            model.graph,
            lambda pool: is_integer(pool, rules) and str(pool.outputs[0].name) in chosen,
        )
    decided = decide(model.graph, thresholds, recipe.method, rules)
    ranges = thresholds.ranges.items()
    means = {name: seen.channels.mean for name, seen in ranges if seen.channels is not None}
    precisions = insert_qdq(model, decided.scales, rules, means if recipe.corrected else None)
    if rules.rewritten_pools:
        precisions |= dict.fromkeys(keep_pools_in_floats(model.graph), "fp32")
    return decided, precisions
