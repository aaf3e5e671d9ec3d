"""A net drawn in text: its steps with their shapes, and each kind of block with its branches.

Drawn from what the net computes (a symbolic trace), not from a description of it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from convexport.architectures.ensemble import Adapter, Ensemble
from convexport.architectures.variant import Shape


@dataclass(frozen=True)
class Fork:
    """Branches from one tensor that meet again in ``merge``; an empty one is the tensor itself."""

    merge: Label
    branches: tuple[tuple[Label | Fork, ...], ...]


Label = tuple[str, fx.Node]
"""What a step is called, and where it is in the trace."""
Steps = tuple[Label | Fork, ...]

# Lines of a block that is still worth drawing.
_LONGEST = 40


def diagram(module: nn.Module, shape: Shape) -> list[str]:
    """The net line by line; nothing is computed.

    Args:
        module: on the meta device; left in evaluation mode.
        shape: of one image.
    """
    graph = _trace(module.eval(), _is_block)
    shapes = _shapes(module, graph, shape)
    steps = _steps(module, graph)
    if steps is None:
        steps = tuple((_label(module, n), n) for n in graph.nodes if n.meta["computed"])
    lines = list(_stages(module, steps, shapes))
    for path, block in _kinds(module):
        inner = _steps(block, _trace(block, lambda part: False))
        if inner is not None:
            lines += ["", f"{type(block).__name__}, as {path}:", *_drawn(inner, "  ")]
    return lines


class _Tracer(fx.Tracer):
    def __init__(self, leaf: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self.leaf = leaf

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = self.leaf(m) or not any(m.children())
        return whole or super().is_leaf_module(m, module_qualified_name)


def _trace(module: nn.Module, leaf: Callable[[nn.Module], bool]) -> fx.Graph:
    graph = _Tracer(lambda part: part is not module and leaf(part)).trace(module)
    for node in graph.nodes:
        given = [each.meta["computed"] for each in node.all_input_nodes]
        node.meta["computed"] = node.op == "placeholder" or any(given)
    return graph


def _is_block(part: nn.Module) -> bool:
    """Whether it is one of the families' own modules, with several layers or branches inside."""
    if not type(part).__module__.startswith("convexport.") or not any(part.children()):
        return False
    if sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in part.modules()) > 1:
        return True
    return any(len(_tensors(node)) > 1 for node in _trace(part, lambda inner: False).nodes)


def _kinds(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The first block of each kind: of equal class and equal up to maps and strides."""
    if isinstance(module, Ensemble):  # each member has a drawing of its own
        return
    seen: set[str] = set()
    inside: tuple[str, ...] = ()
    for path, part in module.named_modules():
        if part is module or path.startswith(inside) or not _is_block(part):
            continue
        steps = _steps(part, _trace(part, lambda inner: False))
        if steps is not None:
            inside = (*inside, f"{path}.")
            drawing = "\n".join(_drawn(steps, ""))
            if drawing.count("\n") > _LONGEST:
                continue
            kind = type(part).__name__ + re.sub(r"/\d+| \d+\b(?!×)", "", drawing)
            if kind not in seen:
                seen.add(kind)
                yield path, part


def _steps(block: nn.Module, graph: fx.Graph) -> Steps | None:
    """What the block does from its input to its output; None where that is too much to draw."""
    nodes = [node for node in graph.nodes if node.meta["computed"]]
    output = nodes[-1].all_input_nodes[0]
    try:
        # Where branches share steps, as in a dense block, these would be drawn again and again.
        return _between(block, nodes[0], output, _dominators(nodes), [2 * len(nodes)])
    except OverflowError:
        return None


def _between(
    block: nn.Module,
    start: fx.Node,
    end: fx.Node,
    dominators: dict[fx.Node, fx.Node],
    budget: list[int],
) -> Steps:
    """The steps after ``start`` up to ``end``, forks drawn with their branches."""
    found: list[Label | Fork] = []
    while end is not start:
        budget[0] -= 1
        if budget[0] < 0:
            raise OverflowError
        given = _tensors(end)
        label = _label(block, end), end
        if len(given) > 1:
            fork = dominators[end]
            branches = (_between(block, fork, each, dominators, budget) for each in given)
            found.append(Fork(label, tuple(branches)))
            end = fork
        else:
            found.append(label)
            end = given[0]
    return tuple(step for step in reversed(found) if isinstance(step, Fork) or step[0])


def _dominators(nodes: Sequence[fx.Node]) -> dict[fx.Node, fx.Node]:
    """For each node the last one before it that every path from the input to it goes through."""
    chains: dict[fx.Node, list[fx.Node]] = {nodes[0]: [nodes[0]]}
    for node in nodes[1:]:
        given = [chains[each] for each in _tensors(node)]
        if given:
            common = [each for each in given[0] if all(each in other for other in given[1:])]
            chains[node] = [*common, node]
    return {node: chain[-2] for node, chain in chains.items() if len(chain) > 1}


def _tensors(node: fx.Node) -> list[fx.Node]:
    """What a node is computed from, parameters and what is made of them alone left out."""
    return [each for each in node.all_input_nodes if each.meta["computed"]]


def _stages(
    module: nn.Module, steps: Steps, shapes: dict[fx.Node, tuple[int, ...]]
) -> Iterator[str]:
    """The whole net, one line for each weight layer, pool, or run of equal blocks."""
    for forks, run in groupby(steps, key=lambda step: isinstance(step, Fork)):
        if forks:
            for step in run:
                *lines, last = _drawn([step], "")
                yield from lines
                assert isinstance(step, Fork)
                # What is stacked has the batch second.
                stacked = step.merge[0] == "stack"
                yield last if stacked else _with_shape(last, shapes[step.merge[1]])
        else:
            yield from _rows(module, [step for step in run if isinstance(step, tuple)], shapes)


def _rows(
    module: nn.Module, labels: Sequence[Label], shapes: dict[fx.Node, tuple[int, ...]]
) -> Iterator[str]:
    rows: list[tuple[str, tuple[int, ...]]] = []
    for label, node in labels:
        if node.op in ("placeholder", "output") or not label:
            continue
        if rows and not _begins_a_line(module, node):
            rows[-1] = (f"{rows[-1][0]}, {label}", shapes[node])
        else:
            rows.append((label, shapes[node]))
    for (text, shape), run in groupby(rows):
        count = sum(1 for _ in run)
        yield _with_shape(f"{count} × {text}" if count > 1 else text, shape)


def _with_shape(text: str, shape: tuple[int, ...]) -> str:
    return f"{text:<60} {'×'.join(str(size) for size in shape)}"


def _begins_a_line(module: nn.Module, node: fx.Node) -> bool:
    if node.op != "call_module":
        return False
    part = module.get_submodule(str(node.target))
    kinds = (nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
    return isinstance(part, kinds) or any(part.children())


def _shapes(module: nn.Module, graph: fx.Graph, shape: Shape) -> dict[fx.Node, tuple[int, ...]]:
    found: dict[fx.Node, tuple[int, ...]] = {}

    class Interpreter(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            result = super().run_node(n)
            if isinstance(result, torch.Tensor):
                found[n] = tuple(result.shape[1:])
            return result

    with torch.no_grad():
        Interpreter(fx.GraphModule(module, graph)).run(torch.empty((1, *shape), device="meta"))
    return found


def _drawn(steps: Sequence[Label | Fork], indent: str) -> Iterator[str]:
    for forks, run in groupby(steps, key=lambda step: isinstance(step, Fork)):
        if not forks:
            yield indent + ", ".join(step[0] for step in run if isinstance(step, tuple))
            continue
        for fork in run:
            assert isinstance(fork, Fork)
            for branch in fork.branches:
                lines = list(_drawn(branch, "")) or ["(as it is)"]
                yield f"{indent}├─ {lines[0]}"
                yield from (f"{indent}│  {line}" for line in lines[1:])
            yield f"{indent}└→ {fork.merge[0]}"


_FUNCTIONS: dict[Any, str] = {
    F.relu: "ReLU",
    F.relu6: "ReLU6",
    F.avg_pool2d: "average-pool",
    F.max_pool2d: "max-pool",
    F.adaptive_avg_pool2d: "global average",
    F.pad: "pad",
    F.interpolate: "resize",
    torch.cat: "concatenate",
    torch.stack: "stack",
    torch.flatten: "",
    torch.tanh: "tanh",
    operator.add: "add",
    operator.mul: "multiply",
    operator.getitem: "",
}
_METHODS = {"flatten": "", "sum": "sum", "mean": "mean", "softmax": "softmax", "log": "log"}
_NAMES = {
    "BatchNorm2d": "BN",
    "LocalResponseNorm": "LRN",
    "Adapter": "its own preprocess",
    "ScaledTanh": "scaled tanh",
    "StochasticDepth": "",  # the identity, but for training
}
_QUIET = (nn.Identity, nn.Dropout, nn.Flatten, nn.Dropout2d)


def _label(module: nn.Module, node: fx.Node) -> str:
    """What a step is called in papers; empty where it changes nothing that matters."""
    if node.op == "call_module":
        return _layer(module.get_submodule(str(node.target)))
    if node.op == "call_method":
        return _METHODS.get(str(node.target), str(node.target))
    return _FUNCTIONS.get(node.target, str(getattr(node.target, "__name__", "")))


def _layer(layer: nn.Module) -> str:
    name = type(layer).__name__
    if isinstance(layer, nn.Conv2d):
        kind = "depth-wise" if 1 < layer.groups == layer.in_channels else "conv"
        groups = f" in {layer.groups} groups" if kind == "conv" and layer.groups > 1 else ""
        return f"{_size(layer.kernel_size)} {kind} {layer.out_channels}{groups}{_by(layer.stride)}"
    if isinstance(layer, nn.Linear):
        return f"linear {layer.out_features}"
    if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        kind = "max" if isinstance(layer, nn.MaxPool2d) else "average"
        return f"{_size(layer.kernel_size)} {kind}-pool{_by(layer.stride)}"
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return "global average" if layer.output_size in (1, (1, 1)) else "average to a grid"
    if isinstance(layer, _QUIET) or (isinstance(layer, Adapter) and layer.idle):
        return ""
    parts = [type(part).__name__ for part in layer.children()]
    if len(parts) > 1 and len(set(parts)) == 1 and parts[0] != "Sequential" and _is_block(layer):
        return f"{name} of {len(parts)} {parts[0]}"
    return _NAMES.get(name, name)


def _size(kernel: int | tuple[int, ...]) -> str:
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    return f"{height}×{width}"


def _by(stride: int | tuple[int, ...]) -> str:
    step = stride if isinstance(stride, int) else stride[0]
    return f"/{step}" if step > 1 else ""
