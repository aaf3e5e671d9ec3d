"""Gets what the C++ tests are built with, as a user without rights would: nothing is installed.

A compiler has to be there; cmake and ninja are wheels among the development tools. Headers come
from the machine, or else from Debian's packages, unpacked into build/; ONNX Runtime's library is
that of its wheel.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "runtime/cpp"
TESTS = ROOT / "tests/cpp"
BUILD = ROOT / "build/cpp"

# Headers alone, which fit any machine; no older suite has those of ONNX Runtime.
_SUITE = "trixie"
_HEADERS = ("libonnxruntime-dev", "nlohmann-json3-dev", "libcli11-dev")
_RELEASE = Path("/etc/os-release")
# Debian 13 renamed libraries whose times have 64 bits.
_T64 = "t64" if _RELEASE.exists() and "=trixie" in _RELEASE.read_text() else ""
# Libraries have to be those of the machine's own suite, where the compiler does not find them.
_LIBRARIES = {
    "jpeglib.h": ("libjpeg62-turbo-dev", "libjpeg62-turbo"),
    "png.h": ("libpng-dev", f"libpng16-16{_T64}"),
    "zlib.h": ("zlib1g-dev", "zlib1g"),
    "openssl/evp.h": ("libssl-dev", f"libssl3{_T64}"),
}
_ONE_SUITE = f"""Types: deb
URIs: http://deb.debian.org/debian
Suites: {_SUITE}
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


# Without a network apt would wait for minutes.
_PATIENCE = (
    "APT::Sandbox::User=",
    "Acquire::Retries=0",
    "Acquire::http::Timeout=10",
    "Acquire::https::Timeout=10",
)
_ARCHITECTURE = sysconfig.get_config_var("MULTIARCH") or ""
_REFUSED_FOR_S = 1800


class MissingToolError(Exception):
    """What this machine has not and cannot get."""


@dataclass(frozen=True)
class Kind:
    """One way to build the sources; all targets unless some are named."""

    name: str
    options: Sequence[str]
    targets: Sequence[str] = ()


# Versions of TensorRT for which the double's headers are made: the first is the library's, which
# the tests call most; what depends on the version is built for the others too.
TENSORRT = {
    "10.3": (10, 3, 0, 26),
    "8.5": (8, 5, 3, 1),
    "8.6": (8, 6, 1, 5),
    "11.1": (11, 1, 0, 106),
}
DOUBLES = {name: BUILD / "tensorrt" / name for name in TENSORRT}
_FIRST, *_OTHERS = DOUBLES.values()
_PROBED = (
    f"-DCONVEXPORT_TESTS={TESTS}",
    "-DCONVEXPORT_PROGRAMS=OFF",
    "-DCONVEXPORT_TENSORRT=ON",
    f"-DTensorRT_INCLUDE_DIR={_FIRST}",
    f"-DTensorRT_CUDA_INCLUDE_DIR={_FIRST}",
)
RELEASE = Kind("release", ("-DCONVEXPORT_TENSORRT=OFF", "-DCONVEXPORT_FIGURES=ON"))
_ALL = f"-DCONVEXPORT_TENSORRT_HEADERS={';'.join(map(str, _OTHERS))}"
ASAN = Kind("asan", ("-DCONVEXPORT_SANITIZE=address,undefined", *_PROBED, _ALL))
TSAN = Kind("tsan", ("-DCONVEXPORT_SANITIZE=thread", *_PROBED), ("probe",))


def compiler() -> str:
    """The C++ compiler's name."""
    return os.environ.get("CXX", "c++")


def built(kind: Kind) -> Path:
    """The folder of an up-to-date build; other processes that want it too wait."""
    if shutil.which(compiler()) is None:
        raise MissingToolError(f"no C++ compiler: {compiler()}")
    BUILD.mkdir(parents=True, exist_ok=True)
    with FileLock(BUILD / "lock"):
        _write_doubles()
        folder = BUILD / kind.name
        call("cmake", "-S", SOURCES, "-B", folder, *_places_once(), *kind.options)
        call("ninja", "-C", folder, *kind.targets)
    return folder


def _write_doubles() -> None:
    """Headers of TensorRTs that are not there; see trt/double.hpp."""
    for name, folder in DOUBLES.items():
        parts = zip(("MAJOR", "MINOR", "PATCH", "BUILD"), TENSORRT[name], strict=True)
        lines = [f"#define NV_TENSORRT_{part} {number}" for part, number in parts]
        text = "\n".join([*lines, f'#include "{TESTS}/trt/double.hpp"', ""])
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in (("NvInferRuntime.h", text), ("cuda_runtime_api.h", "")):
            if not (folder / file).exists() or (folder / file).read_text() != content:
                (folder / file).write_text(content)


def _places_once() -> list[str]:
    """The same as ``places``; what could not be had is not tried again and again."""
    refused = BUILD / "refused"
    if refused.exists() and time.time() - refused.stat().st_mtime < _REFUSED_FOR_S:
        raise MissingToolError(refused.read_text())
    try:
        return places()
    except MissingToolError as error:
        refused.write_text(str(error))
        raise


def places() -> list[str]:
    """Options of cmake: where things are, and flags that compile fast."""
    packages, library = _packages(), _library()
    return [
        "-GNinja",
        f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
        f"-DCMAKE_PREFIX_PATH={packages}",
        f"-DOnnxRuntime_INCLUDE_DIR={packages}/include/onnxruntime",
        f"-DOnnxRuntime_LIBRARY={library}",
        "-DCMAKE_BUILD_TYPE=",
        "-DCMAKE_CXX_FLAGS=-O1 -g1",
        "-DCONVEXPORT_WERROR=ON",
        "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON",
        # Where Debian keeps what depends on the architecture.
        f"-DCMAKE_CXX_STANDARD_INCLUDE_DIRECTORIES={packages}/include/{_ARCHITECTURE}",
    ]


def call(name: str, *arguments: str | Path) -> str:
    """Run a tool; an assertion shows what it said if it failed."""
    words = [tool(name), *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-6000:]}{done.stderr[-6000:]}"
    return done.stdout


def tool(name: str) -> str:
    """Where a tool is: in this environment, or else on the path."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise MissingToolError(f"no {name}: pip install '.[dev]'")
    return found


def _library() -> Path:
    """ONNX Runtime's library under the names that the linker and the loader look for."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        raise MissingToolError("no onnxruntime")
    found = sorted((Path(spec.origin).parent / "capi").glob("libonnxruntime.so.*.*"))
    if not found:
        raise MissingToolError("the onnxruntime package here has no library of its own")
    folder = BUILD / "onnxruntime"
    folder.mkdir(exist_ok=True)
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        link, fresh = folder / name, folder / f"{name}.{os.getpid()}"
        if not link.is_symlink() or link.readlink() != found[0]:  # others may be loading it
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(found[0])
            fresh.replace(link)
    return folder / "libonnxruntime.so"


def _packages() -> Path:
    """A prefix with the headers, of packages that were downloaded and unpacked once."""
    root = BUILD / "packages"
    if not (root / "complete").exists():
        root.mkdir(exist_ok=True)
        sources = BUILD / "apt/sources"
        sources.mkdir(parents=True, exist_ok=True)
        (sources / "one.sources").write_text(_ONE_SUITE)
        _download(_HEADERS, f"Dir::Etc::SourceParts={sources}", "Dir::Etc::SourceList=/dev/null")
        absent = [names for header, names in _LIBRARIES.items() if not _compiles(header)]
        if absent:
            _download([name for names in absent for name in names])
        (root / "complete").touch()
    return root / "usr"


def _download(names: Sequence[str], *settings: str) -> None:
    """Unpack packages of the suites that apt-get is told of, or else of the machine's own."""
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        private = (f"Dir::State::Lists={scratch}/lists", f"Dir::Cache={scratch}/cache")
        words = [w for s in (*settings, *private, *_PATIENCE) for w in ("-o", s)]
        for folder in ("lists/partial", "cache/archives/partial"):
            (Path(scratch) / folder).mkdir(parents=True)
        for command in (["update"], ["download", *names]):
            _get([*words, *command], Path(scratch))
        for package in Path(scratch).glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, BUILD / "packages"], check=True)


def _get(words: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            ["apt-get", "-q", *words], cwd=folder, capture_output=True, text=True, timeout=120
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise MissingToolError(f"no headers: {error}") from error
    if done.returncode != 0:
        raise MissingToolError(f"no headers: apt-get {words[-1]}: {done.stderr[-300:]}")


def _compiles(header: str) -> bool:
    """Whether the compiler finds a header by itself."""
    code = f"#include <stdio.h>\n#include <{header}>\n"
    words = [compiler(), "-fsyntax-only", "-x", "c++", "-"]
    return subprocess.run(words, input=code, text=True, capture_output=True).returncode == 0
