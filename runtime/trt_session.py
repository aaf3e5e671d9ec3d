"""TensorRT behind the Runner protocol."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import weakref
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from convexport.runtime.cuda import Cuda, cuda, short_of_memory
from convexport.runtime.errors import MachineError, UsageError
from convexport.runtime.specs import TensorSpec, require_fitting
from convexport.runtime.trt_engine import (
    PROVIDER,
    device_memory,
    load_engine,
    require_gpu,
    tensors,
)
from convexport.runtime.trt_plan import find_plan, read_facts, read_plan, require_fitting_plan

Shapes = Dict[str, Tuple[int, ...]]


class TrtSession:
    """A plan loaded into TensorRT on the first visible GPU.

    It has one execution context, whose work it does one call after another: threads may share it,
    but do not gain by it. For work side by side give each thread a session of its own.

    Args:
        model: the plan, or the ``.onnx`` file of a bundle that this device built a plan from.
        provider: there is only ``CUDA``; whether a DLA is used was settled by the build.
        cuda_graph: record a shape's launches once and replay them: less work for the CPU, which
            small nets wait for.

    Raises:
        MachineError: E0401, E0402, E0404 to E0409, something is not there, or the plan was built
            for another machine.
        InputError: E0316 or E0317, the plan is damaged or nobody knows where it is from.
        UnsupportedError: E0601 or E0605, TensorRT is too old, or a tensor is of an odd kind.
    """

    def __init__(self, model: Path, *, provider: str = PROVIDER, cuda_graph: bool = False) -> None:
        trt = require_gpu(provider)
        gpu, plan = cuda(), find_plan(model)
        self.facts = read_facts(plan, model)
        options = self.facts.options
        require_fitting_plan(self.facts, trt.__version__, gpu.gpu)
        gpu.enter()
        engine, self._keep = load_engine(trt, plan, read_plan(plan, self.facts), options)
        self.inputs = tensors(trt, engine, "INPUT")
        self.outputs = tensors(trt, engine, "OUTPUT")
        largest = {
            spec: tuple(options.batch[2] if isinstance(dim, str) else dim for dim in spec.shape)
            for spec in (*self.inputs, *self.outputs)
        }
        needed = device_memory(engine) + sum(_nbytes(shape, s) for s, shape in largest.items())
        free = gpu.memory()[0]
        context: Any = engine.create_execution_context() if needed <= free else None
        if context is None:
            raise short_of_memory("the engine does not fit", free, needed)
        self._gpu, self._engine, self._context = gpu, engine, context
        self._graph_wanted = cuda_graph
        self._stream, self._lock = gpu.stream(), threading.Lock()
        self._buffers: Dict[str, _Buffer] = {}
        self._graphs: List[int] = []
        weakref.finalize(self, _release, gpu, self._stream, self._buffers, self._graphs)
        for spec, shape in largest.items():
            self._buffers[spec.name] = _buffer(gpu, shape, spec)
        self._last: Optional[_Pass] = None
        self.runtime = f"tensorrt {trt.__version__}"
        self.provider = provider
        self.max_batch = options.batch[2]
        self.metadata: Dict[str, str] = {}

    def run(self, feed: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """One forward pass.

        Raises:
            UsageError: E0201 or E0203, a name, dtype, shape or batch is not what the plan takes.
            MachineError: E0405 or E0406, the GPU fails.
        """
        require_fitting(self.inputs, feed)
        shapes = {spec.name: np.shape(feed[spec.name]) for spec in self.inputs}
        self._require_batch(shapes)
        with self._lock:
            self._gpu.enter()
            for name, shape in shapes.items():
                _elements(self._buffers[name], shape)[:] = np.asarray(feed[name]).ravel()
            out = self._forward(shapes)
            self._gpu.synchronize(self._stream)
            return {
                name: _elements(self._buffers[name], shape).reshape(shape).copy()
                for name, shape in out.items()
            }

    def run_on_device(self, arrays: Mapping[str, Any]) -> None:
        """One forward pass between arrays that are on the GPU already; waits until it is done.

        Args:
            arrays: every input and every output, as anything with ``__cuda_array_interface__``:
                contiguous tensors of PyTorch, CuPy and others. Outputs are written into. What
                fills the inputs must be done, or be in the stream that the interface names.

        Raises:
            UsageError: E0201 or E0203, an array is not what the plan takes or gives.
            MachineError: E0405, the GPU fails.
        """
        views = {name: array.__cuda_array_interface__ for name, array in arrays.items()}
        shadows = {name: _Shadow(view) for name, view in views.items()}
        require_fitting((*self.inputs, *self.outputs), shadows)  # type: ignore[arg-type]
        shapes = {spec.name: shadows[spec.name].shape for spec in self.inputs}
        self._require_batch(shapes)
        with self._lock:
            self._gpu.enter()
            self._forget()
            for name, shape in self._set_shapes(shapes).items():
                if shadows[name].shape != shape:
                    raise UsageError("E0201", f"{name} will have the shape {shape}")
            for name, view in views.items():
                address = int(view["data"][0])
                self._require(self._context.set_tensor_address(name, address), "take an address")
                if view.get("stream") is not None:
                    self._gpu.synchronize(view["stream"])
            self._enqueue()
            self._gpu.synchronize(self._stream)

    def compute_ms(self, batch: int, runs: int) -> List[float]:
        """Milliseconds of the GPU for each of some passes, without copies: events tell them.

        Raises:
            UsageError: E0203, the plan does not take that batch.
            MachineError: E0405, the GPU fails.
        """
        shapes = {
            spec.name: tuple(batch if isinstance(dim, str) else dim for dim in spec.shape)
            for spec in self.inputs
        }
        self._require_batch(shapes)
        with self._lock:
            self._gpu.enter()
            self._forget()
            self._set_shapes(shapes)
            for name, buffer in self._buffers.items():
                self._context.set_tensor_address(name, buffer.device)
            return [self._gpu.timed(self._stream, self._enqueue) for _ in range(runs)]

    def _forward(self, shapes: Shapes) -> Shapes:
        """Copy, run and copy back; recorded the second time that a shape comes, if so asked."""
        last = self._last
        if last is None or last.shapes != shapes:
            self._forget()
            last = _Pass(shapes, self._set_shapes(shapes), 0)
            for name, buffer in self._buffers.items():
                self._context.set_tensor_address(name, buffer.device)
            self._transfer(last)
        elif not self._graph_wanted:
            self._transfer(last)
        else:
            # TensorRT must have run a shape once before its launches may be recorded, and its
            # context must not be touched between the recording and the last replay.
            if not last.graph:
                last = last._replace(graph=self._recorded(last))
                self._graphs.append(last.graph)
            self._gpu.launch(last.graph, self._stream)
        self._last = last
        return last.out

    def _recorded(self, now: _Pass) -> int:
        self._gpu.begin_capture(self._stream)
        try:
            self._transfer(now)
        except BaseException:  # or else the stream would record for ever
            with contextlib.suppress(MachineError):
                self._gpu.destroy_graph(self._gpu.end_capture(self._stream))
            self._last, self._graph_wanted = None, False
            raise
        return self._gpu.end_capture(self._stream)

    def _transfer(self, now: _Pass) -> None:
        for name, shape in now.shapes.items():
            buffer = self._buffers[name]
            size = _elements(buffer, shape).nbytes
            self._gpu.upload(buffer.device, buffer.host, size, self._stream)
        self._enqueue()
        for name, shape in now.out.items():
            buffer = self._buffers[name]
            size = _elements(buffer, shape).nbytes
            self._gpu.download(buffer.host, buffer.device, size, self._stream)

    def _enqueue(self) -> None:
        self._require(self._context.execute_async_v3(self._stream), "run the engine")

    def _require(self, done: Any, what: str) -> None:
        if not done:
            raise MachineError(
                "E0405",
                f"TensorRT could not {what}",
                why=" | ".join(self._keep[0].errors),
                hint="start a new process: this one's GPU context may be lost",
            )

    def _set_shapes(self, shapes: Shapes) -> Shapes:
        """Tell the context what comes; what goes out has these shapes."""
        for name, shape in shapes.items():
            self._require(self._context.set_input_shape(name, shape), f"take {name} as {shape}")
        return {s.name: tuple(self._context.get_tensor_shape(s.name)) for s in self.outputs}

    def _forget(self) -> None:
        self._last = None
        while self._graphs:
            self._gpu.destroy_graph(self._graphs.pop())

    def _require_batch(self, shapes: Shapes) -> None:
        least, _, most = self.facts.options.batch
        for spec in self.inputs:
            batch = shapes[spec.name][0]
            if isinstance(spec.shape[0], str) and not least <= batch <= most:
                raise UsageError(
                    "E0203",
                    f"the engine takes batches of {least} to {most}, not {batch}",
                    hint="feed fewer at a time, or build with another --batch",
                )


# TensorRT asks it of every address that it is given.
_ALIGNMENT = 256


class _Pass(NamedTuple):
    """The shapes that the context is set to, and the recording of them if there is one."""

    shapes: Shapes
    out: Shapes
    graph: int


class _Buffer(NamedTuple):
    """Room for the largest batch of one tensor: on the device, and pinned on the host."""

    device: int
    host: int
    view: np.ndarray


class _Shadow:
    """What a CUDA array interface says, in NumPy's words."""

    def __init__(self, view: Mapping[str, Any]) -> None:
        if view.get("strides") is not None:
            raise UsageError("E0201", "an array on the GPU is not contiguous")
        if int(view["data"][0]) % _ALIGNMENT:
            what = f"an array on the GPU does not begin at a multiple of {_ALIGNMENT} bytes"
            raise UsageError("E0201", what, hint="pass a copy of it")
        self.shape: Tuple[int, ...] = tuple(view["shape"])
        self.dtype = np.dtype(view["typestr"])

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        return np.broadcast_to(np.zeros((), self.dtype), self.shape)


def _nbytes(shape: Tuple[int, ...], spec: TensorSpec) -> int:
    return int(np.prod(shape)) * np.dtype(spec.dtype).itemsize


def _buffer(gpu: Cuda, shape: Tuple[int, ...], spec: TensorSpec) -> _Buffer:
    size = _nbytes(shape, spec)
    device = gpu.allocate(size)
    try:
        host = gpu.allocate_host(size)
    except MachineError:
        gpu.free(device)
        raise
    memory = (ctypes.c_char * size).from_address(host)
    return _Buffer(device, host, np.frombuffer(memoryview(memory), spec.dtype))


def _elements(buffer: _Buffer, shape: Tuple[int, ...]) -> np.ndarray:
    return buffer.view[: int(np.prod(shape))]


def _release(gpu: Cuda, stream: int, buffers: Dict[str, _Buffer], graphs: List[int]) -> None:
    with contextlib.suppress(MachineError):  # a lost context has lost its memory too
        gpu.enter()
        for graph in graphs:
            gpu.destroy_graph(graph)
        gpu.destroy_stream(stream)
        for buffer in buffers.values():
            gpu.free(buffer.device)
            gpu.free_host(buffer.host)
