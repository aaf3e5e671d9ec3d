"""What TensorRT made of a network: each layer of an engine, as its inspector tells it."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Tuple

from convexport.runtime.errors import GateError, InputError

# Words of the inspector, of 8.5 to 11, for the type of a tensor -> ours. The first that occurs.
_TYPES = (
    ("uint8", "uint8"),
    ("int8", "int8"),
    ("fp16", "fp16"),
    ("half", "fp16"),
    ("bf16", "bf16"),
    ("fp32", "fp32"),
    ("float", "fp32"),
    ("int32", "int32"),
    ("int64", "int64"),
    ("bool", "bool"),
)
# Our nodes: the module's path, a slash, the operator. PyTorch's: a slash before each module, whose
# name repeats that of the one around it where that is a list.
_NODE = re.compile(r"((?:/[\w.]+)+|[\w.]+)/[A-Z]\w*")
# A node of that operator, also as older exporters number them.
_CONVOLUTION = re.compile(r"[\w./]*\bConv(?:Transpose)?(?:_\w+)?(?![\w./])")
# Of the convolutions that a graph has in INT8, those that an engine has to have in it. TensorRT may
# find FP16 faster here and there; with less than half there is no sense in calling it INT8.
_SHARE = 0.5


@dataclass(frozen=True)
class EngineLayer:
    """A layer of an engine.

    Attributes:
        name: TensorRT's own, which joins those of the nodes that were fused.
        kind: such as ``CaskConvolution`` or ``Reformat``; empty where only names are in the plan.
        precision: INT8 if any input comes in that, else what the first comes in; empty if it is
            not told.
        output: what its first output goes out in, likewise.
        modules: the paths of the PyTorch modules that it came from, in order, each once.
        convolutions: how many of the graph's it computes.
    """

    name: str
    kind: str
    precision: str
    output: str
    modules: Tuple[str, ...]
    convolutions: int

    @property
    def is_reformat(self) -> bool:
        """Whether it only changes the type or the order of a tensor in memory."""
        return self.kind == "Reformat" or self.name.startswith("Reformatting")


def read_layers(text: str) -> Tuple[EngineLayer, ...]:
    """The layers in the JSON of ``IEngineInspector.get_engine_information``.

    Raises:
        InputError: E0319, it is something else.
    """
    try:
        layers = json.loads(text)["Layers"]
        return tuple(_layer(each if isinstance(each, dict) else {"Name": each}) for each in layers)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            "E0319",
            "TensorRT's inspector says something unknown",
            why=repr(error),
            where=text[:200],
        ) from error


def summary(layers: Iterable[EngineLayer]) -> Dict[str, Any]:
    """The layers as JSON, with counts: by precision, also of convolutions, and of reformats."""
    rows = [(each, each.is_reformat) for each in layers]
    convolutions: Dict[str, int] = Counter()
    for each in (each for each, odd in rows if not odd and each.convolutions):
        convolutions[each.precision or "not told"] += each.convolutions
    return {
        "convolutions": dict(convolutions),
        "counts": dict(Counter(each.precision or "not told" for each, odd in rows if not odd)),
        "reformats": sum(odd for _, odd in rows),
        "layers": [
            {
                "name": each.name,
                "kind": each.kind,
                "precision": each.precision,
                "output": each.output,
                "modules": list(each.modules),
            }
            for each, _ in rows
        ],
    }


def counts(engine: Mapping[str, Any]) -> str:
    """The layers of a ``summary`` in a line."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in engine["counts"].items())
    return f"{kinds or 'no'} layers, {engine['reformats']} reformats"


def require_int8(engine: Mapping[str, Any], graph: Mapping[str, str]) -> str:
    """Let no engine pass as INT8 that computes most of its convolutions in something else.

    Args:
        engine: its ``summary``.
        graph: the precision of each of the graph's nodes, as far as it is known.

    Returns:
        A line on it.

    Raises:
        GateError: E0502, less than half of the convolutions that the graph has in INT8 run in it.
    """
    found: Mapping[str, int] = engine["convolutions"]
    asked = sum(kind == "int8" and bool(_CONVOLUTION.search(name)) for name, kind in graph.items())
    here, total = found.get("int8", 0), sum(found.values())
    wanted = min(asked, total) if asked and total else total
    if total:
        line = f"{here} of {wanted} convolutions of the engine run in INT8"
        enough, told = here >= _SHARE * wanted, not found.get("not told")
    else:
        line = "no layer of the engine runs in INT8"
        enough, told = bool(engine["counts"].get("int8")), not engine["counts"].get("not told")
    if enough:
        return line if total else "INT8: the engine names no convolutions"
    if not told:
        return "INT8 is not confirmed: TensorRT does not tell the layers' types"
    raise GateError(
        "E0502",
        line,
        where=counts(engine),
        why="TensorRT took other kernels, or does not see the graph as quantized",
        hint="--fp16; convexport inspect says what this target makes of the graph",
    )


def _layer(data: Dict[str, Any]) -> EngineLayer:
    name = str(data["Name"])
    # From 8.6 on the nodes are in the metadata too, where fusing cannot garble their names.
    metadata, kind = str(data.get("Metadata", "")), str(data.get("LayerType", ""))
    nodes = _NODE.findall(metadata) or _NODE.findall(name)
    convolutions = set(_CONVOLUTION.findall(metadata) or _CONVOLUTION.findall(name))
    taken, given = ([_type(each) for each in data.get(k, [])] for k in ("Inputs", "Outputs"))
    return EngineLayer(
        name=name,
        kind=kind,
        precision="int8" if "int8" in taken else "".join(taken[:1]) or _of_weights(data),
        output="".join(given[:1]),
        modules=tuple(dict.fromkeys(map(_module, nodes))),
        convolutions=len(convolutions) or int("conv" in kind.lower()),
    )


def _module(path: str) -> str:
    """``/layer1/layer1.0/conv1`` → ``layer1.0.conv1``."""
    parts: List[str] = []
    for part in path.strip("/").split("/"):
        if parts and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    return ".".join(parts)


def _of_weights(data: Dict[str, Any]) -> str:
    """What is still told where tensors are of unsettled shape."""
    weights = data.get("Weights")
    return _type({"Datatype": weights.get("Type")}) if isinstance(weights, dict) else ""


def _type(tensor: Dict[str, Any]) -> str:
    # One field before 11, two from there on.
    told = (tensor.get(key, "") for key in ("Datatype", "DataType", "Format/Datatype"))
    words = next((str(each).lower() for each in told if each), "")
    return next((ours for word, ours in _TYPES if word in words), "")
