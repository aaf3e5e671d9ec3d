"""What the machine did while a worker measured: clock, heat, throttling, and who else was busy.

A thread of the parent reads a few small files five times a second; the worker, whose calls are
timed, has no part in it. What this machine does not tell is None. The clock is that of the CPU on
which the worker's main thread last ran: idle cores clock down and say nothing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from convexport.benchmarks.gpu_trace import number, open_gpu
from convexport.benchmarks.host import quota_counters, text_of
from convexport.benchmarks.stored import known

PERIOD_S = 0.2
CLOCK_LIMIT = 0.02
COST_LIMIT = 0.005
# The clock of a second is the median of its readings; of fewer than so many it is not known.
_WINDOW_S, _WINDOW_READINGS = 1.0, 3
# Jetson's sensors that are switched off read -256 degrees; nothing that computes is at 150.
_SANE_C = (-40.0, 150.0)
_CPU_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
_ROOT = Path("/")

Series = tuple[float, ...] | None
Reading = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Readings while one process measured; a series that is not known throughout is None.

    Attributes:
        t_s: when, since the first block began.
        clock_mhz: of the CPU that the worker's main thread was on.
        temperature_c: of the hottest sensor of the board or CPU.
        others: share of all CPUs' time that other processes took since the reading before, 0..1.
        throttles: how often heat, current or the quota slowed us, since the first reading.
        gpu_clock_mhz: of the GPU's processors.
        gpu_temperature_c: of the GPU.
        gpu_power_w: that the GPU draws.
        gpu_throttled: 1 where the GPU held itself back (power, heat), else 0.
        cost: of reading all this, as a share of one core.
    """

    t_s: tuple[float, ...]
    clock_mhz: Series = None
    temperature_c: Series = None
    others: Series = None
    throttles: Series = None
    gpu_clock_mhz: Series = None
    gpu_temperature_c: Series = None
    gpu_power_w: Series = None
    gpu_throttled: Series = None
    cost: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trace:
        """The inverse of ``to_dict``."""
        fields: dict[str, Any] = {
            key: tuple(map(float, value)) if isinstance(value, list) else value
            for key, value in known(cls, data).items()
        }
        return cls(**fields)


class Sampler:
    """Reads the machine from a thread of its own, from ``start`` until its block is left."""

    def __init__(self, *, gpu: bool = False, root: Path = _ROOT, period_s: float = PERIOD_S):
        self._gpu = open_gpu(root) if gpu else None
        self._root = root
        self._period_s = period_s
        self._rows: list[tuple[int, Reading]] = []
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._spent_ns = 0

    def start(self, pid: int) -> None:
        """Begin to read, with that process as the one that is not "others"."""
        read = machine_reader(pid, self._root)
        self._thread = threading.Thread(target=self._loop, args=(read,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Sampler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def trace(self, begin_ns: int, end_ns: int) -> Trace:
        """The readings between two moments of ``time.perf_counter_ns``, in whichever process."""
        inside = [(at, row) for at, row in self._rows if begin_ns <= at <= end_ns]
        names = inside[0][1] if inside else {}
        columns: dict[str, Any] = {name: _known([row[name] for _, row in inside]) for name in names}
        first = columns.get("throttles")
        if first is not None:
            columns["throttles"] = tuple(count - first[0] for count in first)
        whole_ns = max(1, self._rows[-1][0] - self._rows[0][0]) if len(self._rows) > 1 else 0
        return Trace(
            t_s=tuple((at - begin_ns) / 1e9 for at, _ in inside),
            **columns,
            cost=self._spent_ns / whole_ns if whole_ns else 0.0,
        )

    def _loop(self, read: Callable[[], Reading]) -> None:
        due = time.perf_counter()
        while not self._end.is_set():
            spent = time.thread_time_ns()
            row = {**read(), **(self._gpu() if self._gpu else {})}
            self._rows.append((time.perf_counter_ns(), row))
            self._spent_ns += time.thread_time_ns() - spent
            due = max(due + self._period_s, time.perf_counter())
            self._end.wait(due - time.perf_counter())


def machine_reader(pid: int, root: Path = _ROOT) -> Callable[[], Reading]:
    """What reads the machine once more, for a process and all that it does not account for."""
    thermometers = _thermometers(root)
    counters = _throttle_files(root)
    before: list[tuple[float, float] | None] = [None]

    def read() -> Reading:
        cpu, own = _process(root, pid)
        now = _busy(root, own)
        others = None
        if cpu is not None and now and before[0] and now[0] > before[0][0]:
            others = max(0.0, (now[1] - before[0][1]) / (now[0] - before[0][0]))
        before[0] = now
        degrees = [value / 1000 for value in map(number, thermometers) if value is not None]
        sane = [value for value in degrees if _SANE_C[0] < value < _SANE_C[1]]
        return {
            "clock_mhz": _clock(root, cpu),
            "temperature_c": max(sane, default=None),
            "others": others,
            "throttles": sum(_count(path) for path in counters) if counters else None,
        }

    return read


def doubts(traces: Sequence[Trace | None]) -> list[str]:
    """Why numbers measured meanwhile may not hold."""
    reasons = []
    for name, unit in (("clock_mhz", "CPU"), ("gpu_clock_mhz", "GPU")):
        drop = clock_drop([trace for trace in traces if trace is not None], name)
        if drop is not None and drop > CLOCK_LIMIT:
            reasons.append(f"the {unit}'s clock fell by {drop:.1%} (limit {CLOCK_LIMIT:.0%})")
    known = [trace for trace in traces if trace is not None and trace.gpu_throttled]
    held = sum(max(trace.gpu_throttled or (0.0,)) > 0 for trace in known)
    if held:
        reasons.append(f"the GPU held itself back in {held}/{len(known)} processes")
    costly = max((trace.cost for trace in traces if trace is not None), default=0.0)
    if costly > COST_LIMIT:
        reasons.append(f"watching the machine took {costly:.1%} of a core")
    return reasons


def clock_drop(traces: Sequence[Trace], name: str = "clock_mhz") -> float | None:
    """How far the slowest second's median clock lies below the fastest's; None if not known."""
    medians = []
    for trace in traces:
        values = getattr(trace, name)
        if values is None:
            continue
        seconds = np.asarray(trace.t_s) // _WINDOW_S
        windows = (np.asarray(values)[seconds == each] for each in np.unique(seconds))
        medians += [np.median(each) for each in windows if len(each) >= _WINDOW_READINGS]
    if len(medians) < 2 or max(medians) <= 0:
        return None
    return float(1 - min(medians) / max(medians))


def _known(values: Sequence[float | None]) -> Series:
    known = tuple(float(value) for value in values if value is not None)
    return known if len(known) == len(values) else None


def _count(path: Path) -> float:
    if path.name != "cpu.stat":
        return number(path) or 0.0
    words = (text_of(path) or "").split()
    return float(words[words.index("nr_throttled") + 1]) if "nr_throttled" in words else 0.0


def _thermometers(root: Path) -> list[Path]:
    chips = [
        chip
        for chip in (root / "sys/class/hwmon").glob("hwmon*")
        if text_of(chip / "name") in _CPU_CHIPS
    ]
    found = list((root / "sys/class/thermal").glob("thermal_zone*/temp"))
    return found + [path for chip in chips for path in chip.glob("temp*_input")]


def _throttle_files(root: Path) -> list[Path]:
    """One counter a package, not one a core: many cores would cost too much to ask."""
    packages = {}
    cpus = root / "sys/devices/system/cpu"
    for path in sorted(cpus.glob("cpu[0-9]*/thermal_throttle/package_throttle_count")):
        packages[text_of(path.parents[1] / "topology/physical_package_id")] = path
    current = (root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")
    return [*packages.values(), *current, *quota_counters(root)]


def _process(root: Path, pid: int) -> tuple[int | None, float]:
    """The CPU that a process was last on, and the ticks that it and its dead children took."""
    text = text_of(root / f"proc/{pid}/stat")
    if text is None:
        return None, 0.0
    # The command's name stands in brackets and may hold anything; the state is field 3.
    fields = text.rpartition(")")[2].split()
    return int(fields[36]), float(sum(map(int, fields[11:15])))


def _busy(root: Path, own_ticks: float) -> tuple[float, float] | None:
    """All CPUs' seconds since boot, and of them those that neither we nor the process took."""
    with suppress(IndexError, ValueError):
        # user nice system idle iowait irq softirq steal
        ticks = [int(field) for field in (text_of(root / "proc/stat") or "").split(None, 9)[1:9]]
        hertz = os.sysconf("SC_CLK_TCK")
        busy = sum(ticks) - ticks[3] - ticks[4] - ticks[7]
        return sum(ticks) / hertz, (busy - own_ticks) / hertz - time.process_time()
    return None


def _clock(root: Path, cpu: int | None) -> float | None:
    if cpu is None:
        return None
    path = root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq"
    kilohertz = number(path)
    if kilohertz is not None:
        return kilohertz / 1000
    blocks = (text_of(root / "proc/cpuinfo") or "").split("\n\n")
    lines = blocks[cpu].splitlines() if cpu < len(blocks) else []
    return next((float(line.partition(":")[2]) for line in lines if line[:7] == "cpu MHz"), None)
