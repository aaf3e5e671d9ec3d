"""The rules, their order, and applying them until nothing changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from convexport.exporter.simplify import flatten, global_average_pool, identity_pool


@dataclass(frozen=True)
class Rule:
    """``check`` says why a node does not fit (None: it fits); ``rewrite`` gives its successors.

    Where there are none, the node's input stands for its output.
    """

    name: str
    check: Callable[[ir.Node], str | None]
    rewrite: Callable[[ir.Node], list[ir.Node]]


_FILES = (global_average_pool, identity_pool, flatten)
RULES = tuple(Rule(file.NAME, file.check, file.rewrite) for file in _FILES)


def apply_rules(model: ir.Model) -> dict[str, int]:
    """Apply every rule in order until none fits; how often each was applied."""
    applied: Counter[str] = Counter()
    changed = True
    while changed:
        changed = False
        for rule in RULES:
            for node in list(model.graph):
                if rule.check(node) is None:
                    _replace(model.graph, node, rule.rewrite(node))
                    applied[rule.name] += 1
                    changed = True
    return dict(applied)


def _replace(graph: ir.Graph, node: ir.Node, successors: list[ir.Node]) -> None:
    given = node.inputs[0]
    if not successors and given is not None:
        ir.convenience.replace_all_uses_with(node.outputs[0], given)
        graph.remove(node, safe=True)
        return
    graph.insert_before(node, successors)
    old, new = node.outputs[0], successors[-1].outputs[0]
    new.shape, new.type = old.shape, old.type
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    name = old.name
    graph.remove(node, safe=True)
    new.name = name
