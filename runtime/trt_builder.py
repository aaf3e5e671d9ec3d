"""From an ONNX file to a plan, in this process, on this GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Tuple

from convexport.runtime.board import free_memory
from convexport.runtime.cuda import cuda, short_of_memory
from convexport.runtime.errors import ConvexportError, UnsupportedError, UsageError
from convexport.runtime.trt_config import TrtOptions, configure, create_network, hold_layers
from convexport.runtime.trt_engine import import_tensorrt, start
from convexport.runtime.trt_logger import fresh_logger

_SHORT = ("out of memory", "outofmemory", "insufficient workspace", "insufficient memory")


@dataclass(frozen=True)
class BuiltPlan:
    """What a build gave.

    Attributes:
        plan: its bytes.
        timing_cache: for later builds on the same GPU; empty where the version gives none.
        cache_taken: whether the timing cache that was given could be used.
    """

    plan: bytes
    timing_cache: bytes
    cache_taken: bool


def build_plan(onnx: Path, options: TrtOptions, timing_cache: bytes = b"") -> BuiltPlan:
    """Build a plan. It takes seconds to many minutes, and its bytes differ from time to time.

    Args:
        timing_cache: from an earlier build; one of another GPU or version is not used.

    Raises:
        MachineError: E0401, E0404, E0406 or E0408, TensorRT, a GPU or memory is not there.
        UnsupportedError: E0601 to E0604, E0606, this TensorRT cannot do it.
        UsageError: E0205, the batch does not fit the graph.
    """
    trt = import_tensorrt("building an engine")
    _require_memory(onnx, options)
    logger = fresh_logger(trt)
    builder = start(trt.Builder, logger)
    trt.init_libnvinfer_plugins(logger, "")  # some operators of old parsers are plugins
    network = create_network(trt, builder, options)
    parser = trt.OnnxParser(network, logger)
    # By path: weights in files of their own lie beside it.
    if not parser.parse_from_file(str(onnx)):
        raise _unreadable(trt, parser, onnx)
    config = configure(trt, builder, options)
    hold_layers(trt, network, config, options.fp32_layers)
    _add_profile(builder, network, config, options.batch)
    cache = config.create_timing_cache(timing_cache)
    taken = bool(cache) and config.set_timing_cache(cache, False)
    if not taken:  # without one of its own the builder would forget what it measured
        config.set_timing_cache(config.create_timing_cache(b""), False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _failed(trt, logger.errors)
    measured = config.get_timing_cache()
    return BuiltPlan(
        plan=bytes(plan),
        timing_cache=bytes(measured.serialize()) if measured else b"",
        cache_taken=taken and bool(timing_cache),
    )


def memory_needed(onnx: Path, options: TrtOptions) -> Tuple[int, int]:
    """Bytes of the GPU's and of the host's memory without which no build is begun.

    An estimate from below, not measured: on the GPU the weights as they come and as a kernel wants
    them, and the workspace; on the host the file, what the parser keeps of it, and the plan.
    """
    size = onnx.stat().st_size
    return 2 * size + ((options.workspace_mib or 0) << 20), 3 * size


def _require_memory(onnx: Path, options: TrtOptions) -> None:
    on_gpu, on_host = memory_needed(onnx, options)
    if cuda().gpu.integrated:  # both are the same memory
        on_gpu, on_host = on_gpu + on_host, 0
    free, host = cuda().memory()[0], free_memory()
    if on_gpu > free:
        raise short_of_memory("the weights and the workspace do not fit", free, on_gpu)
    if host and on_host > host:
        what = "the file, what is read of it and the plan do not fit"
        raise short_of_memory(what, host, on_host, of="the host")


def _add_profile(builder: Any, network: Any, config: Any, batch: Tuple[int, int, int]) -> None:
    free, profile = False, builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if -1 in shape[1:]:
            raise UnsupportedError(
                "E0604",
                f"the input {tensor.name} is free in more than its batch",
                where=str(shape),
                hint="fix height and width in the ONNX file",
            )
        if shape[:1] == (-1,):
            free = True
            profile.set_shape(tensor.name, *((size, *shape[1:]) for size in batch))
        elif set(batch) != {shape[0]}:
            raise UsageError(
                "E0205",
                f"the graph's batch is always {shape[0]}",
                where=f"asked for {':'.join(map(str, batch))}",
                hint="ask for that batch, or export with a free one",
            )
    if free:
        config.add_optimization_profile(profile)


def _unreadable(trt: Any, parser: Any, onnx: Path) -> UnsupportedError:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    lines = [f"{_node(error)}: {error.desc()}" for error in errors]
    return UnsupportedError(
        "E0603",
        f"TensorRT {trt.__version__} cannot read {onnx.name}: {len(lines)} errors",
        where="\n".join(lines),
        hint="convexport inspect says what a target supports",
    )


def _node(error: Any) -> str:
    if not hasattr(error, "node_name"):  # before 10 there is only its place in the file
        return f"node {error.node()}"
    return f"{error.node_name()} ({error.node_operator()})"


def _failed(trt: Any, errors: Any) -> ConvexportError:
    said = "\n".join(errors)
    if any(word in said.lower() for word in _SHORT):
        return short_of_memory(f"TensorRT's build gave up\n{said}", cuda().memory()[0])
    return UnsupportedError(
        "E0604",
        f"TensorRT {trt.__version__} cannot build this network",
        where=said,
        hint="another precision may do; trtexec --verbose says more",
    )
