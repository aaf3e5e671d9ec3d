"""What this machine's CPU can do, as far as INT8 and BF16 depend on it."""

from __future__ import annotations

from pathlib import Path
from typing import FrozenSet

_VNNI = frozenset({"avx512_vnni", "avx_vnni"})
_BF16 = frozenset({"amx_bf16", "avx512_bf16"})


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> FrozenSet[str]:
    """The flags of the first x86 CPU that Linux names; none on other CPUs and systems."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    found = (line.partition(":")[2].split() for line in lines if line.startswith("flags"))
    return frozenset(next(found, ()))


def overflows(flags: FrozenSet[str]) -> bool:
    """Whether sums of two U8S8 products overflow the 16 bits that they are given.

    So it is on x86 without VNNI (ONNX Runtime's documentation, "Quantize ONNX Models", section
    on U8S8 and S8S8). Other CPUs, for which no flags are known, multiply into 32 bits.
    """
    return bool(flags) and not flags & _VNNI


def integer_kernels(flags: FrozenSet[str]) -> str:
    """What the products of integers run on, as far as results and speed depend on it."""
    if not flags:
        return "no x86 units that are known"
    return "x86 without VNNI" if overflows(flags) else "x86 with VNNI"


def multiplies_bf16(flags: FrozenSet[str]) -> bool:
    """Whether the CPU has units for products of BF16."""
    return bool(flags & _BF16)
