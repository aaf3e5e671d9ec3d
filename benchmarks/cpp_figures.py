"""What the C++ library costs: per call, on disk, at the start, and for an image.

It is built from the package's own sources, in Release. What CMake does not find by itself, such as
ONNX Runtime's headers, which its wheel lacks, it is told by the environment: CMAKE_PREFIX_PATH and
ONNXRUNTIME_ROOT.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import convexport.runtime
from convexport.runtime.bundle import read_manifest
from convexport.runtime.preprocess import preprocess
from convexport.runtime.specs import Preprocess

_SOURCES = Path(convexport.runtime.__path__[0]) / "cpp"
_IMAGE = (4000, 3000)  # 12 megapixels
_RUNS = 15
_CALL_S = 10
# What `overhead first` does in C++.
_FIRST = """
import sys
import convexport
from pathlib import Path
from convexport.runtime.bundle import read_golden
engine = convexport.load(sys.argv[1])
engine(read_golden(Path(sys.argv[1]), engine.manifest)[0])
"""


def cpp_figures(
    out: Path, tiny: Path, resnet: Path, wall_s: Callable[[Sequence[str]], float]
) -> list[str]:
    """The lines of the report.

    Args:
        out: a folder for the build and the image.
        tiny: a bundle of a net so small that a call's own cost is seen.
        resnet: a bundle of a large one, for the start.
        wall_s: how long a command takes in a fresh process, in seconds.
    """
    overhead, program = _built(out / "build")
    bare, engine, calls = _answer(overhead, "call", tiny, str(_CALL_S))
    lines = [
        f"a call of {tiny.name}, 1 thread, n={calls:.0f}: bare C API {bare:.2f} us, "
        f"engine {engine:.2f} us, {engine - bare:+.2f} us",
        f"convexport-run, stripped, without ONNX Runtime: {_stripped(program) / 1e3:,.0f} kB",
    ]
    starts = {
        "C++": (str(overhead), "first", str(resnet)),
        "Python": (sys.executable, "-c", _FIRST, str(resnet)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in starts}
    for turn in range(_RUNS + 1):  # one after the other; the first turn fills the page cache
        for name, command in starts.items():
            taken = wall_s(command)
            if turn:
                seconds[name].append(taken)
    for name, all_s in seconds.items():
        low, high = min(all_s), max(all_s)
        lines.append(
            f"start of a process to the first inference of {resnet.name}, {name}: "
            f"{statistics.median(all_s):.3f} s ({low:.3f} to {high:.3f}, {_RUNS} processes)"
        )
    image, spec = _photograph(out / "photograph.jpg"), read_manifest(resnet).preprocess
    (theirs,) = _answer(overhead, "preprocess", resnet, str(image))
    lines.append(
        f"a JPEG of 12 megapixels to {'x'.join(map(str, spec.shape))}, {_RUNS} times: "
        f"C++ {theirs:.1f} ms, Python with Pillow {_pillow_ms(image, spec):.1f} ms"
    )
    return lines


def _built(build: Path) -> tuple[Path, Path]:
    """The program that measures, and convexport-run."""
    options = ("-DCMAKE_BUILD_TYPE=Release", "-DCONVEXPORT_FIGURES=ON")
    for command in (
        ("cmake", "-S", str(_SOURCES), "-B", str(build), *options),
        ("cmake", "--build", str(build), "--target", "overhead", "convexport-run"),
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return build / "overhead", build / "convexport-run"


def _answer(program: Path, door: str, bundle: Path, word: str) -> list[float]:
    command = [str(program), door, str(bundle), word]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(number) for number in done.stdout.split()]


def _stripped(program: Path) -> int:
    """Bytes of a program without its symbols."""
    copy = program.with_suffix(".stripped")
    shutil.copyfile(program, copy)
    subprocess.run(["strip", str(copy)], check=True)
    return copy.stat().st_size


def _photograph(path: Path) -> Path:
    """A photograph that scikit-learn bundles, as large as a camera's."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    image = Image.fromarray(load_sample_image("china.jpg"))
    image.resize(_IMAGE, Image.Resampling.BICUBIC).save(path, quality=90)
    return path


def _pillow_ms(image: Path, spec: Preprocess) -> float:
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        preprocess(image, spec)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)
