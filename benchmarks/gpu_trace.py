"""Readings of the GPU while something is measured: NVIDIA's library, or a Jetson's own files.

``libnvidia-ml`` comes with the driver; ``nvidia-smi`` would take a process and 50 ms a reading. Of
several GPUs none is read: which one a runtime takes is its own affair.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from ctypes import byref, c_int, c_uint, c_ulonglong, c_void_p, create_string_buffer
from pathlib import Path

from convexport.benchmarks.host import text_of
from convexport.runtime.board import GPUS

_LIBRARY = "libnvidia-ml.so.1"
_TEXT = 96  # bytes, of the longest name
_SM_CLOCK, _CORE_TEMPERATURE = 1, 0  # nvmlClockType_t, nvmlTemperatureSensors_t
# nvmlClocksEventReasons that heat or power bring about: power cap, slowdowns, power brake. An idle
# GPU and one whose clocks somebody fixed give reasons too, and neither is held back by them.
_HELD_BACK = 0x04 | 0x08 | 0x20 | 0x40 | 0x80

GpuReader = Callable[[], "dict[str, float | None]"]


def open_gpu(root: Path = Path("/")) -> GpuReader | None:
    """What reads the one GPU of this machine; None where there is none, or several."""
    return _jetson(root) or _nvml()


def _jetson(root: Path) -> GpuReader | None:
    devices = [path for name in GPUS for path in (root / "sys/class/devfreq").glob(name)]
    if not devices:
        return None
    zones = [
        zone / "temp"
        for zone in (root / "sys/class/thermal").glob("thermal_zone*")
        if "gpu" in (text_of(zone / "type") or "").lower()
    ]

    def read() -> dict[str, float | None]:
        degrees = [value for value in map(number, zones) if value is not None and value > 0]
        hertz = number(devices[0] / "cur_freq")
        return {
            "gpu_clock_mhz": None if hertz is None else hertz / 1e6,
            "gpu_temperature_c": max(degrees) / 1000 if degrees else None,
        }

    return read


def describe_gpu() -> dict[str, str] | None:
    """The one NVIDIA GPU of this machine: name, compute capability, driver; None where unknown."""
    found = _device()
    if found is None:
        return None
    library, device = found
    name, driver = create_string_buffer(_TEXT), create_string_buffer(_TEXT)
    major, minor = c_int(), c_int()
    library.nvmlDeviceGetName(device, name, c_uint(_TEXT))
    library.nvmlDeviceGetCudaComputeCapability(device, byref(major), byref(minor))
    library.nvmlSystemGetDriverVersion(driver, c_uint(_TEXT))
    return {
        "name": name.value.decode(errors="replace"),
        "compute_capability": f"{major.value}.{minor.value}",
        "driver": driver.value.decode(errors="replace"),
    }


def _device() -> tuple[ctypes.CDLL, c_void_p] | None:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    count, device = c_uint(), c_void_p()
    ready = (
        library.nvmlInit_v2() == 0
        and library.nvmlDeviceGetCount_v2(byref(count)) == 0
        and count.value == 1
        and library.nvmlDeviceGetHandleByIndex_v2(c_uint(0), byref(device)) == 0
    )
    return (library, device) if ready else None


def _nvml() -> GpuReader | None:
    found = _device()
    if found is None:
        return None
    library, device = found

    def ask(function: str, *before: c_uint, wide: bool = False) -> float | None:
        value = c_ulonglong() if wide else c_uint()
        status = getattr(library, function)(device, *before, byref(value))
        return float(value.value) if status == 0 else None

    def read() -> dict[str, float | None]:
        milliwatts = ask("nvmlDeviceGetPowerUsage")
        reasons = ask("nvmlDeviceGetCurrentClocksThrottleReasons", wide=True)
        return {
            "gpu_clock_mhz": ask("nvmlDeviceGetClockInfo", c_uint(_SM_CLOCK)),
            "gpu_temperature_c": ask("nvmlDeviceGetTemperature", c_uint(_CORE_TEMPERATURE)),
            "gpu_power_w": None if milliwatts is None else milliwatts / 1000,
            "gpu_throttled": None if reasons is None else float(int(reasons) & _HELD_BACK != 0),
        }

    return read


def number(path: Path) -> float | None:
    """The number that a file of the kernel's holds; None where it holds none."""
    with suppress(ValueError):
        return float(text_of(path) or "")
    return None
