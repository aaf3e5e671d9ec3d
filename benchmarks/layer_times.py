"""Where the time goes: each layer in FP32 and in INT8, from ONNX Runtime's own profile.

An optimized graph has other nodes than the file: an activation is part of its convolution, and
quantized ones carry a number behind their name. Here they are led back to the layers of the file;
what belongs to none (reordering, Q/DQ at the borders, additions, pools) is counted as such.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from convexport.runtime.ort_session import OrtSession

RUNS, _WARM_UP = 30, 5
# What ONNX Runtime 1.20 to 1.31 puts behind the name of a node that it made of another.
_MADE_OF_ANOTHER = re.compile(r"(_nchwc|_token_\d+|_quant)+$")


@dataclass(frozen=True)
class LayerTime:
    """One layer, in milliseconds a pass, medians of ``RUNS`` passes on one thread.

    Attributes:
        layer: the name of its node; empty for all that belongs to no layer.
    """

    layer: str
    fp32_ms: float
    int8_ms: float


def layer_times(
    fp32: Path, int8: Path, image: np.ndarray, layer_of: Callable[[str], str]
) -> tuple[LayerTime, ...]:
    """Both graphs' times by layer; the one that loses most by INT8 comes first.

    Args:
        fp32: the FP32 graph.
        int8: the same with Q/DQ.
        image: float32 N×C×H×W.
        layer_of: the layer to which a node of the FP32 graph belongs, or nothing.
    """
    times = [_by_layer(_node_times(path, image), layer_of) for path in (fp32, int8)]
    names = dict.fromkeys([*times[0], *times[1]])
    rows = [LayerTime(name, times[0].get(name, 0.0), times[1].get(name, 0.0)) for name in names]
    return tuple(sorted(rows, key=lambda row: row.fp32_ms - row.int8_ms))


def _by_layer(nodes: Mapping[str, float], layer_of: Callable[[str], str]) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for name, milliseconds in nodes.items():
        found[layer_of(_MADE_OF_ANOTHER.sub("", name))] += milliseconds
    return dict(found)


def _node_times(model: Path, image: np.ndarray) -> dict[str, float]:
    """Median milliseconds of every node that is executed."""
    with TemporaryDirectory() as scratch:
        session = OrtSession(model, threads=1, profile=Path(scratch) / "profile")
        for _ in range(_WARM_UP + RUNS):
            session.run({session.inputs[0].name: image})
        events = json.loads(session.end_profile().read_text())
    durations: dict[str, list[float]] = defaultdict(list)
    for event in events:
        name, kind = event["name"], "_kernel_time"
        if event.get("cat") == "Node" and name.endswith(kind):
            durations[name[: -len(kind)]].append(event["dur"] / 1e3)
    # Nodes may share a name: then a pass has several of it.
    passes = {name: np.reshape(each, (_WARM_UP + RUNS, -1)) for name, each in durations.items()}
    return {name: float(np.median(each[_WARM_UP:].sum(axis=1))) for name, each in passes.items()}
