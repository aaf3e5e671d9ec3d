"""``calibrate``: what each tool's calibration costs, beside the forward passes alone."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from arrays import batches
from bench_setup import Setup
from nets import Net
from tools import PLAIN, Tool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How often.

    Attributes:
        counts: numbers of images.
        batch: images per forward pass, of all tools alike.
        rounds: at most.
        patience_s: a tool that has taken longer altogether has no further round.
    """

    counts: Sequence[int]
    batch: int
    rounds: int
    patience_s: float


def calibrate(setup: Setup, nets: Iterable[Net], plan: Plan) -> None:
    """Time and peak memory of every tool for every net and number of images.

    A round runs the plain pass and every tool once, each in a fresh process, in an order of its
    own. A tool that has failed has no further rounds either.
    """
    for net in nets:
        for count in plan.counts:
            for round_ in range(plan.rounds):
                rows = setup.results.rows("calibrate")
                mine = [row for row in rows if (row["net"], row["images"]) == (net.name, count)]
                ready = [tool for tool in setup.tools if _goes_on(mine, tool, round_, plan)]
                order = [PLAIN, *ready] if ready else []
                random.Random(f"{net.name}/{count}/{round_}").shuffle(order)
                for tool in order:
                    _measure(setup, net, tool, count, plan.batch, round_)


def _goes_on(rows: Sequence[dict[str, Any]], tool: Tool, round_: int, plan: Plan) -> bool:
    before = [row for row in rows if row["tool"] == tool.name and row["round"] < round_]
    spent = sum(float(row.get("wall_s", 0)) for row in before)
    return spent <= plan.patience_s and sum(row["status"] == "ok" for row in before) == round_


def _measure(setup: Setup, net: Net, tool: Tool, count: int, batch: int, round_: int) -> None:
    def measure() -> dict[str, Any]:
        images = net.images("calibration", count)
        for _ in batches(images.path, images.count, 64):
            pass  # whoever comes first shall not read from the disk for the others
        return {"batch": batch, **setup.quantize(net, tool, count, batch)}

    wanted = {"stage": "calibrate", "net": net.name, "images": count, "tool": tool.name}
    setup.measured({**wanted, "round": round_}, measure)
