"""Fidelity, throughput and their trade as charts, each with a table of what it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convexport.benchmarks.report.blocks import Figure, Table, milliseconds
from convexport.benchmarks.report.charts import Axis, Chart


def differences(histogram: Mapping[str, Any]) -> Figure:
    """How far logits moved, on a logarithmic axis."""
    edges = [float(each) for each in histogram["edges"]]
    counts = [int(each) for each in histogram["counts"]]
    if edges[0] <= 0:
        edges[0] = edges[1] / 10
    filled = [index for index, count in enumerate(counts) if count] or [0]
    first, last = max(0, filled[0] - 1), min(len(counts), filled[-1] + 2)
    edges, counts = edges[first : last + 1], counts[first:last]
    total = sum(counts) or 1
    shares = [100 * count / total for count in counts]
    chart = Chart(
        "Histogram of differences",
        "How far the logits are from the reference's, as a share of its largest",
        Axis(edges[0], edges[-1], "difference / largest logit, logarithmic", log=True),
        Axis(0, max(max(shares) * 1.06, 1e-6), "logits, %"),
    )
    chart.steps(edges, shares, 1)
    rows = tuple(
        (f"{edges[i]:.2g} to {edges[i + 1]:.2g}", f"{counts[i]:,}") for i in range(len(counts))
    )
    data = Table("Logits by difference", ("difference", "logits"), rows)
    return Figure("How far logits moved", chart.svg(), data)


def by_batch(lines: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """Throughput against the batch.

    Args:
        lines: of each model batch and images per second, at least one.
    """
    batches = sorted({batch for line in lines.values() for batch, _ in line})
    top = max(rate for line in lines.values() for _, rate in line) * 1.08
    chart = Chart(
        "Throughput by batch",
        f"Images per second against images per call, of {', '.join(lines)}",
        Axis(batches[0] * 0.9, batches[-1] * 1.1, "batch, logarithmic", True, tuple(batches)),
        Axis(0, top, "images/s"),
    )
    for series, line in enumerate(lines.values(), 1):
        chart.line(sorted(line), series)
        for batch, rate in line:
            chart.dot(batch, rate, series)
    found = {label: dict(line) for label, line in lines.items()}
    rows = tuple(
        (str(batch), *(f"{line[batch]:,.1f}" if batch in line else "" for line in found.values()))
        for batch in batches
    )
    data = Table("Images per second", ("batch", *lines), rows)
    return Figure("Throughput by batch", chart.svg(), data, tuple(lines), first=1)


def pareto(points: Sequence[tuple[str, float, Mapping[str, Any]]]) -> Figure:
    """Accuracy against latency, with the front of those that nothing beats in both.

    Args:
        points: label, p50 in ms, top-1 as a counted share.
    """
    times = [each for _, each, _ in points]
    lows, highs = ([share[end] * 100 for _, _, share in points] for end in ("low", "high"))
    room = max(max(highs) - min(lows), 0.1) * 0.12
    chart = Chart(
        "Accuracy against latency",
        "Further left is faster, further up is more accurate; the line joins what nothing beats",
        Axis(0, max(times) * 1.15, "latency p50, ms"),
        Axis(min(lows) - room, min(100.0, max(highs) + room), "top-1, %"),
    )
    front, best = [], -1.0
    for _, time, share in sorted(points, key=lambda each: (each[1], -each[2]["share"])):
        if share["share"] > best:
            best = share["share"]
            front.append((time, best))
    chart.line([(time, 100 * share) for time, share in front], 1, kind="front")
    for series, (_, time, share) in enumerate(points):
        chart.upright(time, share["low"] * 100, share["high"] * 100, series)
        chart.dot(time, share["share"] * 100, series)
    on_front = ("yes" if (time, share["share"]) in front else "no" for _, time, share in points)
    rows = tuple(
        (label, milliseconds(time), f"{share['share']:.2%}", said)
        for (label, time, share), said in zip(points, on_front, strict=True)
    )
    data = Table("Accuracy and latency", ("model", "p50", "top-1", "on the front"), rows)
    labels = tuple(label for label, _, _ in points)
    note = "Whiskers: 95 % intervals."
    return Figure("Accuracy against latency", chart.svg(), data, labels, note)
