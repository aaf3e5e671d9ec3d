"""One door to every runtime: what a target or a manifest names is opened here."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from convexport.runtime import openvino_session, ort_session, trt_engine, trt_session
from convexport.runtime.cpu import cpu_flags
from convexport.runtime.errors import UnsupportedError, UsageError
from convexport.runtime.specs import Runner

RUNTIMES = ("onnxruntime", "openvino", "tensorrt")


class Session(Runner, Protocol):
    """A loaded model, and what really runs it.

    Attributes:
        runtime: with its version.
        provider: of ONNX Runtime; the device of other runtimes.
    """

    runtime: str
    provider: str


def open_session(
    model: Path,
    *,
    runtime: str,
    provider: str,
    precision: str = "fp32",
    threads: int = 0,
    spin: bool = True,
    cuda_graph: bool = False,
) -> Session:
    """Load a model into the runtime and onto the provider that are named, or fail.

    Args:
        precision: of the artefact; it settles what a runtime may compute FP32 operators in.
        threads: intra-op threads; 0 lets the runtime choose.
        spin: whether ONNX Runtime's idle threads spin between runs; OpenVINO's have no choice.
        cuda_graph: TensorRT's launches are recorded and replayed, as ``TrtSession`` says.

    Raises:
        MachineError: E0401 to E0409, the runtime, its provider or the CPU's units are not there, or
            a TensorRT engine is of another machine or not built yet.
        InputError: E0303, E0316 or E0317, the runtime cannot load the file.
        UsageError: E0207, another runtime is to record.
        UnsupportedError: E0600, there is no such runtime; E0601 or E0605, TensorRT's is not enough.
    """
    require_runtime(runtime, provider)
    if cuda_graph and runtime != "tensorrt":
        raise UsageError("E0207", f"{runtime} records no launches", hint="leave cuda_graph out")
    if runtime == "tensorrt":
        return trt_session.TrtSession(model, provider=provider, cuda_graph=cuda_graph)
    if runtime == "openvino":
        return openvino_session.OpenvinoSession(
            model, provider=provider, precision=precision, threads=threads
        )
    return ort_session.OrtSession(model, provider=provider, threads=threads, spin=spin)


def require_runtime(runtime: str, provider: str) -> None:
    """Import a runtime, if it is there and has that provider.

    Raises:
        MachineError: E0401, E0402 or E0404, the runtime or the provider is not there.
        UnsupportedError: E0600, there is no such runtime.
    """
    if runtime == "onnxruntime":
        ort_session.require_provider(provider)
    elif runtime == "openvino":
        openvino_session.require_device(provider)
    elif runtime == "tensorrt":
        trt_engine.require_gpu(provider)
    else:
        raise UnsupportedError(
            "E0600",
            f"the bundle is for the runtime {runtime!r}",
            hint=f"this version loads {', '.join(RUNTIMES)}",
        )


def refusal(runtime: str, precision: str) -> str:
    """Why this machine's CPU must not run that precision; empty where it may."""
    return openvino_session.refusal(precision, cpu_flags()) if runtime == "openvino" else ""
