"""What ``doctor`` says of packages: missing, with known holes, or not made for each other."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.version import Version

State = Literal["ok", "missing", "problem"]

# Package -> (the least version that is taken, what needs it).
_PACKAGES = {
    "numpy": ("1.26", "everything"),
    "pillow": ("10.3", "decoding images"),
    "torch": ("2.10", "building from PyTorch"),
    "onnx": ("1.21", "building"),
    "onnx-ir": ("0.2", "building"),
    "onnxscript": ("0.6", "exporting modules"),
    "onnxsim": ("0.6", "simplifying"),
    "onnxslim": ("0.1.90", "simplifying what onnxsim cannot"),
    "safetensors": ("0.5", "loading checkpoints"),
    "scikit-learn": ("1.4", "the digits and the stand-in photographs"),
}
# What a file can do to versions before the least one.
_HOLES = {
    "torch": "a checkpoint can run code, also by the safe loader (CVE-2026-24747, CVE-2025-32434)",
    "onnx": "external data can lie outside the model's folder (CVE-2026-27489, -34446, -34447)",
    "pillow": "an image's colour profile can overflow a buffer (CVE-2024-28219)",
}
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "openvino", "ml-dtypes", "protobuf", "scipy")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and how to put it right."""

    what: str
    state: State
    detail: str
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def packages() -> Iterator[Finding]:
    """Those of the main job, with the least version of each."""
    for name, (least, purpose) in _PACKAGES.items():
        version = version_of(name)
        fix = f"pip install '{name}>={least}'"
        if version is None:
            yield Finding(name, "problem", f"not installed; for {purpose}", fix)
        elif Version(version) < Version(least):
            detail = f"{version}, older than {least}"
            hole = f": {_HOLES[name]}" if name in _HOLES else ""
            yield Finding(name, "problem", detail + hole, fix)
        else:
            yield Finding(name, "ok", version)


def clashes() -> Iterator[Finding]:
    """Packages that are installed beside versions of others that they do not work with.

    Pip lets that happen; what follows is a crash or an odd error of a native library at import.
    """
    for name in (*_PACKAGES, *_RUNTIMES):
        for text in _requirements(name):
            needed = Requirement(text)
            if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
                continue
            found = version_of(needed.name)
            if found is not None and not needed.specifier.contains(found, prereleases=True):
                detail = f"{name} {version_of(name)} needs {needed.name}{needed.specifier}"
                fix = f"pip install '{needed.name}{needed.specifier}'"
                yield Finding(f"{name}, {needed.name}", "problem", f"{detail}, not {found}", fix)


def onnxruntime() -> Iterator[Finding]:
    """Which of the two packages is there; both are one too many."""
    cpu, gpu = version_of("onnxruntime"), version_of("onnxruntime-gpu")
    if cpu and gpu:
        yield Finding(
            "onnxruntime",
            "problem",
            f"onnxruntime {cpu} and onnxruntime-gpu {gpu} overwrite each other's files",
            "pip uninstall onnxruntime onnxruntime-gpu, then pip install the one you want",
        )
    elif not (cpu or gpu):
        fix = "pip install 'convexport[cpu]' or 'convexport[gpu]'"
        yield Finding("onnxruntime", "problem", "not installed; for running models", fix)
    else:
        yield Finding("onnxruntime", "ok", f"{cpu or gpu}{' (gpu)' if gpu else ''}")


def cuda_libraries() -> str:
    """What ONNX Runtime's CUDA provider lacks here, in the loader's words; empty if nothing.

    Without it the provider is listed all the same, and every node falls to the CPU.
    """
    package = importlib.util.find_spec("onnxruntime")
    places = package.submodule_search_locations if package is not None else None
    for place in places or ():
        provider = Path(place) / "capi/libonnxruntime_providers_cuda.so"
        if provider.is_file():
            try:
                ctypes.CDLL(str(provider))
            except OSError as error:
                # Symbols of ONNX Runtime itself are not there yet, and that is no fault.
                if "cannot open shared object file" in str(error):
                    return f"the CUDA provider does not load: {error}"
    return ""


def version_of(package: str) -> str | None:
    """The version that is installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requirements(package: str) -> list[str]:
    try:
        return importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return []
