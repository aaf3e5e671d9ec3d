"""FP32 → typed FP16: which type a tensor has is written in the graph, nothing is left to flags.

A node computes in FP16 unless something forbids it (``half_limits``). Its float inputs are then
float16: weights are stored so, and an activation that is float32 gets one Cast, whoever reads it.
Between two nodes of the same precision there is none. The graph's input and output stay float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from math import log2
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from convexport.calibration.names import Names
from convexport.calibration.placement import probabilities
from convexport.exporter.half_limits import (
    CHANNELS,
    HARMLESS,
    LARGEST,
    MARGIN,
    REASONS,
    Finding,
    Limits,
    array_of,
    computes_floats,
    half_inputs,
)
from convexport.runtime.errors import UnsupportedError, UsageError, did_you_mean


@dataclass(frozen=True)
class HalfReport:
    """What became of every node, and why.

    Attributes:
        precisions: ``fp16`` or ``fp32`` for every node with floats.
        kept: why nodes stayed in FP32: one row for every reason, weight and activation.
        harmless: weights that FP16 rounds away without effect on the observed outputs.
        casts: how many were put in.
        tightest: the tensor in FP16 that comes nearest to its largest number; empty without any.
        headroom_bits: how often that tensor could double; None without any.
    """

    precisions: Mapping[str, str]
    kept: tuple[Finding, ...]
    harmless: tuple[Finding, ...]
    casts: int
    tightest: str
    headroom_bits: float | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without the precisions."""
        return {
            "kept": [{**asdict(row), "why": REASONS[row.reason]} for row in self.kept],
            "harmless": [asdict(row) for row in self.harmless],
            "casts": self.casts,
            "tightest": self.tightest,
            "headroom_bits": self.headroom_bits,
            "counts": dict(Counter(self.precisions.values())),
            "margin": MARGIN,
        }


@dataclass(frozen=True)
class Half:
    """The typed model, and the report on it."""

    model: ir.Model
    report: HalfReport


def half_from_ranges(
    model: ir.Model, magnitudes: Mapping[str, float], keep: Iterable[str] = ()
) -> Half:
    """A typed FP16 copy of an FP32 model.

    Args:
        model: simplified; every node has a name of its own, every tensor a type.
        magnitudes: the largest absolute value observed of every float tensor that is computed,
            and of the input.
        keep: names of nodes that shall stay in FP32, or patterns of them (``layer4.*``).

    Raises:
        UsageError: E0289, a name fits no node.
        UnsupportedError: E0689, no node is left in FP16.
    """
    copy = model.clone()
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
    nodes = [node for node in copy.graph if computes_floats(node)]
    limits = Limits(copy.opset_imports[""], magnitudes, frozenset(probabilities(copy.graph)))
    found = [*_requested(nodes, keep), *(row for node in nodes for row in limits.findings(node))]
    kept = [row for row in found if row.reason != HARMLESS]
    names = {row.node for row in kept}
    between = _between(nodes, {node for node in nodes if node.name in names})
    kept += [Finding(str(node.name), node.op_type, "between") for node in between]
    half = [node for node in nodes if node.name not in names and node not in between]
    if not half:
        raise _nothing_left(kept)
    ports = {node: half_inputs(node, limits.opset) for node in half}
    held = [
        (limits.magnitude(value), str(value.name))
        for node in half
        for value in (*(node.inputs[place] for place in ports[node]), *node.outputs)
        if value is not None and value.dtype == ir.DataType.FLOAT
    ]
    largest, tightest = max(held, default=(0.0, ""))
    report = HalfReport(
        precisions={str(node.name): "fp16" if node in ports else "fp32" for node in nodes},
        kept=tuple(kept),
        harmless=tuple(row for row in found if row.reason == HARMLESS),
        casts=_Typing(copy.graph, ports, Names(copy.graph)).apply(),
        tightest=tightest,
        headroom_bits=log2(LARGEST / largest) if largest else None,
    )
    return Half(copy, report)


@dataclass(frozen=True)
class _Typing:
    """Gives every tensor of a graph its type, in place.

    Attributes:
        ports: the nodes that compute in FP16, and which of their inputs are float16 then.
        names: those in the graph, so that what is added clashes with none of them.
    """

    graph: ir.Graph
    ports: Mapping[ir.Node, list[int]]
    names: Names

    def apply(self) -> int:
        """Type weights and activations; the number of Casts."""
        values = [*self.graph.inputs, *(v for node in self.graph for v in node.outputs)]
        # What the given model has in float16 already stays as it is.
        activations = [value for value in values if value.dtype == ir.DataType.FLOAT]
        for weight in list(self.graph.initializers.values()):
            if weight.dtype == ir.DataType.FLOAT:
                self._narrow_weight(weight)
        for node in self.ports:
            if node.op_type == "Cast" and node.outputs[0].dtype == ir.DataType.FLOAT:
                node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT16)
            for value in node.outputs:
                if value.dtype == ir.DataType.FLOAT:
                    value.dtype = ir.DataType.FLOAT16
        casts = sum(self._cast(value) for value in activations)
        self.graph.sort()
        return casts

    def _narrow_weight(self, weight: ir.Value) -> None:
        users = self._users(weight, ir.DataType.FLOAT16)
        if not users:
            return
        array = array_of(weight).astype(np.float16)
        name = self.names.free(f"{weight.name}.fp16")
        narrow = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        narrow.shape, narrow.type = weight.shape, ir.TensorType(ir.DataType.FLOAT16)
        for user, place in users:
            user.replace_input_with(place, narrow)
        if not (weight.uses() or weight.is_graph_output() or weight.is_graph_input()):
            del self.graph.initializers[str(weight.name)]
            narrow.name = weight.name
        self.graph.register_initializer(narrow)

    def _cast(self, value: ir.Value) -> int:
        """Give whoever wants the other type a Cast; how many that took: none or one."""
        wide = value.dtype == ir.DataType.FLOAT
        other, suffix = (ir.DataType.FLOAT16, "fp16") if wide else (ir.DataType.FLOAT, "fp32")
        users, leaves = self._users(value, other), value.is_graph_output() and not wide
        if value.is_initializer() or not (users or leaves):
            return 0
        name = self.names.free(f"{value.name}.{suffix}")
        cast = ir.node("Cast", [value], {"to": int(other)}, name=name)
        output = cast.outputs[0]
        output.name, output.type, output.shape = name, ir.TensorType(other), value.shape
        self.graph.append(cast)
        for user, place in users:
            user.replace_input_with(place, output)
        if leaves:
            output.name, value.name = str(value.name), self.names.free(f"{value.name}.fp16")
            for place, each in enumerate(self.graph.outputs):
                if each is value:
                    self.graph.outputs[place] = output
        return 1

    def _users(self, value: ir.Value, dtype: ir.DataType) -> list[tuple[ir.Node, int]]:
        """Who reads the value and wants it in that type; a Cast takes either."""
        half = dtype == ir.DataType.FLOAT16
        return [
            (user, place)
            for user, place in value.uses()
            if user.op_type != "Cast" and (place in self.ports.get(user, ())) == half
        ]


def _between(nodes: list[ir.Node], kept: set[ir.Node]) -> list[ir.Node]:
    """Nodes without weights that neither get FP16 nor give it to a node that wants it."""
    inner: set[ir.Node] = set()
    for node in nodes:
        before = {value.producer() for value in node.inputs if value and not value.is_initializer()}
        if node.op_type not in CHANNELS and before - {None} <= kept | inner:
            inner.add(node)
    for node in reversed(nodes):
        after = {user for value in node.outputs for user, _ in value.uses()}
        if not after <= kept | inner:
            inner.discard(node)
    return [node for node in nodes if node in inner - kept]


def _requested(nodes: list[ir.Node], keep: Iterable[str]) -> Iterator[Finding]:
    for pattern in keep:
        fitting = [
            node for node in nodes if node.name == pattern or fnmatchcase(str(node.name), pattern)
        ]
        if not fitting:
            names = [str(node.name) for node in nodes]
            raise UsageError(
                "E0289",
                f"--keep-fp32 {pattern}: no node has such a name",
                where=f"{len(names)} nodes, such as {', '.join(names[:3])}",
                hint=did_you_mean(pattern, names, otherwise="* stands for any part of a name"),
            )
        for node in fitting:
            yield Finding(str(node.name), node.op_type, "requested")


def _nothing_left(kept: Iterable[Finding]) -> UnsupportedError:
    reasons = Counter(row.reason for row in kept)
    return UnsupportedError(
        "E0689",
        "no node is left in FP16",
        why=", ".join(f"{count} times {reason}" for reason, count in reasons.items()),
        hint="build it with --fp32",
    )
