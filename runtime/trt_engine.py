"""A plan becomes an engine, and the engine says what it takes and gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Tuple

from convexport.runtime.cuda import cuda
from convexport.runtime.errors import InputError, MachineError, UnsupportedError
from convexport.runtime.optional import require
from convexport.runtime.specs import TensorSpec
from convexport.runtime.trt_config import TrtOptions
from convexport.runtime.trt_logger import fresh_logger
from convexport.runtime.trt_versions import generation

PROVIDER = "CUDA"

# Not TensorRT's own helper: that of 8.5 uses names that NumPy no longer has.
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}


def import_tensorrt(purpose: str) -> Any:
    """The module ``tensorrt``.

    Raises:
        MachineError: E0401, it is not installed, or does not load.
        UnsupportedError: E0601, it is too old.
    """
    trt = require("tensorrt", extra="tensorrt", purpose=purpose)
    generation(trt.__version__)
    return trt


def require_gpu(provider: str) -> Any:
    """TensorRT's module, if it and a GPU are there.

    Raises:
        MachineError: E0401, E0402 or E0404, something is not there.
        UnsupportedError: E0601, TensorRT is too old.
    """
    if provider != PROVIDER:
        raise MachineError("E0402", f"TensorRT is not run on {provider}", where=PROVIDER)
    trt = import_tensorrt("running an engine")
    cuda()
    return trt


def start(kind: Any, logger: Any) -> Any:
    """A builder or a runtime.

    Raises:
        MachineError: E0408, TensorRT cannot start on this machine.
    """
    try:
        made, cause = kind(logger), None
    except TypeError as error:  # what Python makes of the null that TensorRT returns
        made, cause = None, error
    if made is None:
        raise MachineError(
            "E0408",
            "TensorRT cannot start here",
            why=" | ".join(logger.errors or logger.warnings) or "no usable CUDA device or driver",
            hint="the driver must be new enough for this TensorRT: convexport doctor",
        ) from cause
    return made


def load_engine(
    trt: Any, plan: Path, data: bytes, options: TrtOptions
) -> Tuple[Any, Tuple[Any, Any]]:
    """A plan's engine; then the logger and the runtime, which must live as long as it does.

    Args:
        plan: its name, for errors.
        data: its bytes, verified: a plan is code.
        options: it was built with.

    Raises:
        MachineError: E0408, TensorRT cannot start.
        InputError: E0316, TensorRT does not take it for a plan of its own.
    """
    logger = fresh_logger(trt)
    trt.init_libnvinfer_plugins(logger, "")
    runtime = start(trt.Runtime, logger)
    if options.version_compatible:  # it holds code for the CPU too
        runtime.engine_host_code_allowed = True
    if options.dla is not None:
        runtime.DLA_core = options.dla
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise InputError(
            "E0316",
            f"TensorRT {trt.__version__} does not load {plan.name}",
            where=str(plan),
            why=" | ".join(logger.errors),
            hint="build it again on this machine",
        )
    return engine, (logger, runtime)


def tensors(trt: Any, engine: Any, mode: str) -> Tuple[TensorSpec, ...]:
    """The engine's tensors whose mode is ``INPUT`` or ``OUTPUT``.

    Raises:
        UnsupportedError: E0605, one is of a kind that no session handles.
    """
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    wanted = getattr(trt.TensorIOMode, mode)
    return tuple(_spec(trt, engine, n) for n in names if engine.get_tensor_mode(n) == wanted)


def device_memory(engine: Any) -> int:
    """Bytes that an execution context takes, next to the weights."""
    # The older name is deprecated, then gone.
    for name in ("device_memory_size_v2", "device_memory_size"):
        if hasattr(engine, name):
            return int(getattr(engine, name))
    return 0


def _spec(trt: Any, engine: Any, name: str) -> TensorSpec:
    kind, shape = engine.get_tensor_dtype(name).name, tuple(engine.get_tensor_shape(name))
    on_device = engine.get_tensor_location(name) == trt.TensorLocation.DEVICE
    if kind not in _DTYPES or not on_device or -1 in shape[1:]:
        raise UnsupportedError(
            "E0605",
            f"the engine's tensor {name} is of a kind that is not handled",
            where=f"{kind} {shape}{'' if on_device else ', read by the host'}",
        )
    dims = tuple("batch" if dim < 0 else int(dim) for dim in shape)
    return TensorSpec(name, dims, _DTYPES[kind])
