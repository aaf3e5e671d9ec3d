"""What follows the first screen: latency, fidelity, layers. Conditions are in their own file."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from convexport.benchmarks.recording import Recording
from convexport.benchmarks.report.blocks import (
    Block,
    Figure,
    Missing,
    Section,
    Table,
    Words,
    interval,
    milliseconds,
)
from convexport.benchmarks.report.fidelity import fidelity
from convexport.benchmarks.report.headline import measure
from convexport.benchmarks.report.latency_plots import distributions, over_time, untraced
from convexport.benchmarks.report.layers import layer_blocks
from convexport.benchmarks.report.plots import by_batch, pareto
from convexport.benchmarks.report.verdict import accuracy_of, latency_of

_Data = Mapping[str, Any]


def sections(report: _Data) -> Iterator[Section]:
    """In the order of the page."""
    yield Section(
        "latency",
        "Latency",
        "Host to host: numpy in, numpy out. Models take turns in fresh processes, so that a drift "
        "of the machine falls on all of them.",
        tuple(_latency(report)),
    )
    yield Section(
        "fidelity",
        "Fidelity",
        "The shipped file against the reference: logits, decisions and labels, image by image.",
        tuple(fidelity(report)),
    )
    yield Section(
        "layers",
        "Layers",
        "Where the time goes and where the noise comes from.",
        tuple(layer_blocks(report)),
    )


def latencies(report: _Data) -> Iterator[tuple[str, _Data]]:
    """The measurements: one of all bundles side by side, or each bundle's own."""
    if isinstance(report["latency"], Mapping):
        yield "", report["latency"]
        return
    for bundle in report["bundles"]:
        if isinstance(bundle["latency"], Mapping):
            yield bundle["label"], bundle["latency"]


def latency_table(latency: _Data, label: str = "") -> Table:
    """Percentiles of a measurement; a value below its sample floor is not given."""
    rows = []
    for row in latency["subjects"]:
        found = row["percentiles_ms"]
        throughput, p50 = row["throughput"], found["p50"]
        rows.append(
            (
                row["label"],
                f"{row['n']:,}",
                milliseconds(p50["value"]),
                interval(p50["low"], p50["high"]),
                *(milliseconds(found[name]["value"]) for name in ("p90", "p95", "p99")),
                "n too small" if throughput is None else f"{throughput:,.1f}",
                milliseconds(row["first_inference_ms"]),
                milliseconds(row["load_ms"]),
            )
        )
    columns = ("model", "n", "p50", "95 % interval, ms", "p90", "p95", "p99", "images/s",
               "first call", "load")  # fmt: skip
    title = f"{label or 'Percentiles'}; loop: {latency['conditions']['loop']}"
    return Table(title, columns, tuple(rows))


def _latency(report: _Data) -> Iterator[Block]:
    timed = list(latencies(report))
    labels = " ".join(shlex.quote(each["label"]) for each in report["bundles"])
    if not timed:
        yield Missing("Latency", measure(report["bundles"][0]))
    elif timed[0][0] and len(report["bundles"]) > 1:
        yield Missing(
            "These bundles side by side, each was measured for itself: that",
            f"convexport report {labels} --measure",
        )
    for label, latency in timed:
        yield latency_table(latency, label)
        recording = Recording.from_dict(latency["recording"])
        yield from distributions(recording)
        yield from over_time(recording)
        why = untraced(recording)
        if why:
            command = measure(report["bundles"][0]) if why == "nobody looked" else ""
            yield Missing(f"Clock and temperature ({why})", command)
    if isinstance(report.get("regression"), list):
        yield _changes(report["regression"])
    found = picture(report)
    if found is None:
        yield Missing(
            "Accuracy against latency", f"convexport report {labels} --measure --data DIR"
        )
    elif len(report["bundles"]) == 1:  # of several it stands on the first screen
        yield found
    yield from _batches(report)


def _changes(found: list[_Data]) -> Table:
    """What the gate said of each bundle against a saved result."""
    rows = tuple(
        (
            each["label"],
            each["verdict"],
            "the same" if each["same_model"] else "another",
            "n too small" if each["ratio"] is None else f"{each['ratio']:.3f}",
            interval(each["low"], each["high"], ".3f"),
            f"{each['limit']:.3f}",
        )
        for each in found
    )
    columns = ("bundle", "verdict", "model file", "now / then", "95 % interval", "limit")
    return Table("Against what was saved before", columns, rows, texts=3)


def picture(report: _Data) -> Figure | None:
    """Accuracy against latency of all models with both; of several, those timed side by side."""
    models = list(_both(report))
    return pareto(models) if len(models) > 1 else None


def _both(report: _Data) -> Iterator[tuple[str, float, _Data]]:
    """Each bundle with both figures, and the baseline of those that were measured together."""
    seen = set()
    for bundle in report["bundles"]:
        timed, accuracy = latency_of(report, bundle), accuracy_of(bundle)
        if timed is None or accuracy is None:
            continue
        if len(report["bundles"]) > 1 and timed[0] is not report["latency"]:
            continue
        first, row = timed[0]["subjects"][0], timed[1]
        own = bundle["files"][bundle["reference"]]["sha256"]
        for each, share in ((first, accuracy["reference"]), (row, accuracy["actual"])):
            p50 = each["percentiles_ms"]["p50"]["value"]
            known = each is row or each["sha256"] == own
            key = (each["label"], p50)
            if p50 is not None and known and key not in seen:
                seen.add(key)
                yield bundle["label"] if each is row else each["label"], p50, share


def _batches(report: _Data) -> Iterator[Block]:
    batches = report.get("batches")
    if not isinstance(batches, Mapping) or not batches:
        command = measure(report["bundles"][0], " --batches 1,8,32")
        yield Missing("Throughput by batch", command)
        return
    lines = {
        label: [(row["batch"], row["throughput"]) for row in found["rows"]]
        for label, found in batches.items()
    }
    yield by_batch(lines)
    for label, found in batches.items():
        doubts = (*filter(None, [found.get("why")]), *found.get("reasons", ()))
        if doubts:
            yield Words(f"Batches of {label}", doubts)
