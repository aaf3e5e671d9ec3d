"""What a person reads of a verification besides its figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from convexport.benchmarks.shards import Shard
from convexport.benchmarks.verify import Verification
from convexport.exporter.console import line, table

_WORST = 5


def details(found: Verification) -> Iterator[Any]:
    """What changed, where it is worst, what was left out, and what is odd about it."""
    if found.accuracy is not None:
        only = found.accuracy
        yield line(
            f"right in the reference alone: {only.only_reference}, in this alone: "
            f"{only.only_actual} of {only.actual.n} (McNemar p {only.p_value:.2g}); a drop below "
            f"{only.margin_pp:g} points is {'shown' if only.non_inferior else 'not shown'}"
        )
    if found.changed:
        rows = [(f"{each['from']} → {each['to']}", each["count"]) for each in found.changed]
        yield table(("answers that changed", "images"), rows[:_WORST])
        far = [
            (each["image"], f"{each['expected']} → {each['actual']}", _error(each["error"]))
            for each in found.worst[:_WORST]
        ]
        yield table(("farthest from the reference", "answers", "logits off by"), far, texts=2)
    skipped = found.skipped
    if skipped["count"]:
        names = ", ".join(f"{each['image']} ({each['reason']})" for each in skipped["images"][:5])
        yield line(f"skipped {skipped['count']}/{skipped['of']} images: {names}", style="yellow")
    for warning in found.warnings:
        yield line(warning, style="yellow")


def shard_text(shard: Shard) -> Any:
    """One part of a verification for a terminal."""
    facts = shard.to_dict()
    return line(
        f"{facts['name']}: shard {facts['shard']}, {facts['images']} images counted and "
        f"{facts['skipped']} skipped of {facts['of']}\n"
        f"when all {shard.part[1]} are there: convexport merge FILE..."
    )


def _error(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3g}"
