"""``latency``: how long a call of each file takes, in the runtime that it is meant for.

Every sample comes from a fresh process that runs one file alone, by the meter of
``convexport.benchmarks``: one stream, host to host, decoded and preprocessed images. A round
visits all files in an order of its own; rounds are what a claim rests on.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from bench_setup import Setup, file_of
from nets import Net
from results import disturbance
from runners import RUNTIMES
from tools import UNQUANTIZED, Tool

from convexport.benchmarks.roofline import measured_peak, operations
from convexport.runtime.files import sha256_of


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long.

    Attributes:
        count: calibration images of the INT8 files.
        batches: images per call.
        threads: of the runtime.
        rounds: fresh processes of each file; a claim needs five.
        seconds: each file is measured, over all rounds together.
        tries: of a process that others disturbed; the calmest counts, whatever it measured.
    """

    count: int
    batches: Sequence[int]
    threads: Sequence[int]
    rounds: int
    seconds: float
    tries: int = 1


def latency(setup: Setup, nets: Iterable[Net], plan: Plan) -> None:
    """Time every file in each of its runtimes."""
    peaks = {threads: _peak(setup, threads) for threads in plan.threads}
    ready = [(net, [*_subjects(setup, net, plan.count)], operations(net.model)) for net in nets]
    # All cases once, then all once more: what cuts it short takes a round from each.
    for round_, (net, subjects, counted), batch, threads in product(
        range(plan.rounds), ready, plan.batches, plan.threads
    ):
        roof = {"operations": counted * batch, "int8_peak": peaks[threads]}
        place = {"net": net.name, "images": plan.count, "batch": batch, "threads": threads}
        order = list(subjects)
        random.Random(f"{net.name}/{batch}/{threads}/{round_}").shuffle(order)
        for tool, file, runtime in order:
            wanted = {"stage": "latency", "tool": tool.name, "runtime": runtime, **place}
            wanted["round"] = round_
            measure = partial(_measure, setup, net, file, plan, wanted)
            # What is wanted goes into the row, the roof too; the key is not changed by it.
            setup.measured({**wanted, **roof}, measure)


def _subjects(setup: Setup, net: Net, count: int) -> Iterable[tuple[Tool, Path, str]]:
    for tool in (*UNQUANTIZED, *setup.tools):
        if setup.made(net, tool, count)["status"] != "ok":
            setup.say(f"{net.name}: {tool.name} has no file; the stage `error` tells why")
            continue
        for runtime in tool.runtimes:
            yield tool, file_of(net, tool, count), runtime


def _peak(setup: Setup, threads: int) -> float:
    """Operations a second of the fastest INT8 matrix product."""
    wanted = {"stage": "peak", "threads": threads}
    row = setup.measured(
        wanted, lambda: {"status": "ok", **asdict(measured_peak("int8", threads=threads))}
    )
    return float(row["operations_per_s"])


def _measure(
    setup: Setup, net: Net, file: Path, plan: Plan, wanted: dict[str, Any]
) -> dict[str, Any]:
    share_s = plan.seconds / plan.rounds
    request = {
        "job": "latency",
        **{key: wanted[key] for key in ("runtime", "batch", "threads")},
        "model": str(file),
        "images": str(net.images("evaluation", max(plan.batches)).path),
        "measure": {"duration_s": share_s, "threads": wanted["threads"], "seed": wanted["round"]},
    }
    answers: list[dict[str, Any]] = []
    while len(answers) < plan.tries and (not answers or disturbance(answers[-1]) > 1):
        answers.append(setup.ask(request, foreign=RUNTIMES[wanted["runtime"]].foreign))
        if answers[-1]["status"] != "ok":
            break
    finished = [answer for answer in answers if answer["status"] == "ok"]
    # By who else ran alone: a choice by the latency would be a choice of the result.
    calmest = min(finished or answers, key=disturbance)
    return {"file_sha256": sha256_of(file), "tries": len(answers), **calmest}
