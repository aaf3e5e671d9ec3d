"""The rows in Markdown, each number with its interval, each failure with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
from results import TAKERS, Results, Row, disturbance
from tools import ONNX, PEERS, PLAIN, UNQUANTIZED, ours

from convexport.benchmarks.samples import Samples
from convexport.benchmarks.statistics import percentile, ratio_of_medians


def write_tables(results: Results) -> str:
    """Everything that was measured, stage by stage."""
    stages = {name: results.rows(name) for name in _TABLES}
    errors = {_file(row): row for row in stages["error"] if row["status"] == "ok"}
    stages["latency"] = [{**row, "error": errors.get(_file(row))} for row in stages["latency"]]
    lines = ["# Side by side with other tools", "", "Written by `compare.py table`; do not edit."]
    lines += [line for name, rows in stages.items() if rows for line in _stage(name, rows)]
    every = [row for rows in stages.values() for row in rows]
    return "\n".join([*lines, *_legend(every)]) + "\n"


def _stage(name: str, rows: Sequence[Row]) -> Iterator[str]:
    title, head, table = _TABLES[name]
    yield from ("", f"## {title}", "", *_conditions(rows), "")
    columns = head.split(" | ")
    yield f"| {head} |"
    yield "|" + "|".join("--:" if column.endswith(":") else "---" for column in columns) + "|"
    for cells in table(sorted(rows, key=_place)):
        yield f"| {' | '.join((*cells, *[''] * (len(columns) - len(cells))))} |"


def _place(row: Row) -> tuple[Any, ...]:
    """Where a row stands: convexport before the others, and these as they are listed."""
    names = [PLAIN.name, *(tool.name for tool in UNQUANTIZED), "", *(tool.name for tool in PEERS)]
    rank = names.index(row["tool"] if row["tool"] in names else "")
    case = (row["images"], row.get("batch", 0), row.get("threads", 0))
    return row["net"], *case, rank, row["tool"], row.get("runtime", "")


def _file(row: Row) -> tuple[Any, ...]:
    """A file in a runtime: what has been said about another file of that name does not count."""
    names = ("net", "images", "tool", "runtime", "file_sha256")
    return tuple(row.get(name) for name in names)


def _conditions(rows: Sequence[Row]) -> Iterator[str]:
    dates = sorted({row["date"] for row in rows})
    hosts = {f"{row['host']['cpu']}, {row['host']['cpus']} cores" for row in rows}
    versions: dict[str, set[str]] = {}
    for row in rows:
        for package, version in row.get("versions", {}).items():
            versions.setdefault(package, set()).add(version)
    packages = [f"{name} {' and '.join(sorted(versions[name]))}" for name in sorted(versions)]
    days = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    yield "; ".join([days, *sorted(hosts), *packages]) + "."
    loads = [row["load"] for row in rows if row.get("load")]
    for name, (who, limit) in TAKERS.items():
        shares = [load[name] for load in loads if load.get(name) is not None]
        busy = sum(share > limit for share in shares)
        if busy:
            yield (
                f"UNSTABLE: in {busy} of {len(shares)} runs {who} took more than "
                f"{limit:.0%} of the CPUs, up to {max(shares):.0%}."
            )
    tries = [row["tries"] for row in rows if "tries" in row]
    if sum(tries) > len(tries):
        yield (
            f"{len(tries)} of the processes are the calmest of up to {max(tries)} tries each, "
            f"{sum(tries)} in all: one that others disturbed was measured again."
        )


def _grouped(rows: Sequence[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def _calibrations(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    groups = _grouped(rows, "net", "images", "tool")
    for (net, images, tool), mine in groups.items():
        whole = [row for row in mine if row["status"] == "ok"]
        if not whole:
            yield net, str(images), tool, _failure(mine[-1])
            continue
        seconds = [row["seconds"] for row in whole]
        plain = {row["round"]: row for row in groups.get((net, images, PLAIN.name), [])}
        pairs = [
            (row["seconds"], plain[row["round"]]["seconds"])
            for row in whole
            if plain.get(row["round"], {}).get("status") == "ok"
        ]
        peaks = [row["peak_bytes"] / 1e6 for row in whole]
        spread = f"{median(seconds):.1f} ({min(seconds):.1f}–{max(seconds):.1f})"
        times = "1" if tool == PLAIN.name else _times(pairs)
        yield net, str(images), tool, spread, times, f"{max(peaks):,.0f}", str(len(whole))


def _times(pairs: Sequence[tuple[float, float]]) -> str:
    if not pairs:
        return "not measured"
    ratio = ratio_of_medians(*zip(*pairs, strict=True))
    interval = f" ({ratio.low:.2f}–{ratio.high:.2f})" if ratio.low and ratio.high else ""
    return f"{ratio.value:.2f}{interval}"


def _errors(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        place = row["net"], str(row["images"]), row["tool"], row["runtime"]
        if row["status"] != "ok":
            yield *place, _failure(row)
            continue
        first = row["tool"] == row["against"]
        top1 = row["top1"]
        agreement = f"{top1['k']}/{top1['n']} ({top1['low']:.1%}–{top1['high']:.1%})"
        gains = ("", "") if first else (_signed(row["gain_db"]), _signed(row["gain_pp"]))
        decibels = _interval(row["snr_db"]), gains[0], _interval(row["median_db"])
        yield *place, *decibels, agreement, gains[1]


def _interval(value: Mapping[str, float | None]) -> str:
    if None in value.values():
        return "no noise"
    return f"{value['value']:.1f} ({value['low']:.1f}–{value['high']:.1f})"


def _signed(value: Mapping[str, float | None]) -> str:
    if value["value"] is None:
        return "no noise"
    # Adding nothing makes of minus zero a plain one.
    whole, low, high = (float(value[name] or 0) + 0.0 for name in ("value", "low", "high"))
    return f"{whole:+.1f} ({low:+.1f} to {high:+.1f})"


def _latencies(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    groups = _grouped(rows, "net", "images", "batch", "threads", "tool", "runtime")
    for key, mine in groups.items():
        net, _, batch, threads, tool, runtime = key
        place = net, str(batch), str(threads), tool, runtime
        medians = _medians(mine)
        if not medians:
            yield *place, _failure(mine[-1])
            continue
        samples = np.concatenate([_milliseconds(row) for row in mine if row["status"] == "ok"])
        p50 = percentile(samples, 50)
        value = p50.note if p50.value is None else f"{p50.value:.2f} ({p50.low:.2f}–{p50.high:.2f})"
        base = _medians(groups.get((*key[:4], ONNX.name, ONNX.runtimes[0]), []))
        pairs = [(base[round_], medians[round_]) for round_ in medians if round_ in base]
        baseline = (tool, runtime) == (ONNX.name, ONNX.runtimes[0])
        spread = f"{min(medians.values()):.2f}–{max(medians.values()):.2f}"
        faster = "baseline" if baseline else _times(pairs)
        reached = _share(mine[-1], p50.value)
        disturbed = sum(disturbance(row) > 1 for row in mine)
        counted = str(len(samples)), str(len(medians)), str(disturbed)
        parity = ("reference", "") if baseline else _parity(mine[-1]["error"])
        yield *place, value, spread, faster, *parity, reached, *counted


def _parity(error: Row | None) -> tuple[str, str]:
    if error is None:
        return "not measured", "not measured"
    return _interval(error["snr_db"]), f"{error['top1']['k']}/{error['top1']['n']}"


def _share(row: Row, p50: float | None) -> str:
    """Operations a second against those of the fastest INT8 matrix product."""
    if p50 is None or "int8_peak" not in row:
        return "not measured"
    return f"{row['operations'] / p50 * 1e3 / row['int8_peak']:.0%}"


def _medians(rows: Iterable[Row]) -> dict[int, float]:
    whole = (row for row in rows if row["status"] == "ok")
    return {row["round"]: float(np.median(_milliseconds(row))) for row in whole}


def _milliseconds(row: Row) -> np.ndarray:
    return Samples.from_dict(row["samples"]).ns / 1e6


def _failure(row: Row) -> str:
    return f"{row['status']}: {row.get('why', '')}".replace("|", "/").replace("\n", " ")[:160]


def _legend(rows: Sequence[Row]) -> Iterator[str]:
    names = {row["tool"] for row in rows}
    known = [PLAIN, *UNQUANTIZED, *PEERS]
    known += [ours(name.partition("-")[2]) for name in sorted(names) if name.startswith("convexp")]
    yield from ("", "## The tools", "")
    yield from (f"- `{tool.name}`: {tool.about}" for tool in known if tool.name in names)


_Table = Callable[[Sequence[Row]], Iterator[tuple[str, ...]]]
_TABLES: dict[str, tuple[str, str, _Table]] = {
    "calibrate": (
        "Calibration and quantization: time and memory",
        "net | images: | tool | seconds, median (lowest–highest): | times the FP32 pass: "
        "| peak MB: | rounds:",
        _calibrations,
    ),
    "error": (
        "Error of the outputs",
        "net | images: | tool | runtime | signal to noise, dB: | gain, dB: "
        "| of the median image, dB: | top-1 as FP32: | gain, points:",
        _errors,
    ),
    "latency": (
        "Latency",
        "net | batch: | threads: | tool | runtime | p50, ms: | medians of processes: "
        "| times faster: | signal to noise, dB: | top-1 as FP32: | of the INT8 peak: | samples: "
        "| processes: | disturbed:",
        _latencies,
    ),
}
