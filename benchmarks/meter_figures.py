"""The meter's own figures: what it reads again, how wide its intervals are, and what it costs."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from convexport.benchmarks.figures import CLI, run, succeeded

_RUNS_OF_BENCH = 5
_MEASURED = ("mobilenet_v1_025", "resnet20_cifar")
# The child spins in a thread of its own and ends when its input does, so also when we are killed.
_SPIN = """
import os, sys, threading
def spin():
    while True:
        pass
os.sched_setaffinity(0, {int(sys.argv[1])})
threading.Thread(target=spin, daemon=True).start()
sys.stdin.read()
"""


@contextmanager
def every_core_busy() -> Iterator[None]:
    """Keep each core that this process may use busy, until the block ends or this process does."""
    with ExitStack() as children:
        for core in os.sched_getaffinity(0):
            command = (sys.executable, "-c", _SPIN, str(core))
            child = children.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE))
            children.callback(child.kill)
        yield


def interval(out: Path, nets: Sequence[str]) -> list[str]:
    """How wide the 95 % interval of p50 is after 10 s, from samples and from whole blocks.

    Once on the machine as it is, once with a process that computes on every core.
    """
    lines = []
    for name, machine in itertools.product(nets or _MEASURED, ("as it is", "all busy")):
        bundle = _bundle(name, out)
        with every_core_busy() if machine == "all busy" else nullcontext():
            latency = _bench(bundle)
        for each in latency["subjects"]:
            p50, drawn = each["percentiles_ms"]["p50"], each["median_bootstrap_ms"]
            widths = ((p50["low"], p50["high"]), drawn or (None, None))
            told = [
                "none" if low is None else f"±{(high - low) / 2 / p50['value']:.2%}"
                for low, high in widths
            ]
            lines.append(
                f"{name:<18} {machine} {each['label']:<18} p50 {p50['value']:.4g} ms {told[0]}, "
                f"of blocks {told[1]}, n={each['n']}, {latency['verdict']}"
            )
        lines += [f"  {reason}" for reason in latency["reasons"]]
    return lines


def repeatability(out: Path, nets: Sequence[str]) -> list[str]:
    """p50 and p99 of separate runs of the whole benchmark, and how far they lie apart."""
    lines = []
    for name in nets or _MEASURED:
        bundle = _bundle(name, out)
        runs = [_bench(bundle) for _ in range(_RUNS_OF_BENCH)]
        for index, subject in enumerate(runs[0]["subjects"]):
            for percent in ("p50", "p99"):
                rows = [run["subjects"][index]["percentiles_ms"][percent]["value"] for run in runs]
                values = [value for value in rows if value is not None]
                told = ", ".join(f"{value:.4g}" for value in values) or "n too small"
                apart = f", {max(values) / min(values) - 1:.1%} apart" if values else ""
                lines.append(f"{name:<18} {subject['label']:<18} {percent} {told} ms{apart}")
        verdicts = [run["verdict"] for run in runs]
        lines.append(f"  VALID {verdicts.count('VALID')}/{len(runs)}")
    return lines


def overhead(out: Path, nets: Sequence[str]) -> list[str]:
    """What the meter reads for a call that does nothing, and what watching the machine takes."""
    latency = _bench(_bundle((nets or _MEASURED)[0], out))
    runs = latency["recording"]["runs"]
    floors, costs = ([run["floor_ns"] for run in runs], [run["trace"]["cost"] for run in runs])
    return [
        f"an empty call: median {statistics.median(floors):.0f} ns "
        f"({min(floors):.0f}–{max(floors):.0f}, {len(floors)} processes)",
        f"watching the machine: {statistics.median(costs):.2%} of a core "
        f"({min(costs):.2%}–{max(costs):.2%})",
    ]


def _bundle(name: str, out: Path) -> Path:
    bundle = out / name
    options = ("--int8", "--weights", "digits", "--bench-seconds", "0", "--json", "--offline")
    places = ("-o", str(bundle), "--cache-dir", str(out / "cache"))
    succeeded(run((*CLI, "build", name, *options, *places)), name)
    return bundle


def _bench(bundle: Path) -> dict[str, Any]:
    done = succeeded(run((*CLI, "bench", str(bundle), "--json")), bundle.name)
    latency: dict[str, Any] = json.loads(done.output)["latency"]
    return latency
