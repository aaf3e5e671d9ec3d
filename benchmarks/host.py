"""What the machine is and how busy it is: the conditions under which a number holds.

Nothing that names a person or a machine is read: no host name, user, home path or serial number.
Every reader takes the root of the file system, so that a test can show it another machine.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

# What decides which kernels a runtime picks: vectors, INT8 dot products, matrix units.
_FLAGS = (
    "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16",
    "neon", "asimd", "asimddp", "asimdhp", "i8mm", "sve", "hypervisor",
)  # fmt: skip
_PACKAGES = (
    "convexport", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt",
    "torch",
)  # fmt: skip
_ROOT = Path("/")
BATTERY = "battery"


@dataclass(frozen=True)
class LoadSnapshot:
    """The kernel's counters at one moment, in seconds of one CPU unless said otherwise.

    Attributes:
        load_1m: processes that ran or waited, averaged over the last minute.
        total_s: all CPUs' time since boot.
        busy_s: of it, spent working, for whomever.
        steal_s: of it, given to other guests by the hypervisor.
        own_s: used by this process and by its children that have ended.
        throttles: how often heat slowed a core, or the quota stopped us, since boot.
    """

    load_1m: float | None
    total_s: float | None
    busy_s: float | None
    steal_s: float | None
    own_s: float
    throttles: int


@dataclass(frozen=True)
class Load:
    """What happened between two snapshots; shares are of all CPUs' time, 0..1, None unknown.

    Attributes:
        load_1m: the load average at the start.
        own: this process and its ended children.
        others: everybody else.
        steal: given to other guests by the hypervisor.
        throttles: how often a core was slowed by heat or we were stopped by the quota.
    """

    load_1m: float | None
    own: float | None
    others: float | None
    steal: float | None
    throttles: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def describe_host(root: Path = _ROOT) -> dict[str, Any]:
    """The machine as JSON: CPU, memory, kernel, and the versions of what is installed."""
    cpuinfo = _cpuinfo(root)
    flags = set((cpuinfo.get("flags") or cpuinfo.get("Features") or "").split())
    return {
        "cpu": _cpu_model(root, cpuinfo),
        "microcode": cpuinfo.get("microcode"),
        "machine": platform.machine(),
        "cpus": affinity(),
        "cpu_quota": cpu_quota(root),
        "smt": text_of(root / "sys/devices/system/cpu/smt/active") == "1",
        "numa_nodes": len(list((root / "sys/devices/system/node").glob("node[0-9]*"))) or None,
        "flags": [flag for flag in _FLAGS if flag in flags],
        "governor": text_of(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "ram_bytes": _ram(root),
        "kernel": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": _versions(),
    }


def affinity() -> int:
    """How many CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cores(root: Path = _ROOT) -> int:
    """How many CPUs this process can keep busy: its affinity, cut to its quota; at least 1."""
    quota = cpu_quota(root)
    return affinity() if quota is None else max(1, min(affinity(), math.floor(quota)))


def cpu_quota(root: Path = _ROOT) -> float | None:
    """The cgroup's quota in CPUs, the tightest on the way to the top; None without one."""
    quotas = [quota for folder in _groups(root) for quota in _quotas(folder)]
    return min(quotas, default=None)


def quota_counters(root: Path = _ROOT) -> list[Path]:
    """The files that count how often a quota stopped us, of each cgroup on the way to the top."""
    return [path for path in (folder / "cpu.stat" for folder in _groups(root)) if path.exists()]


def power(root: Path = _ROOT) -> str | None:
    """``mains`` or ``battery``; None where the kernel knows of no plug."""
    plugs = [text_of(path) for path in (root / "sys/class/power_supply").glob("*/online")]
    return ("mains" if "1" in plugs else BATTERY) if any(plugs) else None


def load_snapshot(root: Path = _ROOT) -> LoadSnapshot:
    """The counters now. Two snapshots make a ``Load``."""
    loadavg = text_of(root / "proc/loadavg")
    total = busy = steal = None
    with contextlib.suppress(OSError, ValueError):
        first = (root / "proc/stat").read_text().split("\n", 1)[0]
        # user nice system idle iowait irq softirq steal; guests are inside user already
        ticks = [int(field) / os.sysconf("SC_CLK_TCK") for field in first.split()[1:9]]
        total, steal = sum(ticks), ticks[7]
        busy = total - ticks[3] - ticks[4] - steal
    spent = os.times()
    return LoadSnapshot(
        load_1m=float(loadavg.split()[0]) if loadavg else None,
        total_s=total,
        busy_s=busy,
        steal_s=steal,
        own_s=spent.user + spent.system + spent.children_user + spent.children_system,
        throttles=_throttles(root),
    )


def load_between(before: LoadSnapshot, after: LoadSnapshot) -> Load:
    """The shares of the time between two snapshots; take both while no child runs."""
    throttles = after.throttles - before.throttles
    if before.total_s is None or after.total_s is None or after.total_s <= before.total_s:
        return Load(before.load_1m, None, None, None, throttles)
    total = after.total_s - before.total_s
    busy = ((after.busy_s or 0) - (before.busy_s or 0)) / total
    own = (after.own_s - before.own_s) / total
    steal = ((after.steal_s or 0) - (before.steal_s or 0)) / total
    return Load(before.load_1m, own, max(0.0, busy - own), max(0.0, steal), throttles)


def text_of(path: Path) -> str | None:
    """What a file of the kernel's says; None where there is none, or it says nothing."""
    try:
        return path.read_text(errors="replace").strip("\0\n ") or None
    except OSError:
        return None


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first CPU's lines of /proc/cpuinfo."""
    lines = (text_of(root / "proc/cpuinfo") or "").split("\n\n", 1)[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _cpu_model(root: Path, cpuinfo: dict[str, str]) -> str | None:
    board = text_of(root / "proc/device-tree/model")
    part = cpuinfo.get("CPU part")
    arm = f"ARM implementer {cpuinfo.get('CPU implementer')} part {part}" if part else None
    return cpuinfo.get("model name") or board or arm or platform.processor() or None


def _ram(root: Path) -> int | None:
    for line in (text_of(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _quotas(group: Path) -> Iterator[float]:
    quota, _, period = (text_of(group / "cpu.max") or "max").partition(" ")
    if quota != "max":
        yield int(quota) / int(period or 100_000)
    old = int(text_of(group / "cpu.cfs_quota_us") or -1)
    if old > 0:
        yield old / int(text_of(group / "cpu.cfs_period_us") or 100_000)


def _groups(root: Path) -> Iterator[Path]:
    """Our cgroup's folders and those above them. In a container the path may not be there."""
    mount = root / "sys/fs/cgroup"
    for line in (text_of(root / "proc/self/cgroup") or "0::/").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = mount / "cpu" if controllers else mount
        group = top / path.lstrip("/")
        yield group
        yield from (up for up in group.parents if up.is_relative_to(top))


def _throttles(root: Path) -> int:
    cpus = root / "sys/devices/system/cpu"
    heat = [text_of(path) for path in cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    # Jetson counts here how often too much current, or too low a voltage, slowed it.
    heat += [text_of(path) for path in (root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")]
    stats = " ".join(text_of(path) or "" for path in quota_counters(root)).split()
    quota = [count for name, count in pairwise(stats) if name == "nr_throttled"]
    return sum(int(count) for count in (*(text or "0" for text in heat), *quota))


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
