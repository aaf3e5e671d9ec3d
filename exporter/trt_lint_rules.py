"""What a rule of the TensorRT lint is, and what rules look at a graph with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from packaging.specifiers import SpecifierSet

from convexport.exporter.trt_parsers import Parser

Severity = Literal["error", "warning"]
# (the node or tensor, what is the matter with it)
Hits = Iterator[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Something that TensorRT refuses, misreads or does badly.

    Attributes:
        versions: of TensorRT, as a specifier; empty for all.
        severity: an error is refused or computes something else; a warning is slow or asks for
            care.
        source: where it is written.
        check: the places where it is so, for a parser to which the rule applies.
    """

    id: str
    versions: str
    severity: Severity
    why: str
    fix: str
    source: str
    check: Callable[[ir.Model, Parser], Hits]

    def holds(self, parser: Parser) -> bool:
        """Whether it is about that version."""
        return parser.version in SpecifierSet(self.versions)


def label(node: ir.Node) -> str:
    """What a node is called: its name, or that of its output."""
    return str(node.name or node.outputs[0].name)


def known(value: ir.Value | None) -> NDArray[np.generic] | None:
    """The array of a constant; None where it is computed."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def given(node: ir.Node, place: int) -> ir.Value | None:
    """An input, if the node has it."""
    return node.inputs[place] if place < len(node.inputs) else None


def of_type(model: ir.Model, *operators: str) -> Iterator[ir.Node]:
    """The nodes of some operators, in subgraphs too."""
    return (node for node in model.graph.all_nodes() if node.op_type in operators)
