"""Where a bundle will run: one row a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.specifiers import SpecifierSet

from convexport.runtime.errors import UnsupportedError, UsageError, did_you_mean
from convexport.runtime.sessions import Session, open_session, refusal

# Not a row: the fastest of the rows that `exporter.auto` names.
AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A runtime on a device, and what it allows.

    Attributes:
        runtime: what loads the model.
        provider: the execution provider that must run it; OpenVINO's device.
        opset: of the ONNX that is written for it.
        precisions: what it runs, and for each where it does not why not.
        placement: the name of its Q/DQ rules in ``calibration.placement``; empty for those of
            ``graph``. They choose among the tensors that ``graph``'s rules choose.
        graph: the target whose graphs it runs; those are made and compared there, and then once
            more here. Empty for one that has its own.
        signed: whether its kernels multiply S8 by S8 too, and activations of both signs are S8
            about zero for it, as ``calibration.signed`` writes them.
        tensorrt: the versions of TensorRT that it may have, as a version specifier; empty for
            other runtimes.
        flavour: which ONNX file is written for those, a name of ``exporter.flavours``; empty
            where the version that is found on this machine decides.
        device: what it is, where it is not this machine.
    """

    name: str
    runtime: str
    provider: str
    opset: int
    precisions: tuple[str, ...]
    refusals: Mapping[str, str] = field(default_factory=dict)
    placement: str = ""
    graph: str = ""
    signed: bool = False
    tensorrt: str = ""
    flavour: str = ""
    device: str = ""

    @property
    def tensorrt_versions(self) -> SpecifierSet:
        """Which versions of TensorRT it may have."""
        return SpecifierSet(self.tensorrt)

    def refusal(self, precision: str) -> str:
        """Why it does not run that precision, ever or on this machine's CPU; empty if it does."""
        return self.refusals.get(precision) or refusal(self.runtime, precision)

    def open(self, model: Path, precision: str = "fp32") -> Session:
        """The model, loaded as this target will run it.

        Raises:
            MachineError: E0401 to E0403, it cannot run on this machine.
            InputError: E0303, its runtime cannot load the file.
        """
        return open_session(
            model, runtime=self.runtime, provider=self.provider, precision=precision
        )


# Makes the graphs of all TensorRT targets, from one set of scales: ONNX Runtime on the CPU stands
# in for engines that may be built on another machine. Not a row to build for.
TENSORRT_GRAPHS = Target(
    name="tensorrt-graphs",
    runtime="onnxruntime",
    provider="CPUExecutionProvider",
    opset=18,
    precisions=("fp32", "fp16", "int8"),
    placement="TENSORRT",
)


def _tensorrt(name: str, versions: str, *, flavour: str = "", device: str = "") -> Target:
    return Target(
        name=name,
        runtime="tensorrt",
        provider="CUDA",
        opset=TENSORRT_GRAPHS.opset,
        precisions=TENSORRT_GRAPHS.precisions,
        refusals={"bf16": "no BF16 graph is written yet"},
        graph=TENSORRT_GRAPHS.name,
        tensorrt=versions,
        flavour=flavour,
        device=device,
    )


TARGETS = {
    target.name: target
    for target in (
        Target(
            name="cpu",
            runtime="onnxruntime",
            provider="CPUExecutionProvider",
            opset=18,
            precisions=("fp32", "int8"),
            refusals={
                "bf16": "ONNX Runtime's CPU kernels for convolutions take no BF16",
                "fp16": "ONNX Runtime's CPU kernels compute FP16 by way of FP32: slower, no gain",
            },
            placement="CPU",
        ),
        Target(
            name="openvino",
            runtime="openvino",
            provider="CPU",
            opset=18,
            precisions=("fp32", "bf16", "int8"),
            refusals={"fp16": "x86 CPUs with units for 16-bit floats have them for BF16: --bf16"},
            placement="OPENVINO",
            graph="cpu",
            signed=True,
        ),
        Target(
            name="cuda",
            runtime="onnxruntime",
            provider="CUDAExecutionProvider",
            opset=18,
            precisions=("fp32", "fp16"),
            refusals={
                "bf16": "no BF16 graph is written yet",
                "int8": "ONNX Runtime's CUDA provider runs Q/DQ in floats: slower than FP32",
            },
        ),
        _tensorrt("tensorrt", ">=8.5,<12"),
        _tensorrt(
            "jetson-jp5",
            ">=8.5.2,<8.6",
            flavour="qdq-portable",
            device="a Jetson with JetPack 5.1: TensorRT 8.5.2",
        ),
        _tensorrt(
            "jetson-jp6",
            ">=10.3,<10.4",
            flavour="qdq-portable",
            device="a Jetson with JetPack 6.1 or 6.2: TensorRT 10.3",
        ),
        _tensorrt(
            "jetson-jp7",
            ">=10.13,<12",
            flavour="qdq-fp16",
            device="a Jetson with JetPack 7: TensorRT 10.13 to 11",
        ),
    )
}


def graph_of(target: Target) -> Target:
    """The target that its graphs are made and compared on: mostly itself."""
    if target.graph == TENSORRT_GRAPHS.name:
        return TENSORRT_GRAPHS
    return TARGETS[target.graph] if target.graph else target


def find_target(name: str) -> Target:
    """The row of that name.

    Raises:
        UsageError: E0280, there is none.
    """
    if name not in TARGETS:
        known = (*TARGETS, AUTO)
        boards = (f"{each.name} ({each.device})" for each in TARGETS.values() if each.device)
        hint = did_you_mean(name, known, otherwise=f"one of {', '.join(known)}")
        if name.lower().startswith("jetson"):
            hint = f"there are {', '.join(boards)}"
        raise UsageError("E0280", f"there is no target {name!r}", hint=hint)
    return TARGETS[name]


def require_precision(target: Target, precision: str) -> None:
    """Refuse a precision that the target gains nothing from, or this machine's CPU lacks.

    Raises:
        UnsupportedError: E0680, with the reason and what it does run.
    """
    why = target.refusal(precision)
    if why:
        others = (each for each in target.precisions if not target.refusal(each))
        raise UnsupportedError(
            "E0680",
            f"the target {target.name} does not run {precision}",
            why=why,
            hint=f"choose {' or '.join(f'--{each}' for each in others)}",
        )
