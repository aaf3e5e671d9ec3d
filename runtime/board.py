"""What an NVIDIA board says of itself: without it a latency means nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Dict, Optional

_ROOT = Path("/")
_FILES = {
    "board": "proc/device-tree/model",
    "l4t": "etc/nv_tegra_release",
    "cpu_khz": "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
    "cpu_governor": "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
}
# The GPU's clock: its device is called after the chip.
GPUS = ("*.gpu", "*.ga10b", "*.gv11b", "*.gp10b", "gpu-gpc-*")
_GPU_CLOCKS = {"gpu_hz": "cur_freq", "gpu_max_hz": "max_freq", "gpu_governor": "governor"}


def describe_board() -> Dict[str, str]:
    """Board, Linux for Tegra, JetPack, power mode and clocks, as far as they are told now."""
    facts = {name: _text(_ROOT / path) for name, path in _FILES.items()}
    devices = (path for name in GPUS for path in (_ROOT / "sys/class/devfreq").glob(name))
    for device in sorted(devices):
        facts.update({name: _text(device / file) for name, file in _GPU_CLOCKS.items()})
    facts["power_mode"] = _power_mode()
    facts["jetpack"] = _jetpack()
    return {name: text for name, text in facts.items() if text}


def free_memory() -> int:
    """Bytes of the host's memory that a program could get; 0 where nobody says."""
    try:
        lines = (_ROOT / "proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def _text(path: Path) -> Optional[str]:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return None
    return text.strip("\0\n ").splitlines()[0] if text.strip("\0\n ") else None


def _jetpack() -> Optional[str]:
    """The version of NVIDIA's package of all packages, where that is installed."""
    try:
        blocks = (_ROOT / "var/lib/dpkg/status").read_text(errors="replace").split("\n\n")
    except OSError:
        return None
    for block in blocks:
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if fields.get("Package") == "nvidia-jetpack" and "Version" in fields:
            return fields["Version"]
    return None


def _power_mode() -> Optional[str]:
    try:
        told = subprocess.run(
            ["nvpmodel", "-q"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=10,
            check=True,
        ).stdout.decode(errors="replace")
    except (OSError, subprocess.SubprocessError):
        return None
    named = [line for line in told.splitlines() if "Power Mode" in line]
    return named[0].partition(":")[2].strip() if named else None
