"""The last part of a page: under which conditions all of it holds."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from convexport.benchmarks.report.blocks import Block, Missing, Section, Table, Words, size
from convexport.benchmarks.report.headline import measure
from convexport.benchmarks.report.sections import latencies

_Data = Mapping[str, Any]

_PARTS = ("decode", "preprocess", "compute", "postprocess", "sum")


def conditions(report: _Data) -> Iterator[Section]:
    """Scenarios and parts, then machine, files and command."""
    yield Section(
        "scenarios",
        "Scenarios",
        "Closed loop: the next call waits for the last. Open loop: images arrive when they want "
        "to, and latency counts from then.",
        tuple(_scenarios(report)),
    )
    yield Section(
        "conditions",
        "Conditions",
        "A figure holds for this machine, these files and these versions, and for no other.",
        tuple(_conditions(report)),
    )


def _scenarios(report: _Data) -> Iterator[Block]:
    first = report["bundles"][0]
    found = report.get("scenarios")
    if isinstance(found, list) and found:
        yield _scenario_table(found)
    else:
        yield Missing(
            "Arrival of requests",
            measure(first, " --scenario server --qps 50 --bound-ms 20"),
        )
    parts = report.get("parts")
    if isinstance(parts, Mapping) and parts:
        measured = next(iter(parts.values()))
        names = [name for part in _PARTS if (name := f"{part}_ms") in measured]
        rows = tuple(
            (label, _doubts(each), *(_part(each.get(name)) for name in names))
            for label, each in parts.items()
        )
        columns = ("model", "doubts", *(name.removesuffix("_ms") for name in names))
        yield Table("From the image file to the answer, median ms", columns, rows, texts=2)
    else:
        yield Missing("Decoding and preprocessing", measure(first, " --parts"))
    soak = report.get("soak")
    if isinstance(soak, Mapping) and soak:
        yield _soak_table(soak)
    else:
        yield Missing("A long run", measure(first, " --soak 30m"))


def _scenario_table(found: list[_Data]) -> Table:
    rows = []
    for each in found:
        percentiles = each["percentiles_ms"]
        rows.append(
            (
                each["scenario"],
                each["label"],
                each["loop"],
                "valid" if each["valid"] else "; ".join(each["reasons"]) or "not valid",
                f"{each['n']:,}",
                *(_part(percentiles.get(name)) for name in ("p50", "p90", "p99")),
                _number(each["throughput"]),
                _number(each["target_qps"]),
            )
        )
    columns = ("scenario", "model", "loop", "valid", "n", "p50, ms", "p90, ms", "p99, ms",
               "images/s", "asked for, 1/s")  # fmt: skip
    return Table("Scenarios of MLPerf's kind", columns, tuple(rows), texts=4)


def _soak_table(found: Mapping[str, _Data]) -> Table:
    rows = tuple(
        (
            label,
            _doubts(each),
            f"{each['seconds'] / 60:,.3g} min",
            *(
                _part(each[minute][name])
                for name in ("p50", "p99")
                for minute in ("first_minute", "last_minute")
            ),
            f"{each['slowdown']:.2f}",
        )
        for label, each in found.items()
    )
    columns = ("model", "doubts", "lasted", "p50 at first, ms", "at last", "p99 at first, ms",
               "at last", "last / first")  # fmt: skip
    minutes = " and ".join(dict.fromkeys(f"{each['minute_s']:.3g} s" for each in found.values()))
    return Table(f"A long run, its first and last {minutes}", columns, rows, texts=2)


def _doubts(each: _Data) -> str:
    # An older version did not watch the machine beside every part.
    return "; ".join(each["reasons"]) or "none" if "reasons" in each else "not watched"


def _part(value: Any) -> str:
    """A percentile's value, a number, or nothing."""
    if isinstance(value, Mapping):
        value = value.get("value")
        return "n too small" if value is None else f"{value:.3g}"
    return _number(value)


def _number(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, int | float) else ""


def _conditions(report: _Data) -> Iterator[Block]:
    command = shlex.join(report["command"]) if report["command"] else "called from Python"
    yield Words("Command", (command,), preformatted=True)
    if report["warnings"]:
        yield Words("Warnings", tuple(report["warnings"]))
    for label, latency in latencies(report):
        if latency["notes"]:
            yield Words(f"Notes on the measurement {label}".strip(), tuple(latency["notes"]))
        yield _measurement(label, latency)
    yield _machine(report["environment"])
    rows = [
        (each["label"], name, size(file["bytes"]), file["sha256"][:16] + "…")
        for each in report["bundles"]
        for name, file in each["files"].items()
    ]
    columns = ("bundle", "file", "size", "sha256")
    yield Table("Files", columns, tuple(rows), texts=2)
    yield Table("How they were made", ("", *(each["label"] for each in report["bundles"])),
                tuple(_origins(report["bundles"])), texts=99)  # fmt: skip
    if isinstance(report.get("candidates"), list):
        candidates = tuple(
            (each["candidate"], each["outcome"], each["why"]) for each in report["candidates"]
        )
        yield Table("Candidates", ("candidate", "outcome", "why"), candidates, texts=3)
    if isinstance(report.get("stages"), list):
        stages = tuple(
            (each["name"], "cached" if each["cached"] else f"{each['seconds']:.1f} s")
            for each in report["stages"]
        )
        yield Table("Stages of the build", ("stage", "time"), stages)


def _measurement(label: str, latency: _Data) -> Table:
    found = latency["conditions"]
    facts = {
        "batch": found["batch"],
        "threads": found["threads"],
        "processes": found["processes"],
        "seconds for each model": found["duration_s"],
        "warm-up, s": found["warmup_s"],
        "seed": found["seed"],
        "loop": found["loop"],
        "inside": found["parts"],
        "an empty call reads": f"{found['floor_ns']:.0f} ns, which was not subtracted",
        "load before": found["load"]["load_1m"],
        **{
            f"CPU time, {name}": "unknown" if share is None else f"{share:.1%}"
            for name, share in found["load"].items()
            if name in ("own", "others", "steal")
        },
        "throttled": f"{found['load']['throttles']} times",
        "runtimes": ", ".join(dict.fromkeys(each["runtime"] for each in latency["subjects"])),
    }
    rows = tuple((name, str(value)) for name, value in facts.items())
    return Table(f"Measurement {label}".strip(), ("", ""), rows, texts=2)


def _machine(environment: _Data) -> Table:
    rows = []
    for key, value in environment.items():
        if key == "packages":
            continue
        if key == "ram_bytes" and isinstance(value, int):
            key, value = "memory", size(value)
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        rows.append((key.replace("_", " "), "unknown" if value is None else text))
    packages = environment.get("packages", {})
    rows += [(name, str(version)) for name, version in packages.items()]
    return Table("Machine and packages", ("", ""), tuple(rows), texts=2, shown=99)


def _origins(bundles: list[_Data]) -> Iterator[tuple[str, ...]]:
    facts: dict[str, Callable[[_Data], str]] = {
        "net": lambda each: str(each["name"]),
        "precision": lambda each: str(each["precision"]),
        "target": lambda each: f"{each['target']}, {each['runtime']}, {each['provider']}",
        "input": lambda each: "x".join(map(str, each["input"]["shape"])),
        "weights": lambda each: f"{each['weights']['kind']} ({each['weights'].get('source')})",
        "nodes": _nodes,
        "calibration": lambda each: _calibration(each["calibration"]),
    }
    for name, fact in facts.items():
        yield (name, *(fact(each) for each in bundles))


def _nodes(bundle: _Data) -> str:
    counts = bundle["precisions"] or {"fp32": bundle["graph"].get("nodes", "an unknown number of")}
    return ", ".join(f"{count} {precision}" for precision, count in counts.items())


def _calibration(found: _Data | None) -> str:
    if found is None:
        return "none"
    method = found["method"]["name"] if isinstance(found["method"], Mapping) else found["method"]
    stand_in = ", a stand-in" if found["stand_in"] else ""
    if method is None:  # FP16 has no thresholds: its ranges say what would overflow
        method = "ranges alone"
    return f"{method}, {found['images']} images{stand_in}: {found['set']}"
