"""``limits``: where the time of a bundle goes, and how near it is to what the machine can do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from convexport.exporter.commands import BUNDLE, JSON, print_result


@click.command()
@BUNDLE
@click.option("--threads", type=click.IntRange(1), help="Default: as many as there are CPUs.")
@click.option("--seconds", type=float, default=1.0, show_default=True, help="For each roof.")
@click.option("--top", type=click.IntRange(1), default=20, show_default=True, help="Rows shown.")
@JSON
def limits(bundle: Path, threads: int | None, seconds: float, top: int, as_json: bool) -> None:
    """Each layer's time, and how much of the machine's measured limit it reaches."""
    from convexport.benchmarks.limits import Roof, layers
    from convexport.exporter.console import ConsoleEvents

    events = ConsoleEvents()
    events.start("limits")
    events.detail("layers, the fastest products, the fastest copies")
    try:
        found = layers(bundle, Roof(threads or 0, seconds))
    finally:
        events.close()
    print_result(as_json, found, lambda: _text(found, top))


def _text(found: Mapping[str, Any], top: int) -> Any:
    from rich.console import Group

    from convexport.exporter.console import line, table

    conditions, rows = found["conditions"], found["layers"]
    head = (
        f"{found['name']}: {found['ms']:.3g} ms a pass, the roof is at {found['roof_ms']:.3g} ms: "
        f"{found['fraction']:.1%} of the machine's limit"
    )
    names = (f"the {min(top, len(rows))} slowest of {len(rows)}", "operator", "in", "ms", "share",
             "Mops", "kB", "held by", "of its limit")  # fmt: skip
    cells = [
        (each["name"], each["op"], each["precision"], f"{each['ms']:.3f}", f"{each['share']:.1%}",
         f"{each['ops'] / 1e6:.3g}", f"{each['bytes'] / 1e3:.3g}", each["bound"],
         "" if each["fraction"] is None else f"{each['fraction']:.1%}")
        for each in rows[:top]
    ]  # fmt: skip
    peaks = ", ".join(
        f"{each['operations_per_s'] / 1e9:.0f} Gop/s in {each['precision']} ({each['runtime']})"
        for each in found["peaks"]
    )
    tail = (
        f"measured here: {peaks}; {found['peak_bytes_per_s'] / 1e9:.1f} GB/s from and to memory\n"
        f"batch {conditions['batch']}, {conditions['threads']} threads, {conditions['runtime']}, "
        f"medians of {conditions['runs']} passes, {conditions['host'].get('cpu')}"
    )
    notes = (line(each, style="yellow") for each in found["notes"])
    return Group(line(head), line(""), table(names, cells, texts=3), line(""), line(tail), *notes)
