"""The report document: what it holds, and how it comes about from bundles.

One format serves a bundle's own ``report.json`` and a comparison of several. The published
description is ``report.schema.json`` beside this file. Nothing in a document names a person or a
machine: paths below a home lose it, and the command line loses the host's name too.
"""

from __future__ import annotations

import datetime
import platform
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from convexport.benchmarks.bundle_subjects import label_of, require_different
from convexport.benchmarks.host import describe_host
from convexport.benchmarks.redaction import without_homes
from convexport.benchmarks.report.verdict import judge
from convexport.runtime.bundle import Manifest, read_manifest
from convexport.runtime.errors import InputError
from convexport.runtime.files import read_json

SCHEMA_VERSION = "1.0"
REPORT = "report.json"
NOT_MEASURED = "not measured"
SCHEMA = Path(__file__).with_name("report.schema.json")

Document = dict[str, Any]

# Beside a latency, what a benchmark may have measured.
MEASURED_WITH_IT = ("scenarios", "parts", "soak", "batches")
# Where PyTorch was the baseline, and where a saved result was compared with.
BESIDE_IT = ("torch_parity", "regression")
_CALIBRATION = "calibration.json"
# What reading a document raises that lacks a member, or has one of another kind.
MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
# Base64 of zlib or of a picture: it may hold any letters, and no word in it is a path.
_PACKED = re.compile(r"(data:image/jpeg;base64,|eJ)[A-Za-z0-9+/]+={0,2}")


def entry(bundle: Path, manifest: Manifest, label: str) -> Document:
    """What a bundle says of itself, without a latency.

    Args:
        bundle: where its files are, as they are named in the manifest.
        label: its name in the document.
    """
    data = manifest.data
    files = {
        name: {"bytes": (bundle / name).stat().st_size, "sha256": digest}
        for name, digest in manifest.files.items()
    }
    return {
        "label": label,
        **{key: data[key] for key in ("name", "precision", "target", "runtime", "provider")},
        "weights": dict(data["weights"]),
        "random_weights": manifest.random_weights,
        "input": data["input"],
        "output": data["output"],
        "model": manifest.model,
        "reference": manifest.reference,
        "model_sha256": manifest.files[manifest.model],
        "files": files,
        "graph": data.get("graph", {}),
        "precisions": dict(Counter(data.get("layers", {}).values())),
        "fp16": data.get("fp16"),
        "calibration": _calibration(bundle / _CALIBRATION),
        "parity": data.get("parity", {}),
        "verification": NOT_MEASURED,
        "accuracy": data.get("accuracy") or NOT_MEASURED,
        "layers": NOT_MEASURED,
        "latency": NOT_MEASURED,
        "notes": list(data.get("notes", [])),
        "versions": data.get("versions", {}),
    }


def document(bundles: Sequence[Document], latency: Any = NOT_MEASURED, **more: Any) -> Document:
    """A whole document.

    Args:
        bundles: entries.
        latency: of all of them side by side, as ``BenchResult.to_dict`` gives it.
        more: further members, such as ``stages``, or those in MEASURED_WITH_IT.
    """
    notes = [(each["label"], note) for each in bundles for note in _warnings(each)]
    named = (note if len(bundles) == 1 else f"{label}: {note}" for label, note in notes)
    found = {
        "schema_version": SCHEMA_VERSION,
        "convexport": metadata.version("convexport"),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": _command(),
        "bundles": list(bundles),
        "latency": latency,
        **dict.fromkeys(MEASURED_WITH_IT, NOT_MEASURED),
        "environment": describe_host(),
        "warnings": list(dict.fromkeys(named)),
        **more,
    }
    found = redacted(found)
    return {**found, "verdict": judge(found)}


def read_report(path: Path) -> Document:
    """Read a document; members that this version does not know are kept.

    Raises:
        InputError: E0302, it is no JSON; E0376, it is no report, or of a version not known here.
    """
    data = read_json(path, limit=1 << 30)
    version = data.get("schema_version") if isinstance(data, dict) else None
    major = version.partition(".")[0] if isinstance(version, str) else None
    if major != SCHEMA_VERSION.partition(".")[0]:
        writer = str(data.get("convexport")) if isinstance(data, dict) else "None"
        hint = f"convexport {writer[:40]} wrote it and reads it" if writer != "None" else ""
        raise InputError(
            "E0376",
            f"{path.name} is not a report of version {SCHEMA_VERSION.partition('.')[0]}",
            where=f"{path}: schema_version {str(version)[:40]}",
            hint=hint or "build the bundle again with --force: the report is written with it",
        )
    shaped = isinstance(data.get("bundles"), list) and data["bundles"]
    if not shaped or not all(isinstance(each, dict) for each in data["bundles"]):
        raise InputError("E0376", f"{path.name} has no bundles", where=str(path))
    return dict(data)


def malformed(path: Path, error: Exception) -> InputError:
    """What to say of a document that lacks a member, or has one of another kind."""
    return InputError(
        "E0379",
        f"{path.name} is not as a report is: {str(error)[:80] or type(error).__name__}",
        where=str(path),
        hint="report.schema.json describes it; build or measure again to have a new one",
    )


def of_bundles(paths: Sequence[Path]) -> Document:
    """What bundles measured when they were built, each for itself, in one document.

    Raises:
        InputError: one is no bundle; E0377, they are of different nets or inputs; E0379, a report
            lacks what every report has.
        UsageError: E0267, two have the same name.
    """
    entries = entries_of(paths)
    reports = [read_report(path / REPORT) for path in paths]
    if len(reports) == 1:
        return reports[0]
    for path, found, report in zip(paths, entries, reports, strict=True):
        try:
            found["latency"], first = report["latency"], reports[0]["environment"]
            if report["environment"] != first:
                found["notes"].append("measured on another machine, or with other packages")
            judge({"bundles": [found], "latency": NOT_MEASURED})
        except MALFORMED as error:
            raise malformed(path / REPORT, error) from error
    return document(entries, environment=first)


def entries_of(paths: Sequence[Path]) -> list[Document]:
    """The entries of bundles that can be compared.

    Raises:
        InputError: one is no bundle; E0377, they are of different nets or inputs.
        UsageError: E0267, two have the same name.
    """
    labels = [label_of(path) for path in paths]
    require_different(labels)
    entries = [
        entry(path, read_manifest(path), label) for path, label in zip(paths, labels, strict=True)
    ]
    for other in entries[1:]:
        for key, sides in (("nets", "name"), ("inputs", "input")):
            if other[sides] != entries[0][sides]:
                raise InputError(
                    "E0377",
                    f"{entries[0]['label']} and {other['label']} are of different {key}",
                    where=f"{_said(entries[0][sides])} and {_said(other[sides])}",
                    why="their latencies and accuracies do not compare",
                    hint="write one report a net",
                )
    return entries


def redacted(value: Any) -> Any:
    """The same without homes in any text, and without the host's name in the command."""
    host = re.compile(rf"\b{re.escape(platform.node())}\b") if platform.node() else None

    def walk(part: Any) -> Any:
        if isinstance(part, str):
            return part if _PACKED.fullmatch(part) else without_homes(part)
        if isinstance(part, Mapping):
            return {without_homes(key): walk(each) for key, each in part.items()}
        return [walk(each) for each in part] if isinstance(part, list | tuple) else part

    found = walk(value)
    if host and isinstance(found, dict) and "command" in found:
        found["command"] = [host.sub("(host)", word) for word in found["command"]]
    return found


def _calibration(path: Path) -> Document | None:
    """What a person wants to know of a calibration, and each layer's own noise."""
    if not path.is_file():
        return None
    found = read_json(path)
    keys = ("method", "equalized", "bias_corrected", "images", "set", "stand_in", "doubts",
            "fingerprint", "budget")  # fmt: skip
    return {
        **{key: found.get(key) for key in keys},
        "layers": found.get("layers", []),
    }


def _warnings(bundle: Mapping[str, Any]) -> list[str]:
    checked = bundle["verification"]
    more = checked.get("warnings", []) if isinstance(checked, Mapping) else []
    return [*bundle["notes"], *more]


def _command() -> list[str]:
    """How we were called; nothing where that was from a program of the user's."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        program = program.parent
    return ["convexport", *sys.argv[1:]] if program.name == "convexport" else []


def _said(value: Any) -> str:
    return "x".join(map(str, value["shape"])) if isinstance(value, Mapping) else str(value)
