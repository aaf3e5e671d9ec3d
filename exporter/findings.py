"""What a build has to say of itself: notes, the manifest's facts, the report."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from convexport.benchmarks.report.document import NOT_MEASURED
from convexport.benchmarks.verify import LOW_SQNR_DB
from convexport.exporter.cache import StageResult

_TOOLS = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxsim", "onnxslim", "onnxruntime", "numpy")
_COMPARED = ("export", "simplify", "quantize", "half", "flavour", "target")
# That the terminal names of those that FP16 cannot hold; the manifest has all.
_MOST_TENSORS = 5


def notes_of(result: StageResult) -> list[str]:
    """What a stage found that the user must know."""
    if result.name == "reference":
        return list(result.facts["notes"])
    if result.name == "calibrate":
        return [f"calibration: {doubt}" for doubt in result.facts["doubts"]]
    if result.name == "half":
        return list(_kept_in_fp32(result.facts["report"]["kept"]))
    if result.name == "flavour":
        return [f"TensorRT: {text}" for text in _warned(result.facts["lint"]["findings"])]
    if result.name == "quantize":
        return list(_of_int8(result.facts))
    artefact = result.facts["parity"]["artefact"] if result.name == "target" else None
    return list(_low_signal(artefact)) if artefact else []


def _warned(findings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for why, places in Counter(each["why"] for each in findings).items():
        first = next(each for each in findings if each["why"] == why)
        yield f"{first['what']} at {first['where']}, {places} in all: {why}"


def _of_int8(facts: Mapping[str, Any]) -> Iterator[str]:
    yield from _low_signal(facts["parity"])
    budget = facts["choice"]["budget"]
    if budget and budget["kept"]:
        before, after = budget["all_int8_upper_bound"], budget["upper_bound"]
        yield (
            f"{len(budget['kept'])} layers stay in floats: the {budget['measure']} may be "
            f"{before:.2%} with all in INT8, and is at most {after:.2%} so (95 %)"
        )


def _low_signal(parity: Mapping[str, Any]) -> Iterator[str]:
    noise = parity["sqnr_db"]
    if noise is not None and noise < LOW_SQNR_DB:
        yield f"only {noise:.1f} dB of signal to noise are kept: measure what the task loses"


def _kept_in_fp32(kept: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The weights and activations that FP16 cannot hold; what always stays in FP32 is no news."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in kept:
        if row["tensor"]:
            found.setdefault((row["tensor"], row["reason"]), []).append(row)
    for (tensor, reason), rows in list(found.items())[:_MOST_TENSORS]:
        magnitude, limit = rows[0]["magnitude"], rows[0]["limit"]
        reached = "unknown" if magnitude is None else f"{magnitude:.3g}"
        nodes = ", ".join(row["node"] for row in rows)
        yield f"FP32 for {nodes}: {reason} of {tensor}, {reached} against {limit:.3g}"
    if len(found) > _MOST_TENSORS:
        yield f"FP32 for {len(found) - _MOST_TENSORS} more tensors: see fp16 in the manifest"


def versions() -> dict[str, str]:
    """The packages that a build's bytes depend on, with their versions."""
    return {tool: version_of(tool) for tool in _TOOLS}


def version_of(package: str) -> str:
    """A package's installed version, or that it is not installed."""
    # The same modules under another name; never both.
    names = (package, "onnxruntime-gpu") if package == "onnxruntime" else (package,)
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed"


def manifest_facts(facts: Mapping[str, dict[str, Any]], notes: list[str]) -> dict[str, Any]:
    """What is the same for the same inputs: everything but latency."""
    narrow = facts.get("quantize") or facts.get("half", {})
    # A row a tensor and a hash an image are in calibration.json alone: loaders parse the manifest.
    long = ("ranges", "contents")
    calibration = {k: v for k, v in facts.get("calibrate", {}).items() if k not in long}
    if "choice" in narrow:
        calibration["choice"] = narrow["choice"]
    parity = {name: facts[name]["parity"] for name in _COMPARED if name in facts}
    return {
        "graph": {key: facts["simplify"][key] for key in ("opset", "nodes", "operators")},
        "output_kind": facts["simplify"]["output_kind"],
        "layers": (facts.get("flavour") or narrow).get("precisions", {}),
        "fp16": facts.get("half", {}).get("report"),
        "calibration": calibration or None,
        "parity": {"reference": facts["reference"], **parity},
        "notes": notes,
        "accuracy": facts.get("accuracy"),
        "versions": versions(),
    }


def report_of(facts: Mapping[str, Any], done: Sequence[StageResult]) -> dict[str, Any]:
    """What was measured, and how long each stage took: differs from run to run."""
    return {
        "latency": facts.get("latency", NOT_MEASURED),
        "stages": [
            {"name": each.name, "seconds": round(each.seconds, 3), "cached": each.cached}
            for each in done
        ],
    }
