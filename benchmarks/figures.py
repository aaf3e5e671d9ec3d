"""The project's own figures: start-up, the main job, digits, largest nets, the meter's, a report.

    python -m convexport.benchmarks.figures NAME... [--out DIR] [--net N]

    startup build largest               of the build
    digits hostile                      of INT8 on images with labels
    interval repeatability overhead     of the meter: what it reads again, and what it costs
    report                              time to write and size of a report
    cpp                                 of the C++ library
    paper                               least times on GPUs that are not here, by data sheets

Everything runs through the command line in fresh processes, as a user would run it. Each figure
is printed with its conditions. The parity of all variants is the sweep's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convexport.benchmarks.host import describe_host

_RUNS = 11
CLI = (sys.executable, "-m", "convexport")
_LARGEST = ("vgg19", "efficientnet_b7", "resnet1202_cifar")


@dataclass(frozen=True)
class Finished:
    """A process that ended: wall seconds, peak resident memory in MB, stdout and stderr."""

    code: int
    seconds: float
    peak_mb: float
    output: str
    errors: str


def run(command: Sequence[str]) -> Finished:
    """Run a command to its end."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        pid = os.posix_spawn(
            command[0],
            list(command),
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, out.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, errors.fileno(), 2),
            ],
        )
        _, status, usage = os.wait4(pid, 0)
        seconds = time.perf_counter() - start
        for file in (out, errors):
            file.seek(0)
        texts = [file.read().decode(errors="replace") for file in (out, errors)]
    # Linux counts ru_maxrss in KiB, of the process itself and of those that it waited for.
    peak_mb = usage.ru_maxrss * 1024 / 1e6
    return Finished(os.waitstatus_to_exitcode(status), seconds, peak_mb, *texts)


def succeeded(done: Finished, what: str) -> Finished:
    """What ran to its end without an error.

    Raises:
        SystemExit: it did not; with its reason.
    """
    if done.code != 0:
        raise SystemExit(f"{what}: {reason(done)}")
    return done


def reason(done: Finished) -> str:
    """The error in one line, as the command line gave it; else the last line of stderr."""
    lines = done.errors.splitlines()
    for line in reversed(lines):
        if line.startswith('{"error"'):
            error = json.loads(line)["error"]
            return f"{error['code']} {error['what']}"
    return ": ".join([f"exit code {done.code}", *lines[-1:]])


def startup(out: Path, nets: Sequence[str]) -> list[str]:
    """Wall time of what a user waits for before anything happens."""
    commands = {
        "python -c pass": (sys.executable, "-c", "pass"),
        "import convexport": (sys.executable, "-c", "import convexport"),
        "import convexport.runtime.engine": (
            sys.executable,
            "-c",
            "import convexport.runtime.engine",
        ),
        "convexport --help": (*CLI, "--help"),
    }
    lines = []
    for name, command in commands.items():
        run(command)  # the first one fills the page cache
        times = sorted(run(command).seconds for _ in range(_RUNS))
        low, median, high = times[0], statistics.median(times), times[-1]
        lines.append(f"{name:<34} {median:.3f} s  ({low:.3f}–{high:.3f}, n={_RUNS})")
    return lines


def build(out: Path, nets: Sequence[str]) -> list[str]:
    """The main job with an empty cache, again over a cache, and again over the bundle."""
    options = ("--int8", "--weights", "random", "--calib-images", "128", "--json", "--offline")
    bundle, cache = out / "resnet50-int8-cpu", out / "cache"
    command = (*CLI, "build", "resnet50", *options, "-o", str(bundle), "--cache-dir", str(cache))
    cold = succeeded(run(command), "build")
    again = succeeded(run(command), "build again")
    bundle.rename(out / "aside")
    cached = succeeded(run(command), "build from cache")
    stages = json.loads(cold.output)["report"]["stages"]
    split = ", ".join(f"{stage['name']} {stage['seconds']:.1f}" for stage in stages)
    return [
        f"empty cache           {cold.seconds:6.1f} s, peak {cold.peak_mb:.0f} MB",
        f"  by stage, s: {split}",
        f"bundle stands there   {again.seconds:6.1f} s, peak {again.peak_mb:.0f} MB",
        f"everything in cache   {cached.seconds:6.1f} s, peak {cached.peak_mb:.0f} MB",
    ]


def digits(out: Path, nets: Sequence[str]) -> list[str]:
    """Top-1 of the digits nets on the test split, FP32 reference and INT8, paired."""
    from convexport.benchmarks.digits_figures import digits as measured

    return measured(out, nets)


def hostile(out: Path, nets: Sequence[str]) -> list[str]:
    """The same of nets with channels of very different size, without repair and with."""
    from convexport.benchmarks.digits_figures import hostile as measured

    return measured(out, nets)


# What a user's own process would do; it prints the seconds of each step.
_LARGEST_STEPS = """
import sys, time
import torch
import onnx_ir
from convexport.architectures.registry import create, find
from convexport.exporter.to_onnx import onnx_from_module
clock = [time.perf_counter()]
module = create(sys.argv[1]).eval()
clock.append(time.perf_counter())
model = onnx_from_module(module, find(sys.argv[1]).input, opset=18, metadata={})
clock.append(time.perf_counter())
print(clock[1] - clock[0], clock[2] - clock[1], len(model.graph))
"""


def largest(out: Path, nets: Sequence[str]) -> list[str]:
    """Time and peak memory of creating and exporting the largest nets, imports not counted."""
    lines = []
    for name in nets or _LARGEST:
        done = succeeded(run((sys.executable, "-c", _LARGEST_STEPS, name)), name)
        created, exported, nodes = done.output.split()
        lines.append(
            f"{name:<18} create {float(created):5.1f} s, export {float(exported):6.1f} s, "
            f"{nodes} nodes, peak {done.peak_mb:,.0f} MB"
        )
    return lines


def interval(out: Path, nets: Sequence[str]) -> list[str]:
    """How wide the 95 % interval of p50 is after 10 s, on the machine as it is and all busy."""
    from convexport.benchmarks.meter_figures import interval as measured

    return measured(out, nets)


def repeatability(out: Path, nets: Sequence[str]) -> list[str]:
    """p50 and p99 of separate runs of the whole benchmark, and how far they lie apart."""
    from convexport.benchmarks.meter_figures import repeatability as measured

    return measured(out, nets)


def overhead(out: Path, nets: Sequence[str]) -> list[str]:
    """What the meter reads for a call that does nothing, and what watching the machine takes."""
    from convexport.benchmarks.meter_figures import overhead as measured

    return measured(out, nets)


def report(out: Path, nets: Sequence[str]) -> list[str]:
    """Time to write and size of a report of a build with five processes and 10 s a model."""
    from convexport.benchmarks.report.figures import report as measured

    return measured(out, nets)


def cpp(out: Path, nets: Sequence[str]) -> list[str]:
    """What the C++ library costs, beside the bare C API and beside Python."""
    from convexport.benchmarks.cpp_figures import cpp_figures

    bundles = {"lenet5": ("digits", "--fp32"), "resnet50": ("random", "--int8")}
    for name, (weights, precision) in bundles.items():
        options = (precision, "--weights", weights, "--bench-seconds", "0", "--offline", "--force")
        places = ("-o", str(out / name), "--cache-dir", str(out / "cache"))
        succeeded(run((*CLI, "build", name, *options, *places)), name)

    def wall_s(command: Sequence[str]) -> float:
        return succeeded(run(command), command[0]).seconds

    return cpp_figures(out, out / "lenet5", out / "resnet50", wall_s)


def paper(out: Path, nets: Sequence[str]) -> list[str]:
    """The least time on GPUs, from counted operations and data sheets: bounds, not measurements."""
    from convexport.benchmarks.paper_roofline import DEVICES, told

    lines = [f"{each.name}: {each.source}" for each in DEVICES]
    for name in nets or ["resnet50"]:
        options = ("--weights", "random", "--bench-seconds", "0", "--offline", "-o")
        succeeded(run((*CLI, "build", name, *options, str(out / name))), name)
        lines += told(name, out / name / "reference.onnx")
    return lines


FIGURES: dict[str, Callable[[Path, Sequence[str]], list[str]]] = {
    figure.__name__: figure
    for figure in (
        *(startup, build, digits, hostile, largest),
        *(interval, repeatability, overhead, report, cpp, paper),
    )
}


def main() -> None:
    """Measure what was asked for and print it with its conditions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("figures", nargs="+", choices=FIGURES)
    parser.add_argument("--out", type=Path, help="where bundles go; a temporary directory if not")
    parser.add_argument(
        "--net",
        action="append",
        default=[],
        help="only this net, of those figures that are of several; overhead takes the first one",
    )
    arguments = parser.parse_args()
    host = describe_host()
    print(json.dumps({"host": host}, indent=2))
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.figures:
            print(f"\n{name}")
            place = (arguments.out or Path(scratch)) / name
            place.mkdir(parents=True, exist_ok=True)
            print("\n".join(FIGURES[name](place, arguments.net)), flush=True)


if __name__ == "__main__":
    main()
