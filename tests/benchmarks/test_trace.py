"""The trace: read from a made-up machine, and from this one."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convexport.benchmarks.gpu_trace import describe_gpu, open_gpu
from convexport.benchmarks.trace import (
    COST_LIMIT,
    PERIOD_S,
    Sampler,
    Trace,
    clock_drop,
    doubts,
    machine_reader,
)

PID = 4242
TICKS = os.sysconf("SC_CLK_TCK")


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _stat(busy: int, idle: int) -> dict[str, str]:
    return {"proc/stat": f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 2 3"}


def _process(ticks: int, cpu: int) -> dict[str, str]:
    fields = ["S", *["0"] * 10, str(ticks), "0", "0", "0", *["0"] * 21, str(cpu), "0"]
    return {f"proc/{PID}/stat": f"{PID} (odd ) name) {' '.join(fields)}"}


def _trace(clock: list[float], *, gpu: list[float] | None = None) -> Trace:
    times = tuple(0.2 * index for index in range(len(clock)))
    held = None if gpu is None else tuple(gpu)
    return Trace(t_s=times, clock_mhz=tuple(clock), gpu_throttled=held)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    cpu = "sys/devices/system/cpu"
    _write(
        tmp_path,
        {
            **_stat(busy=10 * TICKS, idle=10 * TICKS),
            **_process(ticks=0, cpu=1),
            f"{cpu}/cpu0/cpufreq/scaling_cur_freq": "800000\n",
            f"{cpu}/cpu1/cpufreq/scaling_cur_freq": "3200000\n",
            f"{cpu}/cpu0/thermal_throttle/package_throttle_count": "5\n",
            f"{cpu}/cpu1/thermal_throttle/package_throttle_count": "5\n",
            f"{cpu}/cpu0/topology/physical_package_id": "0\n",
            f"{cpu}/cpu1/topology/physical_package_id": "0\n",
            "sys/fs/cgroup/cpu.stat": "usage_usec 1\nnr_throttled 7\n",
            "sys/class/thermal/thermal_zone0/temp": "41000\n",
            "sys/class/thermal/thermal_zone1/temp": "-256000\n",
            "sys/class/hwmon/hwmon0/name": "coretemp\n",
            "sys/class/hwmon/hwmon0/temp1_input": "65500\n",
            "sys/class/hwmon/hwmon1/name": "nvme\n",
            "sys/class/hwmon/hwmon1/temp1_input": "90000\n",
        },
    )
    return tmp_path


def test_a_machine_is_read(machine: Path) -> None:
    read = machine_reader(PID, machine)
    first = read()
    assert first["clock_mhz"] == 3200  # of the CPU that the process is on
    assert first["temperature_c"] == 65.5  # neither the disk's nor the one that is switched off
    assert first["throttles"] == 12  # both CPUs are of one package
    assert first["others"] is None
    # A second of two CPUs went by: 1.2 s busy, of which the process had 0.7.
    _write(machine, {**_stat(10 * TICKS + 12 * TICKS // 10, 10 * TICKS + 8 * TICKS // 10)})
    _write(machine, _process(ticks=7 * TICKS // 10, cpu=0))
    second = read()
    assert second["others"] == pytest.approx(0.25, abs=0.01)
    assert second["clock_mhz"] == 800


def test_an_unknown_machine_says_nothing(tmp_path: Path) -> None:
    assert set(machine_reader(PID, tmp_path)().values()) == {None}
    assert Trace.from_dict(json.loads(json.dumps(Trace(t_s=()).to_dict()))) == Trace(t_s=())


def test_the_clock_of_a_virtual_machine_is_in_cpuinfo(tmp_path: Path) -> None:
    blocks = (f"processor\t: {n}\ncpu MHz\t\t: {mhz}\n" for n, mhz in ((0, 2000.0), (1, 2100.5)))
    _write(tmp_path, {"proc/cpuinfo": "\n".join(blocks), **_process(0, cpu=1)})
    assert machine_reader(PID, tmp_path)()["clock_mhz"] == 2100.5


def test_a_jetson_is_read(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "sys/class/devfreq/17000000.ga10b/cur_freq": "918000000\n",
            "sys/class/thermal/thermal_zone0/type": "CPU-therm\n",
            "sys/class/thermal/thermal_zone0/temp": "70000\n",
            "sys/class/thermal/thermal_zone1/type": "GPU-therm\n",
            "sys/class/thermal/thermal_zone1/temp": "48500\n",
            "sys/class/hwmon/hwmon2/oc1_event_cnt": "3\n",
        },
    )
    gpu = open_gpu(tmp_path)
    assert gpu is not None
    assert gpu() == {"gpu_clock_mhz": 918, "gpu_temperature_c": 48.5}
    assert machine_reader(PID, tmp_path)()["throttles"] == 3


class Nvml:
    """The functions of libnvidia-ml that are called, for as many GPUs as asked."""

    def __init__(self, gpus: int = 1, reasons: int = 0, power_status: int = 0) -> None:
        answers = {"Power": 312_500, "Clock": 1980, "Temperature": 61, "Reasons": reasons}
        self._answers, self._gpus, self._power_status = answers, gpus, power_status

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            texts = {"GetName": b"NVIDIA H200", "DriverVersion": b"570.1"}
            for word, text in texts.items():
                if word in name:
                    arguments[-2].value = text
            if "ComputeCapability" in name:
                arguments[1]._obj.value, arguments[2]._obj.value = 9, 0
            for word, value in self._answers.items():
                if word in name:
                    arguments[-1]._obj.value = value
            if "Count" in name:
                arguments[0]._obj.value = self._gpus
            return self._power_status if "Power" in name else 0

        return call


def test_an_nvidia_gpu_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def read(library: Nvml) -> dict[str, float | None] | None:
        monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
        gpu = open_gpu(tmp_path)
        return gpu and gpu()

    assert read(Nvml()) == {
        "gpu_clock_mhz": 1980,
        "gpu_temperature_c": 61,
        "gpu_power_w": 312.5,
        "gpu_throttled": 0,
    }
    for reasons, held in ((0x1, 0), (0x2, 0), (0x4, 1), (0x8, 1), (0x41, 1), (0x80, 1)):
        seen = read(Nvml(reasons=reasons))
        assert seen is not None and seen["gpu_throttled"] == held
    part = read(Nvml(power_status=3))  # a part of a GPU is not told its power
    assert part is not None and part["gpu_power_w"] is None and part["gpu_clock_mhz"] == 1980
    assert read(Nvml(gpus=2)) is None and describe_gpu() is None
    read(Nvml())
    named = {"name": "NVIDIA H200", "compute_capability": "9.0", "driver": "570.1"}
    assert describe_gpu() == named


def test_a_process_is_watched_five_times_a_second_for_little() -> None:
    code = "import time\nend = time.time() + 2\nwhile time.time() < end: pass"
    with Sampler() as sampler:
        child = subprocess.Popen([sys.executable, "-c", code])
        sampler.start(child.pid)
        begin = time.perf_counter_ns()
        child.wait()
        end = time.perf_counter_ns() - 100_000_000
    trace = sampler.trace(begin, end)
    # One a period; fewer where other processes leave the thread waiting.
    assert 4 <= len(trace.t_s) <= 1 + (end - begin) / (PERIOD_S * 1e9) and min(trace.t_s) >= 0
    assert trace.cost < 4 * COST_LIMIT
    assert trace.others is None or max(trace.others) < 1
    stored = trace.to_dict()
    assert set(stored) >= {"t_s", "clock_mhz", "temperature_c", "others"}
    assert Trace.from_dict(json.loads(json.dumps(stored))) == trace


def test_a_clock_that_falls_is_a_doubt() -> None:
    steady = _trace([3000, 2990, 3000, 3010, 3000] * 4)
    assert doubts([steady, None]) == []
    assert clock_drop([steady]) == 0
    fallen = _trace([3000] * 10 + [2900] * 10)
    assert clock_drop([fallen]) == pytest.approx(1 / 30)
    assert doubts([fallen]) == ["the CPU's clock fell by 3.3% (limit 2%)"]
    # From one process to the next it counts as well; one reading alone does not.
    assert doubts([_trace([3000] * 5), _trace([2900] * 5)]) != []
    assert doubts([_trace([3000] * 4 + [1000] + [3000] * 5)]) == []
    assert doubts([_trace([3000] * 10 + [1000] * 2)]) == []  # not even half a second
    assert clock_drop([Trace(t_s=(0.0, 2.0))]) is None


def test_a_gpu_that_holds_back_and_a_costly_watch_are_doubts() -> None:
    flat = [3000.0] * 5
    traces = [_trace(flat, gpu=[0, 0, 1, 0, 0]), _trace(flat, gpu=[0] * 5)]
    assert doubts(traces) == ["the GPU held itself back in 1/2 processes"]
    (reason,) = doubts([replace(_trace(flat), cost=0.02)])
    assert "2.0% of a core" in reason
