"""``bench``: latency, scenarios, parts, soak and a gate against slowing down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convexport.exporter.commands import JSON, print_result, share
from convexport.runtime.errors import UsageError
from convexport.runtime.files import json_bytes, write_atomically

if TYPE_CHECKING:
    from convexport.benchmarks.compare_bundles import Extras
    from convexport.benchmarks.latency import LatencyOptions
    from convexport.benchmarks.regression import Change

_OF_SCENARIO = {"qps": "server", "bound_ms": "server", "samples_per_query": "multi-stream"}
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """``30m``, ``90s`` or ``1h`` → seconds."""
    if value is None:
        return None
    try:
        seconds = float(value[:-1]) * _UNITS[value[-1]]
        if not 0 < seconds < float("inf"):
            raise ValueError
    except (IndexError, KeyError, ValueError):
        raise click.BadParameter(f"{value!r} is not of the form 30m, 90s or 1h") from None
    return seconds


def whole_numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """``1,8,32`` → (1, 8, 32)."""
    parts = [] if value is None else [part.strip() for part in value.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"{value!r} is not of the form 1,8,32")
    return tuple(dict.fromkeys(map(int, parts)))


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="Baseline: a bundle, an .onnx file, torch or torch.compile.",
)
@click.option("--seconds", type=float, default=10.0, show_default=True, help="For each model.")
@click.option("--processes", type=int, default=5, show_default=True, help="Fresh processes.")
@click.option("--batch", type=int, help="Images a call.  [default: what a bundle insists on, or 1]")
@click.option("--threads", type=int, help="Default: as many as there are cores.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order and the noise.")
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    help="single-stream, multi-stream, server or offline; as often as you like.",
)
@click.option("--qps", type=float, help="server: requests a second.  [default: the most that hold]")
@click.option("--bound-ms", type=float, help="server: what its p99 must not exceed.")
@click.option("--samples-per-query", type=int, help="multi-stream: images each.  [default: 8]")
@click.option("--parts", is_flag=True, help="Also decoding, preprocessing and the rest, apart.")
@click.option(
    "--soak", metavar="30m", callback=duration, help="Also one long run; its first and last minute."
)
@click.option(
    "--batches",
    metavar="1,8,32",
    callback=whole_numbers,
    help="Also batch against throughput; offline tries these.",
)
@click.option("--baseline", type=click.Path(path_type=Path), help="Compare with what --save wrote.")
@click.option(
    "--max-slowdown",
    metavar="SHARE",
    callback=share,
    help="With --baseline: exit code 5 beyond it.  [default: 5%]",
)
@click.option("--save", type=click.Path(path_type=Path), help="Write everything as JSON.")
@JSON
def bench(bundles: tuple[Path, ...], against: Path | None, as_json: bool, **given: Any) -> None:
    """Latency of bundles on this machine, interleaved with a baseline in fresh processes.

    The baseline is --against, or else the first bundle's own FP32 reference."""
    from convexport.benchmarks import regression
    from convexport.benchmarks.bundle_subjects import batch_for, read_bundles
    from convexport.benchmarks.compare_bundles import compare_bundles
    from convexport.benchmarks.latency import machine
    from convexport.exporter import bench_summary
    from convexport.exporter.console import ConsoleEvents
    from convexport.exporter.options import default_cache

    options, extras = _options(given), extras_of(given)
    if given["max_slowdown"] is not None and given["baseline"] is None:
        raise UsageError("E0284", "--max-slowdown is for --baseline", hint="add --baseline FILE")
    _require_place(given["save"])
    manifests = read_bundles(bundles)
    options = replace(options, batch=batch_for(manifests, given["batch"]))
    labels, then = list(manifests), None
    limit = 0.05 if given["max_slowdown"] is None else given["max_slowdown"]
    if given["baseline"] is not None:
        then = regression.read_baseline(given["baseline"])
        regression.require_limit(limit)
        providers = [each.provider for each in manifests.values()]
        regression.require_comparable(then, labels, options, machine(providers))
    events = ConsoleEvents()
    events.start("bench")
    try:
        result = compare_bundles(
            bundles, against, options, extras, cache_dir=default_cache(), report=events.detail
        )
    finally:
        events.close()
    found: list[Change] = []
    try:
        if then is not None:
            found = regression.changes(then, result.latency, labels, limit)
    finally:  # whatever becomes of the gate, what took minutes to measure is shown and kept
        data = {**result.to_dict(), "regression": [each.to_dict() for each in found]}
        if given["save"] is not None:  # first: whoever reads may have hung up
            write_atomically(given["save"], json_bytes(data))
        print_result(as_json, data, lambda: bench_summary.as_text(result, found))
    regression.require_not_slower(found)
    for error in result.failed.values():
        raise error


def _require_place(save: Path | None) -> None:
    """Refuse before minutes are spent on what could not be kept."""
    if save is not None and (save.is_dir() or not os.access(save.absolute().parent, os.W_OK)):
        raise UsageError(
            "E0292",
            f"nothing can be saved as {save}",
            why="it is a directory, or it is in none that can be written to",
            hint="name a file in a directory of yours",
        )


def _options(given: dict[str, Any]) -> LatencyOptions:
    from convexport.benchmarks.latency import LatencyOptions

    names = ("processes", "batch", "seed", "threads")
    chosen = {name: given[name] for name in names if given[name] is not None}
    return LatencyOptions(duration_s=given["seconds"], **chosen)


def extras_of(given: Mapping[str, Any]) -> Extras:
    """What the options ask for beside latencies; ``report --measure`` has them, too."""
    from convexport.benchmarks.compare_bundles import Extras
    from convexport.benchmarks.scenarios import Scenario

    fields: dict[str, dict[str, Any]] = {name: {} for name in given["scenarios"]}
    for option, name in _OF_SCENARIO.items():
        if given[option] is None:
            continue
        if name not in fields:
            flag = f"--{option.replace('_', '-')}"
            hint = f"add it, or leave {flag} out"
            raise UsageError("E0284", f"{flag} is for --scenario {name}", hint=hint)
        fields[name][option] = given[option]
    if given["batches"] and "offline" in fields:
        fields["offline"]["batches"] = given["batches"]
    return Extras(
        scenarios=tuple(Scenario(name=name, **chosen) for name, chosen in fields.items()),
        parts=given["parts"],
        soak_s=given["soak"],
        batches=given["batches"],
    )
