"""What a person reads when a command has ended."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group

from convexport.benchmarks.compare_bundles import Comparison
from convexport.benchmarks.protocols import TopError
from convexport.benchmarks.report.blocks import agreed
from convexport.benchmarks.verify import Verification
from convexport.exporter.console import fidelity, line, milliseconds, table, target_line
from convexport.exporter.device_bundle import SCRIPT
from convexport.exporter.results import BuildResult
from convexport.exporter.verify_text import details
from convexport.exporter.zoo_source import RANDOM_WEIGHTS
from convexport.runtime.bundle import Manifest
from convexport.runtime.crops import find
from convexport.runtime.trt_layers import counts
from convexport.runtime.trt_plan import ENGINE


def as_json(result: BuildResult) -> dict[str, Any]:
    """A build as data."""
    return {
        "bundle": str(result.bundle),
        "unchanged": not result.stages,
        "manifest": dict(result.manifest.data),
        "report": dict(result.report),
    }


def as_text(result: BuildResult) -> Any:
    """A build's figures and the commands to run next."""
    parts: list[Any] = []
    if result.manifest.random_weights:
        parts.append(line(RANDOM_WEIGHTS, style="bold red"))
    if result.report:
        latency = result.report["latency"]
        if latency == "not measured":
            parts.append(line("latency: not measured"))
        else:
            parts += list(_latency(latency, advise="candidates" not in result.report))
        parts += _fidelity(result.report["bundles"][0])
        if engine := result.manifest.data.get("tensorrt", {}).get("engine"):
            parts.append(line(f"engine: {counts(engine['engine'])}"))
        if "candidates" in result.report:
            parts.append(_candidates(result.report["candidates"]))
    if not result.stages:
        parts.append(line("unchanged: the bundle stands there already, intact"))
    total = sum(stage.seconds for stage in result.stages)
    parts.append(line(f"\n{result.bundle}  ({total:.1f} s)" if total else f"\n{result.bundle}"))
    return Group(*parts, *(line(f"  {each}", style="dim") for each in _next(result)))


def _next(result: BuildResult) -> tuple[str, ...]:
    """What a user will want to do with the bundle."""
    bundle = shlex.quote(str(result.bundle))
    if "tensorrt" in result.manifest.data and not (result.bundle / ENGINE).is_file():
        return (f"on the device, once {bundle} is there: python3 {bundle}/{SCRIPT}",)
    return (
        f"{bundle}/report.html",
        f"convexport run {bundle} IMAGE...",
        f"convexport bench {bundle}",
        f"convexport verify {bundle} --data DIR",
    )


def comparison_text(result: Comparison) -> Any:
    """A benchmark for a terminal."""
    parity = (
        line(f"parity of {label}: {agreed(each.parity.to_dict())}")
        for label, each in result.parity.items()
    )
    return Group(*_latency(result.latency.to_dict()), *parity)


def verification_text(result: Verification) -> Any:
    """A verification for a terminal."""
    lines = [
        f"{result.name}: hashes and golden sample agree (off by {result.golden_error:.1g})",
        f"parity with the FP32 reference on {result.parity_set}: {agreed(result.parity.to_dict())}",
    ]
    if result.accuracy is None:
        lines.append("accuracy: not measured (--data DIR with a folder a class)")
    else:
        images = f"on {result.accuracy_set}, {_crops(result.protocol)}"
        lines.append(_accuracy({**result.accuracy.to_dict(), "hint": ""}, images))
        errors = {"top-1": result.top1_error, "top-5": result.top5_error}
        lines += [_error(name, error) for name, error in errors.items() if error]
    return Group(line("\n".join(lines)), *details(result))


def answers_text(rows: Iterable[Mapping[str, Any]], manifest: Manifest) -> Any:
    """Classified images for a terminal."""
    parts: list[Any] = []
    if manifest.random_weights:
        parts.append(line(RANDOM_WEIGHTS, style="bold red"))
    for row in rows:
        cells = ((each["label"], f"{each['probability']:.1%}") for each in row["top"])
        parts.append(table((row["image"], ""), cells))
    return Group(*parts)


def _latency(latency: Mapping[str, Any], *, advise: bool = True) -> Iterable[Any]:
    conditions = latency["conditions"]
    columns = ("latency", "p50", "95 % interval", "p90", "p99", "images/s", "speed-up")
    first = latency["subjects"][0]
    yield table(columns, (_row(each) for each in latency["subjects"]))
    runtimes = dict.fromkeys(each["runtime"] for each in latency["subjects"])
    yield line(
        f"{latency['verdict']}: closed loop, batch {conditions['batch']}, "
        f"{conditions['threads']} threads, "
        f"{conditions['processes']} processes, n≥{min(e['n'] for e in latency['subjects'])}, "
        f"{', '.join(runtimes)}, {conditions['host'].get('cpu')}",
        style="green" if latency["verdict"] == "VALID" else "yellow",
    )
    for reason in latency["reasons"]:
        yield line(f"  {reason}", style="yellow")
    for each in latency["subjects"]:
        if advise and each["speedup"] is not None and each["speedup"]["claim"] != "faster":
            text = f"{each['label']} is not shown to be faster than {first['label']} here"
            yield line(f"{text}; --target auto builds what is", style="yellow")


def _candidates(rows: Iterable[Mapping[str, Any]]) -> Any:
    return table(
        ("candidate", "against the reference", "what became of it"),
        (
            (
                each["candidate"],
                fidelity(each["parity"]) if "parity" in each else "",
                ": ".join(text for text in (each["outcome"], each["why"]) if text),
            )
            for each in rows
        ),
        texts=3,
    )


def _row(subject: Mapping[str, Any]) -> tuple[Any, ...]:
    percentiles = subject["percentiles_ms"]
    p50 = percentiles["p50"]
    return (
        subject["label"],
        milliseconds(p50),
        "" if p50["low"] is None else f"{p50['low']:.3g}–{p50['high']:.3g}",
        milliseconds(percentiles["p90"]),
        milliseconds(percentiles["p99"]),
        "" if subject["throughput"] is None else f"{subject['throughput']:.1f}",
        _speedup(subject["speedup"]),
    )


def _speedup(speedup: Mapping[str, Any] | None) -> str:
    if speedup is None:
        return "baseline"
    if speedup["low"] is None:
        return f"{speedup['value']:.2f}×"
    return f"{speedup['value']:.2f}× ({speedup['low']:.2f}–{speedup['high']:.2f})"


def _fidelity(report: Mapping[str, Any]) -> list[Any]:
    parity = report["parity"]
    worst = max(parity["simplify"]["max_rel"].values())
    lines = [
        f"FP32 ONNX against {parity['reference']['reference']}: off by at most {worst:.1e} of the "
        f"largest logit, on {parity['simplify']['images']} images"
    ]
    if "quantize" in parity:
        lines.append(f"INT8 in ONNX Runtime against the same: {agreed(parity['quantize'])}")
    if "half" in parity:
        lines.append(f"FP16 against the same: {agreed(parity['half'])}")
    where = "on "
    if "flavour" in parity:
        lines.append(f"the file for TensorRT, in ONNX Runtime: {agreed(parity['flavour'])}")
        where = "on " if "target" in parity else "of that file, and of no engine, on "
    if "target" in parity:
        lines.append(f"on the target, {target_line(parity['target'])}")
    if report["accuracy"] != "not measured":
        images = f"{where}{parity['reference']['evaluation']['set']}"
        lines.append(_accuracy(report["accuracy"], images))
    else:
        lines.append("accuracy: not measured (no labelled images of the net's own task)")
    return [line(each) for each in lines]


def _crops(protocol: str) -> str:
    found = find(protocol)
    count = f"{found.count} crops an image" if found.count > 1 else "one crop an image"
    return f"{count} ({found.source})"


def _error(name: str, error: TopError) -> str:
    sides = (
        f"{side} {each.share:.2%}, 95 % interval {each.low:.2%} to {each.high:.2%}"
        for side, each in (("reference", error.reference), ("this", error.actual))
    )
    return f"{name} error: {'; '.join(sides)}"


def _accuracy(accuracy: Mapping[str, Any], images: str) -> str:
    before, after = accuracy["reference"], accuracy["actual"]
    text = (
        f"top-1 {images}: reference {before['share']:.2%}, "
        f"this {after['share']:.2%}; drop {accuracy['drop_pp']:+.2f} points, "
        f"95 % interval {accuracy['low_pp']:+.2f} to {accuracy['high_pp']:+.2f}"
    )
    return f"{text}\n{accuracy['hint']}" if accuracy["hint"] else text
