"""Latencies as charts, each with a table of what it shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from convexport.benchmarks.recording import ModelRun, Recording
from convexport.benchmarks.report.blocks import Figure, Table, milliseconds
from convexport.benchmarks.report.charts import WIDE, Axis, Box, Chart, round_ticks

_Floats = npt.NDArray[np.float64]

_BINS, _BUCKETS, _POINTS = 48, 60, 200
# The slowest are beyond the right edge of a chart: one that is a hundred times as slow as the
# rest would leave nothing else to see.
_SHOWN = 0.995
_LOG_FROM = 8
_TRACES = (
    ("clock_mhz", "CPU clock", "MHz", 1),
    ("temperature_c", "Temperature", "°C", 1),
    ("gpu_clock_mhz", "GPU clock", "MHz", 1),
    ("gpu_temperature_c", "GPU temperature", "°C", 1),
    ("gpu_power_w", "GPU power", "W", 1),
    ("others", "Other processes", "%", 100),
)


def distributions(recording: Recording) -> Iterator[Figure]:
    """Histogram and empirical distribution of all samples."""
    samples = {
        subject.label: np.concatenate(
            [run.models[subject.label].samples.ns for run in recording.runs]
        )
        / 1e6
        for subject in recording.subjects
    }
    low = min(each.min() for each in samples.values())
    high = max(float(np.quantile(each, _SHOWN)) for each in samples.values())
    if not high > low:
        high = low * 1.01 + 1e-6
    log = low > 0 and high / low > _LOG_FROM
    x = Axis(low, high, "latency, ms" + (", logarithmic" if log else ""), log)
    space = np.geomspace if log else np.linspace
    edges = space(low, high, _BINS + 1)
    beyond = ", ".join(f"{(each > high).mean():.1%} of {label}" for label, each in samples.items())
    legend = tuple(
        f"{label}: median {milliseconds(_quantile(each, 0.5))}" for label, each in samples.items()
    )
    yield _histogram(samples, edges, x, legend, beyond)
    yield _cumulative(samples, x, legend)


def _histogram(
    samples: Mapping[str, _Floats], edges: _Floats, x: Axis, legend: tuple[str, ...], beyond: str
) -> Figure:
    shares = {
        label: np.histogram(each, edges)[0] / len(each) * 100 for label, each in samples.items()
    }
    top = max(each.max() for each in shares.values()) * 1.06
    chart = Chart(
        "Histogram of latencies",
        f"How often a call took how long, of {', '.join(samples)}",
        x,
        Axis(0, top, "calls, %"),
    )
    for series, (label, heights) in enumerate(shares.items()):
        chart.steps(edges.tolist(), heights.tolist(), series)
        chart.upright(_quantile(samples[label], 0.5), 0, top, series, "median")
    rows = tuple(
        (f"{edges[i]:.4g} to {edges[i + 1]:.4g}", *(f"{each[i]:.2f}" for each in shares.values()))
        for i in range(len(edges) - 1)
    )
    data = Table("Share of calls, %", ("latency, ms", *samples), rows)
    return Figure("How long a call takes", chart.svg(), data, legend, f"Not shown: {beyond}.")


def _cumulative(samples: Mapping[str, _Floats], x: Axis, legend: tuple[str, ...]) -> Figure:
    chart = Chart(
        "Empirical distribution of latencies",
        f"The share of calls that took at most so long, of {', '.join(samples)}",
        x,
        Axis(0, 100, "calls, %", ticks=(0, 25, 50, 75, 90, 99)),
    )
    shares = np.linspace(0, 1, _POINTS)
    for series, each in enumerate(samples.values()):
        values = np.quantile(each, shares)
        inside = values <= x.high
        points = zip(values[inside].tolist(), (100 * shares[inside]).tolist(), strict=True)
        chart.line(list(points), series)
    marks = (1, 5, 25, 50, 75, 90, 95, 99)
    rows = tuple(
        (f"{mark} %", *(f"{_quantile(each, mark / 100):.4g}" for each in samples.values()))
        for mark in marks
    )
    data = Table("Latency in ms that so many calls do not exceed", ("calls", *samples), rows)
    return Figure("How many calls are done in time", chart.svg(), data, legend)


def over_time(recording: Recording) -> Iterator[Figure]:
    """Latency over the time of each process, and what the machine did meanwhile."""
    labels = [subject.label for subject in recording.subjects]
    moments = [{label: _moments(run.models[label]) for label in labels} for run in recording.runs]
    traces = [_trace(run) for run in recording.runs]
    lasted = [
        max([float(when[-1]) for when, _ in each.values()] + [max(trace.get("t_s") or [0.0])])
        for each, trace in zip(moments, traces, strict=True)
    ]
    starts = np.concatenate([[0.0], np.cumsum(lasted)])
    bands = [
        {label: _band(when + start, values) for label, (when, values) in each.items()}
        for each, start in zip(moments, starts, strict=False)
    ]
    tops = [band[3].tolist() for each in bands for band in each.values()]
    top = float(np.quantile(np.concatenate(tops), 0.98)) * 1.08
    x = Axis(0, float(starts[-1]), "seconds measured, process after process")
    chart = Chart(
        "Latency over time",
        "Median and the middle 90 % of the calls of a moment; a vertical line is a fresh process",
        x,
        Axis(0, top, "latency, ms"),
        WIDE,
    )
    for start in starts[1:-1]:
        chart.upright(float(start), 0, top, 0, "split")
    for each in bands:
        for series, (when, low, middle, high) in enumerate(each.values()):
            if len(when) == 1:
                chart.dot(float(when[0]), float(middle[0]), series)
                continue
            chart.band(_points(when, low), _points(when, high), series)
            chart.line(_points(when, middle), series)
    rows = tuple(
        (str(index + 1), *(f"{np.median(values):.4g}" for _, values in each.values()))
        for index, each in enumerate(moments)
    )
    data = Table("Median latency of each process, ms", ("process", *labels), rows)
    note = "Line: median of a moment. Band: the middle 90 % of its calls."
    yield Figure("Latency over time", chart.svg(), data, tuple(labels), note, wide=True)
    for what in _TRACES:
        yield from _traced(traces, starts, replace(x, label=""), what)


def untraced(recording: Recording) -> str:
    """Why clock and temperature cannot be shown: nobody looked, or the machine tells neither."""
    traces = [_trace(run) for run in recording.runs]
    if any(trace.get(key) for trace in traces for key, *_ in _TRACES if key != "others"):
        return ""
    return "this machine tells neither" if any(traces) else "nobody looked"


def _traced(
    traces: Sequence[Mapping[str, Any]], starts: _Floats, x: Axis, what: tuple[str, str, str, float]
) -> Iterator[Figure]:
    key, name, unit, factor = what
    runs = [
        [
            (float(start) + when, value * factor)
            for when, value in zip(trace["t_s"], trace[key], strict=False)
            if value is not None
        ]
        if trace.get(key)
        else []
        for trace, start in zip(traces, starts, strict=False)
    ]
    values = [value for run in runs for _, value in run]
    if not values:
        return
    room = max(max(values) - min(values), abs(max(values)) * 0.02, 0.5)
    low, high = max(0.0, min(values) - room * 0.15), max(values) + room * 0.15
    y = Axis(low, high, unit, ticks=round_ticks(low, high, 3))
    box = Box(width=960, height=110, bottom=26)
    chart = Chart(f"{name} over time, {unit}", "While latency was measured", x, y, box)
    for run in runs:
        if len(run) > 1:
            chart.line(run, 1)
    rows = tuple(
        (str(index + 1), *(f"{each:.5g}" for each in _range([value for _, value in run])))
        for index, run in enumerate(runs)
        if run
    )
    data = Table(f"{name}, {unit}", ("process", "lowest", "median", "highest"), rows)
    yield Figure(name, chart.svg(), data, wide=True)


def _range(values: Sequence[float]) -> tuple[float, float, float]:
    return min(values), float(np.median(values)), max(values)


def _trace(run: Any) -> Mapping[str, Any]:
    """What was sampled beside a process; recordings from before that have none."""
    trace = getattr(run, "trace", None)
    if trace is None:
        return {}
    return trace if isinstance(trace, Mapping) else dict(trace.to_dict())


def _moments(model: ModelRun) -> tuple[_Floats, _Floats]:
    """When each call ended, in seconds since the process began to measure, and its ms."""
    samples = model.samples
    ends = [
        start + np.cumsum(block)
        for start, block in zip(samples.block_starts_ns, samples.blocks(), strict=True)
    ]
    return np.concatenate(ends) / 1e9, samples.ns / 1e6


def _band(when: _Floats, values: _Floats) -> tuple[_Floats, _Floats, _Floats, _Floats]:
    """Of at most _BUCKETS moments: when, 5 %, median, 95 %; slow calls are moments of their own."""
    count = min(_BUCKETS, max(len(when) // 20, min(len(when), 20)))
    groups = np.array_split(np.arange(len(when)), count)
    found = [
        (float(when[group].mean()), *np.quantile(values[group], (0.05, 0.5, 0.95)))
        for group in groups
    ]
    columns = np.array(found, dtype=np.float64).T
    return columns[0], columns[1], columns[2], columns[3]


def _quantile(values: _Floats, share: float) -> float:
    """A sample, as the percentiles of a benchmark are."""
    return float(np.quantile(values, share, method="inverted_cdf"))


def _points(x: _Floats, y: _Floats) -> list[tuple[float, float]]:
    return list(zip(x.tolist(), y.tolist(), strict=True))
