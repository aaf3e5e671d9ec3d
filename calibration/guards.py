"""Channels that carry nothing: activations that never change, weights that are zero or denormal.

They are no error, and a few of them are usual. Many are the mark of a net that was cut badly, or of
images that are none of its own, and what INT8 makes of such a net says nothing about another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

_WORST = 3


class Channels(Protocol):
    """What was seen of an activation's channels: arrays of shape (C,)."""

    @property
    def minimum(self) -> NDArray[np.floating[Any]]:
        """The smallest value of each."""
        ...

    @property
    def maximum(self) -> NDArray[np.floating[Any]]:
        """The largest value of each."""
        ...


@dataclass(frozen=True)
class _Rule:
    """What a kind of channel is called, and the share of all channels that may be of it."""

    text: str
    share: float


_RULES = {
    # Trained nets with rectifiers have some: those for digits up to 5 %.
    "dead": _Rule("activation channels were zero for all images", 0.1),
    "constant": _Rule("activation channels had one value for all images", 0.1),
    # A trained layer has none.
    "zero": _Rule("output channels have no weight but 0", 0),
    "denormal": _Rule("output channels have denormal weights, which INT8 makes 0", 0),
}


@dataclass(frozen=True)
class Census:
    """How many channels are of a kind.

    Attributes:
        channels: of all layers.
        layers: those that have such channels, as ``channels`` and kind -> number.
    """

    channels: int
    layers: Mapping[str, Mapping[str, int]]

    def doubts(self) -> tuple[str, ...]:
        """One sentence for each kind of which there are too many, or in which a layer is lost."""
        return tuple(self._sentence(kind) for kind in _RULES if self._too_many(kind))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"channels": self.channels, "layers": {k: dict(v) for k, v in self.layers.items()}}

    def _total(self, kind: str) -> int:
        return sum(counts.get(kind, 0) for counts in self.layers.values())

    def _too_many(self, kind: str) -> bool:
        lost = any(counts.get(kind) == counts["channels"] for counts in self.layers.values())
        return lost or self._total(kind) > _RULES[kind].share * self.channels

    def _sentence(self, kind: str) -> str:
        counted = sorted(self.layers.items(), key=lambda item: -item[1].get(kind, 0))[:_WORST]
        worst = ", ".join(
            f"{name} ({counts[kind]} of {counts['channels']})"
            for name, counts in counted
            if counts.get(kind)
        )
        return f"{self._total(kind)} of {self.channels} {_RULES[kind].text}, most in {worst}"


def census_of_activations(activations: Mapping[str, Channels | None]) -> Census:
    """Channels that are dead (always 0) or constant (always another value).

    Args:
        activations: name -> what was seen of its channels; None has none.
    """
    found = {}
    for name, seen in activations.items():
        if seen is not None:
            still = seen.minimum == seen.maximum
            dead = still & (seen.maximum == 0)
            found[name] = {"dead": dead, "constant": still & ~dead}
    return _census(found)


def census_of_weights(graph: ir.Graph) -> Census:
    """Output channels of Conv, Gemm and MatMul whose weights are all zero, or some denormal."""
    found = {}
    for node in graph:
        weight = _weight(node)
        if weight is not None:
            size = np.abs(weight)
            denormal = (size > 0) & (size < np.finfo(weight.dtype).tiny)
            found[str(node.name)] = {"zero": ~weight.any(axis=1), "denormal": denormal.any(axis=1)}
    return _census(found)


def _census(found: Mapping[str, Mapping[str, NDArray[np.bool_]]]) -> Census:
    sizes = {name: len(next(iter(kinds.values()))) for name, kinds in found.items()}
    layers = {
        name: {"channels": sizes[name], **{kind: int(hit.sum()) for kind, hit in kinds.items()}}
        for name, kinds in found.items()
        if any(hit.any() for hit in kinds.values())
    }
    return Census(sum(sizes.values()), layers)


def _weight(node: ir.Node) -> NDArray[np.floating[Any]] | None:
    """The weights of each output channel, (out, ...) as (out, n); None where there are none."""
    if node.op_type not in ("Conv", "Gemm", "MatMul") or node.domain or node.inputs[1] is None:
        return None
    constant = node.inputs[1].const_value
    if constant is None:
        return None
    array: NDArray[np.floating[Any]] = constant.numpy()
    if node.op_type == "MatMul" or (
        node.op_type == "Gemm" and not node.attributes.get_int("transB", 0)
    ):
        array = np.moveaxis(array, -1, 0)
    return array.reshape(len(array), -1)
