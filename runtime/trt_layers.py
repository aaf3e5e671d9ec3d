"""What TensorRT made of a network: each layer of an engine, as its inspector tells it."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Dict, Iterable, Tuple

from convexport.runtime.errors import InputError

# Words of the inspector, of 8.5 to 11, for the type of a tensor -> ours. The first that occurs.
_TYPES = (
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
# Our nodes: the module's path, a slash, the operator.
_NODE = re.compile(r"([\w.]+)/[A-Z]\w*")


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
    """

    name: str
    kind: str
    precision: str
    output: str
    modules: Tuple[str, ...]

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
    """The layers as JSON, with counts: by precision, and of reformats."""
    rows = [(each, each.is_reformat) for each in layers]
    return {
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


def _layer(data: Dict[str, Any]) -> EngineLayer:
    name = str(data["Name"])
    # From 8.6 on the nodes are in the metadata too, where fusing cannot garble their names.
    nodes = _NODE.findall(str(data.get("Metadata", ""))) or _NODE.findall(name)
    taken, given = ([_type(each) for each in data.get(k, [])] for k in ("Inputs", "Outputs"))
    return EngineLayer(
        name=name,
        kind=str(data.get("LayerType", "")),
        precision="int8" if "int8" in taken else "".join(taken[:1]) or _of_weights(data),
        output="".join(given[:1]),
        modules=tuple(dict.fromkeys(nodes)),
    )


def _of_weights(data: Dict[str, Any]) -> str:
    """What is still told where tensors are of unsettled shape."""
    weights = data.get("Weights")
    return _type({"Datatype": weights.get("Type")}) if isinstance(weights, dict) else ""


def _type(tensor: Dict[str, Any]) -> str:
    # One field before 11, two from there on.
    told = (tensor.get(key, "") for key in ("Datatype", "DataType", "Format/Datatype"))
    words = next((str(each).lower() for each in told if each), "")
    return next((ours for word, ours in _TYPES if word in words), "")
