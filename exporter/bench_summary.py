"""What a person reads of a benchmark's scenarios, parts, soak, batches and regression gate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group

from convexport.benchmarks.compare_bundles import Comparison
from convexport.benchmarks.parts import PARTS
from convexport.benchmarks.regression import Change
from convexport.exporter.console import fidelity, line, milliseconds, table
from convexport.exporter.summary import comparison_text


def as_text(result: Comparison, found: Sequence[Change] = ()) -> Any:
    """A benchmark for a terminal; every percentile stands beside the loop that it comes from."""
    data = result.to_dict()
    parts = [comparison_text(result)]
    if data["torch_parity"]:
        parts.append(line(f"parity of PyTorch: {fidelity(data['torch_parity'])}"))
    parts += [*_scenarios(data["scenarios"]), *_parts(data["parts"])]
    parts += [*_soak(data["soak"]), *_batches(data["batches"])]
    for what, error in result.failed.items():
        parts.append(line(f"not measured: {what}: {error.code} {error.what}", style="red"))
    return Group(*parts, *map(_change, found))


def _scenarios(rows: Sequence[Mapping[str, Any]]) -> Iterable[Any]:
    if not rows:
        return
    columns = ("scenario", "loop", "p50", "p90", "p99", "requests", "images/s")
    yield line("")
    yield table(
        columns,
        (
            (
                f"{row['label']} {row['scenario']}",
                row["loop"],
                *(milliseconds(row["percentiles_ms"][p]) for p in ("p50", "p90", "p99")),
                row["n"],
                f"{row['throughput']:.1f}",
            )
            for row in rows
        ),
        texts=2,
    )
    for row in rows:
        yield line(_verdict(row), style="green" if row["valid"] else "yellow")
        for reason in row["reasons"]:
            yield line(f"  {reason}", style="yellow")


def _verdict(row: Mapping[str, Any]) -> str:
    settings = row["samples"]["scenario"]
    told = {
        "single-stream": "one image a request",
        "multi-stream": f"{settings['samples_per_query']} images a request",
        "server": f"{row['target_qps'] or 0:.4g} requests a second, {row['late']} of {row['n']} "
        f"later than {row['bound_ms'] or 0:g} ms",
        "offline": f"batch {settings['batch']}",
    }[row["scenario"]]
    estimate = row["early_stopping_ms"]["estimate"]
    at_most = "" if estimate is None else f", p{row['percent']} at most {estimate:.3g} ms (99 %)"
    state = "VALID" if row["valid"] else "NOT VALID"
    return f"{state}: {row['label']} {row['scenario']}, {row['loop']} loop, {told}{at_most}"


def _parts(found: Mapping[str, Mapping[str, Any]]) -> Iterable[Any]:
    if not found:
        return
    names = (*PARTS, "sum")
    yield line("")
    yield table(
        ("median of a part, closed loop", *names),
        (
            (label, *(milliseconds(each[f"{name}_ms"]) for name in names))
            for label, each in found.items()
        ),
    )
    yield line(next(iter(found.values()))["image"])
    for label, each in found.items():
        for reason in each.get("reasons", ()):
            yield line(f"  {label}: {reason}", style="yellow")


def _soak(found: Mapping[str, Mapping[str, Any]]) -> Iterable[Any]:
    for label, each in found.items():
        first, last = each["first_minute"], each["last_minute"]
        minute = f"{each['minute_s']:.3g} s"
        yield line(
            f"\n{label}, {each['seconds']:.0f} s on end, closed loop: first {minute} "
            f"p50 {milliseconds(first['p50'])}, p99 {milliseconds(first['p99'])}; last {minute} "
            f"p50 {milliseconds(last['p50'])}, p99 {milliseconds(last['p99'])}; "
            f"{each['slowdown']:.3f}× as long"
        )
        for reason in each["reasons"]:
            yield line(f"  {reason}", style="yellow")


def _batches(found: Mapping[str, Mapping[str, Any]]) -> Iterable[Any]:
    for label, each in found.items():
        yield line("")
        yield table(
            (f"{label}, closed loop", "batch", "p50", "p99", "images/s"),
            (
                ("", row["batch"], milliseconds(row["p50_ms"]), milliseconds(row["p99_ms"]),
                 f"{row['throughput']:.1f}")
                for row in each["rows"]
            ),
        )  # fmt: skip
        for reason in (*filter(None, [each["why"]]), *each.get("reasons", ())):
            yield line(f"  {reason}", style="yellow")


def _change(change: Change) -> Any:
    model = "" if change.same_model else ", another model file"
    if change.ratio is None:
        text = f"{change.verdict} to compare with the baseline"
    else:
        text = (
            f"{change.verdict} than the baseline" if "slower" in change.verdict else change.verdict
        )
        text += f": {change.ratio:.3f}× as long ({change.low:.3f}–{change.high:.3f})"
    style = {"slower": "red", "not slower": "green"}.get(change.verdict, "yellow")
    return line(f"{change.label}: {text}, {change.limit:.3f}× is allowed{model}", style=style)
