"""OpenVINO on the CPU behind the Runner protocol."""

from __future__ import annotations

import sys
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, Tuple

import numpy as np

from convexport.runtime.cpu import cpu_flags, multiplies_bf16, overflows
from convexport.runtime.errors import InputError, MachineError
from convexport.runtime.optional import require
from convexport.runtime.specs import TensorSpec, require_fitting

DEVICE = "CPU"

# As many graphs as are kept in memory, each compiled for its batch.
BATCHES = 8

_TELEMETRY = "openvino_telemetry"


class OpenvinoSession:
    """A model loaded into OpenVINO on the CPU.

    One session may be shared by threads; their calls take turns, since each has all cores.

    A graph of a free batch is compiled for each batch that comes, for 1 while it is loaded and for
    another in its first run, which takes as long as loading: kernels that know their shapes are
    faster. Beyond ``BATCHES`` of them the others share one that takes any.

    Args:
        model: the ``.onnx`` file, loaded by path: external data stays confined to its directory.
        provider: the device that must run it; there is only CPU.
        precision: ``bf16`` computes FP32 operators in BF16; with every other one they stay FP32.
        threads: 0 lets OpenVINO choose; it never takes more than there are cores.
        profile: every node's time is taken, which ``executed`` tells.

    Raises:
        MachineError: E0401 to E0403, OpenVINO or the device is not there, or the CPU cannot
            compute in that precision.
        InputError: E0303, OpenVINO cannot load the file.
    """

    def __init__(
        self,
        model: Path,
        *,
        provider: str = DEVICE,
        precision: str = "fp32",
        threads: int = 0,
        profile: bool = False,
    ) -> None:
        ov = require_device(provider)
        _require_units(precision)
        try:
            # Asked for any format, OpenVINO would try all its readers on a stranger's file.
            reader = ov.frontend.FrontEndManager().load_by_framework("onnx")
            graph = reader.convert(reader.load(str(model)))
            if not graph.outputs:  # an empty file is an empty net to it
                raise ValueError("the model has no outputs")
            properties = {**_properties(precision, threads), "PERF_COUNT": profile}
            core = ov.Core()
            self.inputs = tuple(_spec(port) for port in graph.inputs)
            self.outputs = tuple(_spec(port) for port in graph.outputs)
            self._compiled = _Compiled(
                graph, self.inputs, lambda: core.compile_model(graph, provider, properties)
            )
        except Exception as error:  # OpenVINO's own classes, or whatever became of them
            raise InputError(
                "E0303",
                "OpenVINO cannot load the model",
                where=str(model),
                why=str(error).strip()[:500],
            ) from error
        self.runtime = f"openvino {ov.__version__.split('-')[0]}"
        self.provider = provider
        self.metadata = _metadata(graph)
        self._turn = Lock()

    def run(self, feed: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """One forward pass.

        Raises:
            UsageError: E0201, a name, dtype or shape is not what the model takes.
        """
        require_fitting(self.inputs, feed)
        with self._turn:
            # In a thread of OpenVINO's own, not in the caller's: for each of those it keeps a
            # stream under the thread's id, and a later thread of that id has crashed in it.
            # Inputs are read where they lie.
            request = self._compiled.request_for(feed)
            request.start_async(dict(feed), share_inputs=True)
            request.wait()
            return {
                spec.name: np.array(request.get_output_tensor(index).data)
                for index, spec in enumerate(self.outputs)
            }

    def executed(self) -> List[Dict[str, Any]]:
        """What the latest run executed, with ``profile``: each node with its ``ms``, and the
        ``bytes`` that go in and out of it."""
        with self._turn:
            times = {
                each.node_name: each.real_time.total_seconds() * 1e3
                for each in self._compiled.latest.get_profiling_info()
                if str(each.status).endswith(".EXECUTED")
            }
            model = self._compiled.latest.get_compiled_model().get_runtime_model()
            nodes = model.get_ordered_ops()
        return [
            _executed(node, times[node.get_friendly_name()])
            for node in nodes
            if node.get_friendly_name() in times
        ]


class _Compiled:
    """A graph, compiled for the batches that its inputs come in.

    Attributes:
        latest: the request that was given last.
    """

    def __init__(self, graph: Any, inputs: Tuple[TensorSpec, ...], compiled: Callable[[], Any]):
        self._graph, self._compiled = graph, compiled
        fixed = {spec.name: spec.shape[1:] for spec in inputs if _has_free_batch(spec)}
        # Where the file leaves more free than the batch, the graph stays as it is.
        self._fixed = fixed if len(fixed) == len(inputs) else {}
        self._requests: Dict[Tuple[int, ...], Any] = {}
        self.latest = self._request((1,) * len(self._fixed))

    def request_for(self, feed: Mapping[str, np.ndarray]) -> Any:
        """Which kept graph a batch runs in never changes, and so neither do its answers."""
        batches = tuple(len(feed[name]) for name in self._fixed)
        if batches not in self._requests and len(self._requests) >= BATCHES:
            batches = (-1,) * len(self._fixed)  # any
        self.latest = self._request(batches)
        return self.latest

    def _request(self, batches: Tuple[int, ...]) -> Any:
        if batches not in self._requests:
            if self._fixed:
                shapes = zip(self._fixed.items(), batches)
                self._graph.reshape({name: [batch, *rest] for (name, rest), batch in shapes})
            self._requests[batches] = self._compiled().create_infer_request()
        return self._requests[batches]


def _has_free_batch(spec: TensorSpec) -> bool:
    free = [isinstance(size, str) for size in spec.shape]
    return free[:1] == [True] and not any(free[1:])


def require_device(device: str) -> Any:
    """OpenVINO's module, if it has that device and we use it.

    Raises:
        MachineError: E0401 or E0402, OpenVINO or the device is not there.
    """
    # While it is imported OpenVINO reports to its maker, and keeps an id in the home, if it
    # finds the package that does so. It goes without; others in this process may import it.
    known = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # Python's way to refuse a module
    try:
        ov = require("openvino", extra="openvino", purpose="running a model")
    finally:
        sys.modules.pop(_TELEMETRY, None)
        if known is not None:
            sys.modules[_TELEMETRY] = known
    if device != DEVICE:
        raise MachineError(
            "E0402",
            f"OpenVINO is not run on {device}",
            where=f"available: {DEVICE}",
            why="running on another device would give other numbers under this one's name",
            hint="convexport doctor tells what this machine can run",
        )
    return ov


def _executed(node: Any, ms: float) -> Dict[str, Any]:
    """A node of the graph as it is executed; what it was made of is in its properties."""
    info = {key: str(getattr(value, "value", value)) for key, value in node.get_rt_info().items()}
    ports = [
        port for port in (*node.inputs(), *node.outputs()) if port.get_partial_shape().is_static
    ]
    return {
        "name": node.get_friendly_name(),
        "op": info.get("layerType", ""),
        "ms": ms,
        "precision": info.get("runtimePrecision", ""),
        "originals": [name for name in info.get("originalLayersNames", "").split(",") if name],
        "bytes": sum(port.get_element_type().size * prod(port.get_shape()) for port in ports),
    }


def refusal(precision: str, flags: FrozenSet[str]) -> str:
    """Why OpenVINO must not run that precision on a CPU with these flags; empty where it may."""
    if precision == "bf16" and not multiplies_bf16(flags):
        return "this CPU has no BF16 units (amx_bf16, avx512_bf16): it would be slower than FP32"
    if precision == "int8" and overflows(flags):
        # ResNet-20 held to kernels without VNNI fell from 45 to 26 dB, and nothing said so.
        return "this CPU has no VNNI: sums in OpenVINO's INT8 kernels would overflow"
    return ""


def _require_units(precision: str) -> None:
    why = refusal(precision, cpu_flags())
    if why:
        raise MachineError(
            "E0403",
            f"this machine's CPU does not run {precision} with OpenVINO",
            why=why,
            hint="build it with --fp32, or run it on another machine",
        )


def _properties(precision: str, threads: int) -> Dict[str, Any]:
    return {
        # Left to itself OpenVINO computes FP32 graphs in BF16 where the CPU has units for it.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        # Nothing else may be made coarser for speed, such as the activations of a MatMul.
        "EXECUTION_MODE_HINT": "ACCURACY",
        # All threads on one call at a time, not the cores split among several.
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        # Several processes would pin their threads to the same cores.
        "ENABLE_CPU_PINNING": False,
        # Denormals count, as in ONNX Runtime.
        "CPU_DENORMALS_OPTIMIZATION": False,
        # Nothing compiled is kept on disk: what runs is the file whose hash was verified.
        "CACHE_DIR": "",
    }


def _spec(port: Any) -> TensorSpec:
    # OpenVINO forgets what free dimensions were called. The first is the batch.
    names = ("batch", *(f"dim{axis}" for axis in range(1, len(port.partial_shape))))
    shape = tuple(
        dim.get_length() if dim.is_static else name for dim, name in zip(port.partial_shape, names)
    )
    return TensorSpec(port.any_name, shape, str(np.dtype(port.element_type.to_dtype())))


def _metadata(graph: Any) -> Dict[str, str]:
    """The file's own properties, which OpenVINO files under ``framework``."""
    found = dict(graph.get_rt_info()).get("framework", {})
    return {str(key): str(value.value) for key, value in found.items()}
