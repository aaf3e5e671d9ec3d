"""``diagnose``: which layers INT8 hurts, what was tried for them, and what to do."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group

from convexport.benchmarks.layer_times import LayerTime, layer_times
from convexport.benchmarks.limits import require_cpu
from convexport.benchmarks.verify import LOW_SQNR_DB
from convexport.exporter.artifacts import CALIBRATION
from convexport.exporter.console import line, table
from convexport.runtime.bundle import (
    Manifest,
    as_written,
    read_golden,
    read_manifest,
    verify_files,
)
from convexport.runtime.errors import UnsupportedError, UsageError
from convexport.runtime.files import read_json, write_atomically
from convexport.runtime.optional import require

# A bar of the terminal stands for that much noise at its full width of that many characters.
_PLOTS = ("svg", "png", "pdf")
_NOISIEST_DB, _CLEANEST_DB, _WIDTH = 0.0, 60.0, 24


@as_written()
def diagnose(bundle: Path, *, times: bool = False) -> dict[str, Any]:
    """What the build of an INT8 bundle found of its layers, the noisiest first.

    Args:
        times: also measure here how long each layer takes in FP32 and in INT8.

    Raises:
        InputError: it is no bundle, or it is damaged.
        UnsupportedError: E0687, it is not INT8; E0661, times of another runtime than those of CPUs.
    """
    manifest = read_manifest(bundle)
    verify_files(bundle, manifest)
    if manifest.precision != "int8":
        raise UnsupportedError(
            "E0687",
            f"{bundle} is {manifest.precision}: nothing in it is quantized",
            hint="diagnose a bundle that was built with --int8",
        )
    found = read_json(bundle / CALIBRATION)
    compared = manifest.data["parity"]
    # What the target's own runtime makes of it, where that is not the one it was made with.
    parity = (compared.get("target") or {}).get("artefact") or compared["quantize"]
    facts = {
        "bundle": manifest.name,
        "sqnr_db": parity["sqnr_db"],
        "top1_agreement": parity["top1"],
        "choice": {key: found[key] for key in ("method", "equalized", "bias_corrected", "tried")},
        "held_out": found["held_out"],
        "calibration_images": {key: found[key] for key in ("images", "set", "stand_in", "doubts")},
        "budget": found["budget"],
        "layers": found["layers"],
    }
    if times:
        facts["times"] = [asdict(row) for row in _times(bundle, manifest)]
    return {**facts, "advice": list(_advice(facts))}


def _times(bundle: Path, manifest: Manifest) -> tuple[LayerTime, ...]:
    require_cpu(manifest)
    sample, _ = read_golden(bundle, manifest)
    graphs = (bundle / manifest.reference, bundle / manifest.model)
    return layer_times(*graphs, sample, manifest.runtime)


@as_written()
def as_text(facts: Mapping[str, Any], *, top: int) -> Any:
    """The diagnosis for a terminal."""
    agreement = facts["top1_agreement"]
    head = (
        f"{facts['bundle']}: {_decibels(facts['sqnr_db'])} of signal to noise in the logits, "
        f"top-1 agreement {agreement['k']}/{agreement['n']}"
    )
    tried: list[tuple[str, ...]] = [
        (each["method"], _repairs(each), _decibels(each["sqnr_db"]))
        for each in facts["choice"]["tried"]
    ]
    layers = facts["layers"][:top]
    rows: list[tuple[str, ...]] = [
        (each["layer"], each["operator"], each["precision"], _bar(each["sqnr_db"]),
         _decibels(each["sqnr_db"]))
        for each in layers
    ]  # fmt: skip
    parts: list[Any] = [line(head)]
    if tried:
        images = f"tried on {facts['held_out']['images']} images"
        parts += [line(""), table((images, "repairs", "signal to noise"), tried, texts=2)]
    title = (f"the {len(layers)} noisiest of {len(facts['layers'])} layers", "operator",
             "precision", "own noise", "own signal to noise")  # fmt: skip
    parts += [line(""), table(title, rows, texts=4), line("")]
    if "times" in facts:
        heads = ("slowest against FP32, one thread, medians", "FP32", "INT8")
        slow = [
            (each["layer"] or "(no layer: pools, additions, Q/DQ, reordering)",
             f"{each['fp32_ms']:.3f} ms", f"{each['int8_ms']:.3f} ms")
            for each in facts["times"][:top]
        ]  # fmt: skip
        parts += [table(heads, slow), line("")]
    return Group(*parts, *(line(each, style="yellow") for each in facts["advice"]))


def plot(facts: Mapping[str, Any], path: Path) -> None:
    """Draw every layer's own signal to noise, in the order of noise, into an image file.

    Raises:
        MachineError: E0401, matplotlib is not installed.
        UsageError: E0288, the name does not end as a plot's does.
        StorageError: it cannot be written.
    """
    kind = path.suffix[1:].lower()
    if kind not in _PLOTS:
        hint = f"end the name with .{' or .'.join(_PLOTS)}"
        raise UsageError("E0288", f"there is no plot of the kind {path.suffix!r}", hint=hint)
    figures = require("matplotlib.figure", extra="report", purpose="a plot")
    layers = facts["layers"]
    figure = figures.Figure(figsize=(9, 1.2 + 0.18 * len(layers)), layout="constrained")
    axes = figure.add_subplot()
    colours = ["tab:blue" if each["precision"] == "int8" else "tab:orange" for each in layers]
    axes.barh([each["layer"] for each in layers], [each["sqnr_db"] for each in layers],
              color=colours)  # fmt: skip
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=6)
    axes.margins(y=0.01)
    axes.set_xlabel("own signal to noise in dB (blue: INT8, orange: kept in floats)")
    axes.set_title(f"{facts['bundle']}, {facts['held_out']['images']} images")
    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind, metadata={"Date": None} if kind == "svg" else None)
    write_atomically(path, drawn.getvalue())


def _advice(facts: Mapping[str, Any]) -> Iterator[str]:
    images = facts["calibration_images"]
    if images["stand_in"]:
        yield "calibrate with your own images (--calib DIR): these ranges are of a stand-in"
    yield from (f"calibration: {doubt}" for doubt in images["doubts"])
    if facts["sqnr_db"] is not None and facts["sqnr_db"] < LOW_SQNR_DB:
        yield (
            f"below {LOW_SQNR_DB:g} dB: measure what the task loses (verify --data DIR), or "
            "build with --max-drop 1%, which keeps the noisiest layers in floats"
        )
    slow = [each for each in facts.get("times", ()) if each["int8_ms"] > each["fp32_ms"]]
    if slow:
        lost = sum(each["int8_ms"] - each["fp32_ms"] for each in slow)
        named = ", ".join(each["layer"] or "what is no layer" for each in slow[:3])
        yield (
            f"INT8 takes longer than FP32 in {len(slow)} of {len(facts['times'])} places, "
            f"{lost:.2f} ms a pass in all, most in {named}"
        )
    budget = facts["budget"]
    if budget is not None:
        yield (
            f"--max-drop {budget['max_drop']:.2%}: the {budget['measure']} is at most "
            f"{budget['upper_bound']:.2%} (95 %), with {len(budget['kept'])} layers in floats; "
            f"{budget['all_int8_upper_bound']:.2%} with all in INT8"
        )


def _repairs(trial: Mapping[str, Any]) -> str:
    done = [name for name in ("equalized", "bias_corrected") if trial[name]]
    return ", ".join(done).replace("_", " ") or "none"


def _decibels(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.1f} dB"


def _bar(decibels: float) -> str:
    share = (_CLEANEST_DB - decibels) / (_CLEANEST_DB - _NOISIEST_DB)
    return "█" * round(min(max(share, 0.0), 1.0) * _WIDTH)
