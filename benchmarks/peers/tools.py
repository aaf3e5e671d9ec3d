"""The tools that are compared: one row each, as data.

A tool's module has ``quantizer(options)``, which imports what it needs and returns a function
from ``Work`` to the seconds of its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Work:
    """What a tool is given.

    Attributes:
        model: the simplified FP32 ONNX file.
        input_name: of its one input.
        images: see ``arrays``.
        count: how many of them.
        batch: images per forward pass.
        output: where the INT8 file goes.
    """

    model: Path
    input_name: str
    images: Path
    count: int
    batch: int
    output: Path


Quantize = Callable[[Work], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One way to quantize.

    Attributes:
        name: in the tables.
        about: what is particular about it, for the reader of the tables.
        module: the file here that calls it.
        options: for that module.
        foreign: whether it runs in the peers' interpreter.
        suffix: of what it writes.
        runtimes: of ``runners`` that its file is run by, the one that its maker means first.
    """

    name: str
    about: str
    module: str
    options: Mapping[str, Any] = field(default_factory=dict)
    foreign: bool = True
    suffix: str = ".onnx"
    runtimes: tuple[str, ...] = ("onnxruntime",)


# The denominator of every calibration: what the forward passes alone cost.
PLAIN = Tool(
    name="FP32 pass",
    about="ONNX Runtime runs the FP32 file over the same images and keeps nothing",
    module="plain_pass",
    foreign=False,
    runtimes=(),
)
_OPENVINO = ("openvino", "openvino-f32")

# Not quantized. FP32 in ONNX Runtime is the baseline; OpenVINO's own two precisions, and PyTorch,
# stand beside it.
ONNX = Tool(
    name="FP32 file",
    about="not quantized",
    module="",
    foreign=False,
    runtimes=("onnxruntime", "openvino-f32", "openvino-bf16"),
)
TORCH = Tool(
    name="PyTorch",
    about="the net itself in FP32, eager and by torch.compile as it comes",
    module="",
    foreign=False,
    suffix=".pt",
    runtimes=("torch", "torch.compile"),
)
UNQUANTIZED = (ONNX, TORCH)

PEERS = (
    Tool(
        name="ort-minmax",
        about="onnxruntime.quantization.quantize_static as it comes: MinMax, S8S8, per tensor",
        module="peer_ort",
        options={"method": "MinMax"},
    ),
    Tool(
        name="ort-cpu",
        about="the same as its documentation advises for x86 with VNNI: U8S8, per channel",
        module="peer_ort",
        options={"method": "MinMax", "activations": "QUInt8", "per_channel": True},
    ),
    Tool(
        name="ort-entropy",
        about="quantize_static with its Entropy calibrator, otherwise as it comes",
        module="peer_ort",
        options={"method": "Entropy"},
    ),
    Tool(
        name="ort-entropy-strided",
        about="the same with CalibStridedMinMax=16, which bounds how many images it keeps",
        module="peer_ort",
        options={"method": "Entropy", "stride": 16},
    ),
    Tool(
        name="ort-percentile",
        about="quantize_static with its Percentile calibrator, otherwise as it comes",
        module="peer_ort",
        options={"method": "Percentile"},
    ),
    Tool(
        name="modelopt-entropy",
        about="modelopt.onnx.quantization.quantize: its default method; FP32 where not INT8",
        module="peer_modelopt",
        options={"method": "entropy"},
    ),
    Tool(
        name="modelopt-max",
        about="the same with calibration_method=max",
        module="peer_modelopt",
        options={"method": "max"},
    ),
    Tool(
        name="nncf",
        about="nncf.quantize of an OpenVINO model as it comes, subset_size all images",
        module="peer_nncf",
        suffix=".xml",
        runtimes=_OPENVINO,
    ),
    Tool(
        name="nncf-mixed",
        about="the same with preset MIXED: asymmetric activations",
        module="peer_nncf",
        options={"preset": "MIXED"},
        suffix=".xml",
        runtimes=_OPENVINO,
    ),
    Tool(
        name="nncf-onnx",
        about="nncf.quantize of the ONNX model as it comes, for ONNX Runtime",
        module="peer_nncf",
        options={"onnx": True},
    ),
)


def ours(method: str) -> Tool:
    """convexport with one of its methods, ``auto``, or ``every``: all methods from one pass.

    Args:
        method: for the target cpu; for the target openvino it ends in ``-openvino``.
    """
    name = method.removesuffix("-openvino")
    target = "cpu" if name == method else "openvino"
    return Tool(
        name=f"convexport-{method}",
        about=f"convexport's target {target}, method {name}, without equalization",
        module="ours",
        options={"method": name, "target": target},
        foreign=False,
        runtimes=("openvino-convexport",) if target == "openvino" else ("onnxruntime",),
    )


def choose(methods: Sequence[str], names: Sequence[str] | None) -> tuple[Tool, ...]:
    """convexport with these methods, and the peers with these names; None takes all peers.

    Raises:
        SystemExit: there is no such peer.
    """
    known = {tool.name: tool for tool in PEERS}
    wanted = list(known) if names is None else names
    if unknown := sorted(set(wanted) - set(known)):
        raise SystemExit(f"no tool {', '.join(unknown)}; there are {', '.join(known)}")
    return (*map(ours, methods), *(known[name] for name in wanted))
