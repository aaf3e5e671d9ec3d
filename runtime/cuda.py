"""The few calls of CUDA's driver that a TensorRT session makes, by ctypes on ``libcuda.so.1``.

The driver's library is the one that every machine with an NVIDIA GPU has, a Jetson and a container
too, and these functions are the same from CUDA 11.4 on. NVIDIA's Python packages go by other names
and versions for CUDA 11.4 with Python 3.8 than for CUDA 13, and a board would need them.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import (
    POINTER,
    c_char_p,
    c_float,
    c_int,
    c_size_t,
    c_uint,
    c_uint64,
    c_ulonglong,
    c_void_p,
)
from dataclasses import dataclass
from typing import Any, Callable, List, Tuple

from convexport.runtime.board import free_memory
from convexport.runtime.errors import MachineError

_LIBRARY = "libcuda.so.1"
_SIGNATURES = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemGetInfo_v2": (POINTER(c_size_t), POINTER(c_size_t)),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostAlloc": (POINTER(c_void_p), c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_ulonglong),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
    "cuEventCreate": (POINTER(c_void_p), c_uint),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventSynchronize": (c_void_p,),
    "cuEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
    "cuEventDestroy_v2": (c_void_p,),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
}
_INTEGRATED, _MAJOR, _MINOR = 18, 75, 76  # CUdevice_attribute
_OUT_OF_MEMORY = 2
# After one of these every call of the process fails: a kernel went wrong, or the GPU is gone.
_LOST = (214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719)
_NON_BLOCKING = 1
_THREAD_LOCAL = 1


@dataclass(frozen=True)
class Gpu:
    """The GPU that runs things here, and the driver.

    Attributes:
        compute_capability: such as ``8.7``.
        integrated: whether it shares the host's memory, as on a Jetson.
        driver: the newest CUDA that the driver knows, such as ``12.6``.
    """

    name: str
    compute_capability: str
    integrated: bool
    driver: str


# Where they fail, the context still tells what is free.
_ALLOCATES = ("cuMemAlloc_v2", "cuMemHostAlloc", "cuStreamCreate", "cuGraphInstantiateWithFlags")


class Cuda:
    """The first visible GPU, in its primary context, which TensorRT uses too.

    Raises:
        MachineError: E0404, there is no driver or no GPU.
    """

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
            for name, arguments in _SIGNATURES.items():
                getattr(self._library, name).argtypes = arguments
        except (OSError, AttributeError) as error:
            raise _none("there is no CUDA driver here", str(error)) from error
        code = self._library.cuInit(0)
        if code:
            raise _none("CUDA finds no usable GPU here", self._meaning(code))
        self._device = self._out(c_int, "cuDeviceGet", 0)
        self._context = self._out(c_void_p, "cuDevicePrimaryCtxRetain", self._device)
        self.gpu = self._describe()

    def enter(self) -> None:
        """Make the context the calling thread's own: each thread has to, once."""
        self._call("cuCtxSetCurrent", self._context)

    def memory(self) -> Tuple[int, int]:
        """Bytes that are free, and that there are."""
        self.enter()
        free, total = c_size_t(), c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        # The driver of a Jetson does not count what the kernel's caches would give back.
        available = free_memory() if self.gpu.integrated else 0
        return max(free.value, available), total.value

    def allocate(self, size: int) -> int:
        """The address of device memory."""
        return int(self._out(c_uint64, "cuMemAlloc_v2", size) or 0)

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._call("cuMemFree_v2", address)

    def allocate_host(self, size: int) -> int:
        """The address of pinned host memory."""
        return int(self._out(c_void_p, "cuMemHostAlloc", size, 0) or 0)

    def free_host(self, address: int) -> None:
        """Give pinned memory back."""
        self._call("cuMemFreeHost", address)

    def upload(self, device: int, host: int, size: int, stream: int) -> None:
        """Copy to the device, in the stream's order."""
        self._call("cuMemcpyHtoDAsync_v2", device, host, size, stream)

    def download(self, host: int, device: int, size: int, stream: int) -> None:
        """Copy from the device, in the stream's order."""
        self._call("cuMemcpyDtoHAsync_v2", host, device, size, stream)

    def stream(self) -> int:
        """A new stream that does not wait for the default one."""
        return int(self._out(c_void_p, "cuStreamCreate", _NON_BLOCKING) or 0)

    def synchronize(self, stream: int) -> None:
        """Wait until everything in the stream is done."""
        self._call("cuStreamSynchronize", stream)

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""
        self._call("cuStreamDestroy_v2", stream)

    def timed(self, stream: int, work: Callable[[], object]) -> float:
        """Milliseconds that the GPU takes for what ``work`` puts into the stream."""
        events: List[int] = []
        try:
            for before in (True, False):
                events.append(int(self._out(c_void_p, "cuEventCreate", 0) or 0))
                if not before:
                    work()
                self._call("cuEventRecord", events[-1], stream)
            self._call("cuEventSynchronize", events[1])
            return float(self._out(c_float, "cuEventElapsedTime", *events))
        finally:
            for event in events:
                self._call("cuEventDestroy_v2", event)

    def begin_capture(self, stream: int) -> None:
        """From here on what goes into the stream is recorded, not run."""
        self._call("cuStreamBeginCapture_v2", stream, _THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """What was recorded, ready to be launched."""
        graph = self._out(c_void_p, "cuStreamEndCapture", stream, first=False)
        try:
            return int(self._out(c_void_p, "cuGraphInstantiateWithFlags", graph, 0) or 0)
        finally:
            self._call("cuGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        """Run what was recorded."""
        self._call("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """Give a recording back."""
        self._call("cuGraphExecDestroy", graph)

    def _describe(self) -> Gpu:
        name = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", name, len(name), self._device)
        integrated, major, minor = (
            self._out(c_int, "cuDeviceGetAttribute", attribute, self._device)
            for attribute in (_INTEGRATED, _MAJOR, _MINOR)
        )
        version = self._out(c_int, "cuDriverGetVersion")
        return Gpu(
            name=name.value.decode(errors="replace"),
            compute_capability=f"{major}.{minor}",
            integrated=bool(integrated),
            driver=f"{version // 1000}.{version % 1000 // 10}",
        )

    def _out(self, kind: Any, name: str, *arguments: Any, first: bool = True) -> Any:
        """Call a function that gives its result through its first, or else last, argument."""
        result = kind()
        place = ctypes.byref(result)
        self._call(name, *((place, *arguments) if first else (*arguments, place)))
        return result.value

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code == _OUT_OF_MEMORY:
            free = self.memory()[0] if name in _ALLOCATES else 0
            raise short_of_memory(f"{name} found no more", free)
        if code:
            raise MachineError(
                "E0405",
                f"CUDA's {name} failed: {self._meaning(code)}",
                why="the GPU's context is lost to this process" if code in _LOST else "",
                hint="start a new process; nvidia-smi or dmesg may say more"
                if code in _LOST
                else "",
            )

    def _meaning(self, code: int) -> str:
        texts = []
        for function in ("cuGetErrorName", "cuGetErrorString"):
            text = c_char_p()
            getattr(self._library, function)(code, ctypes.byref(text))
            texts.append((text.value or b"?").decode(errors="replace"))
        return f"{texts[0]} ({code}): {texts[1]}"


@functools.lru_cache(maxsize=None)
def cuda() -> Cuda:
    """The one of this process.

    Raises:
        MachineError: E0404, there is no driver or no GPU.
    """
    return Cuda()


def short_of_memory(what: str, free: int, needed: int = 0, *, of: str = "the GPU") -> MachineError:
    """The error of a GPU, or a host, without room, with the figures in MiB."""
    wants = f"at least {needed >> 20} MiB are needed, " if needed else ""
    return MachineError(
        "E0406",
        f"{of} has too little memory: {what}",
        where=f"{wants}{free >> 20} MiB are free",
        hint=f"close other programs that use {of}, or build for a smaller batch or workspace",
    )


def _none(what: str, why: str) -> MachineError:
    return MachineError(
        "E0404",
        what,
        why=why,
        hint="install NVIDIA's driver, give a container the GPU (--gpus all), "
        "or look at CUDA_VISIBLE_DEVICES",
    )
