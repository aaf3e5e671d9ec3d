"""``report verify``: every number that follows from others is computed again.

Latencies follow from the raw samples, shares and intervals from their counts, the verdict from
all of it. Distances of logits are taken as given: the logits themselves are not in a report.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convexport.benchmarks.accuracy import mcnemar_exact, tango_interval
from convexport.benchmarks.bandwidth import Bandwidth
from convexport.benchmarks.batches import Batches
from convexport.benchmarks.latency_result import evaluate
from convexport.benchmarks.limits import against_roof
from convexport.benchmarks.parts import Parts
from convexport.benchmarks.recording import Recording
from convexport.benchmarks.report.document import (
    MALFORMED,
    MEASURED_WITH_IT,
    NOT_MEASURED,
    REPORT,
    malformed,
    read_report,
)
from convexport.benchmarks.report.verdict import judge
from convexport.benchmarks.roofline import Peak
from convexport.benchmarks.scenarios import ScenarioResult
from convexport.benchmarks.soak import Soak
from convexport.benchmarks.statistics import proportion
from convexport.runtime.errors import ConvexportError
from convexport.runtime.files import sha256_of

PAGE = "report.html"
# Libraries of another version round the last digits in another way.
_CLOSE = 1e-9
_ABSENT = object()
_HASH = re.compile(r'name="report-sha256" content="([0-9a-f]{64})"')


@dataclass
class Checked:
    """What was computed again.

    Attributes:
        samples: raw samples that latencies were computed from.
        counts: shares, paired comparisons, and layers against the roof.
        files: that stood beside the report.
        differences: one line for each number or hash that is another one.
    """

    samples: int = 0
    counts: int = 0
    files: int = 0
    differences: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "as_written": not self.differences}


def check(path: Path) -> Checked:
    """Compute a report's numbers again and compare hashes with the files beside it.

    Raises:
        InputError: E0302 or E0376, it is no report; E0379, it lacks what every report has.
    """
    report, found = read_report(path), Checked()
    try:
        _require_raw(report)
        _numbers(report, "", found)
        _compare(judge(report), report["verdict"], "verdict", found)
        _files(report, path, found)
    except MALFORMED as error:
        raise malformed(path, error) from error
    return found


def _numbers(part: Any, where: str, found: Checked) -> None:
    """Visit every object of the document."""
    if isinstance(part, list):
        for index, each in enumerate(part):
            _numbers(each, f"{where}[{index}]", found)
        return
    if not isinstance(part, Mapping):
        return
    if "recording" in part:
        _latency(part, where, found)
        return
    for keys, again in _AGAIN:
        if part.keys() >= keys:
            found.counts += 1
            try:
                _compare(json.loads(json.dumps(again(part))), part, where, found)
            except ConvexportError as error:
                found.differences.append(f"{where}: {error.what}")
    for key, each in part.items():
        _numbers(each, f"{where}.{key}" if where else key, found)


def _latency(stored: Mapping[str, Any], where: str, found: Checked) -> None:
    try:
        recording = Recording.from_dict(stored["recording"])
        again = json.loads(json.dumps(evaluate(recording).to_dict()))
    except (ConvexportError, *MALFORMED) as error:
        what = error.what if isinstance(error, ConvexportError) else repr(error)
        found.differences.append(f"{where}.recording: {what}")
        return
    found.samples += sum(
        len(model.samples.ns) for run in recording.runs for model in run.models.values()
    )
    again.pop("recording")
    _compare(again, stored, where, found)


def _proportion(part: Mapping[str, Any]) -> dict[str, Any]:
    return proportion(part["k"], part["n"]).to_dict()


def _paired(part: Mapping[str, Any]) -> dict[str, Any]:
    b, c, n = part["only_reference"], part["only_actual"], part["reference"]["n"]
    low, high = (100 * each for each in tango_interval(b, c, n))
    return {
        "drop_pp": 100 * (part["reference"]["k"] - part["actual"]["k"]) / n,
        "low_pp": low,
        "high_pp": high,
        "p_value": mcnemar_exact(b, c),
        "non_inferior": high < part["margin_pp"],
        # What only one of both has right is the difference of what each has right.
        "only_reference": c + part["reference"]["k"] - part["actual"]["k"],
    }


def _mcnemar(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"p_value": mcnemar_exact(part["only_reference"], part["only_model"])}


def _layers(part: Mapping[str, Any]) -> dict[str, Any]:
    peaks = {each["precision"]: Peak(**each) for each in part["peaks"]}
    rates = {each["bytes"]: each["bytes_per_s"] for each in part["bandwidth"]}
    rows = [dict(each) for each in part["layers"]]
    return against_roof(rows, part["ms"], part["operations"], peaks, Bandwidth(0, rates))


def _stored(kind: Any) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What follows from the raw samples that a part of a benchmark keeps."""
    return lambda part: dict(kind.from_dict(part).to_dict())


# By these members a part of a document is known for what it is.
_RAW = {
    "latency": {"recording"},
    "scenarios": {"scenario", "samples", "valid"},
    "soak": {"first_minute", "samples"},
    "batches": {"rows", "why"},
    "parts": {"samples_ns", "sum_ms"},
}
_AGAIN = (
    (_RAW["scenarios"], _stored(ScenarioResult)),
    (_RAW["soak"], _stored(Soak)),
    (_RAW["batches"], _stored(Batches)),
    (_RAW["parts"], _stored(Parts)),
    ({"k", "n", "low", "high", "share"}, _proportion),
    ({"only_reference", "only_actual", "drop_pp", "margin_pp"}, _paired),
    ({"only_reference", "only_model", "p_value"}, _mcnemar),
    ({"layers", "peaks", "bandwidth", "operations", "ms"}, _layers),
)


def _require_raw(report: Mapping[str, Any]) -> None:
    """Where a latency stands its samples have to be: without them nothing is computed again."""
    places = [("latency", each["latency"]) for each in (report, *report["bundles"])]
    for name in MEASURED_WITH_IT:
        found = report.get(name, NOT_MEASURED)
        if found != NOT_MEASURED:
            rows = found.values() if isinstance(found, Mapping) else found
            places += [(name, each) for each in rows]
    for name, part in places:
        missing = set() if part == NOT_MEASURED else _RAW[name] - part.keys()
        if missing:
            raise LookupError(f"{name} lacks {', '.join(sorted(missing))}")


def _compare(again: Any, stored: Any, where: str, found: Checked) -> None:
    for place, value, said in _unequal(again, stored, where):
        said_so = "nothing" if said is _ABSENT else _short(said)
        found.differences.append(f"{place}: says {said_so}, computed {_short(value)}")


def _unequal(again: Any, stored: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """What differs. Members that are stored in addition are another version's."""
    if isinstance(again, Mapping) and isinstance(stored, Mapping):
        for key, value in again.items():
            yield from _unequal(value, stored.get(key, _ABSENT), f"{where}.{key}")
    elif isinstance(again, list) and isinstance(stored, list) and len(again) == len(stored):
        for index, (value, said) in enumerate(zip(again, stored, strict=True)):
            yield from _unequal(value, said, f"{where}[{index}]")
    elif not _equal(again, stored):
        yield where, again, stored


def _equal(one: Any, other: Any) -> bool:
    numbers = [
        isinstance(each, int | float) and not isinstance(each, bool) for each in (one, other)
    ]
    if all(numbers):
        return math.isclose(one, other, rel_tol=_CLOSE, abs_tol=1e-12)
    return type(one) is type(other) and bool(one == other)


def _files(report: Mapping[str, Any], path: Path, found: Checked) -> None:
    for bundle in report["bundles"]:
        for name, said in bundle["files"].items():
            inner = Path(name)
            if inner.is_absolute() or ".." in inner.parts:
                found.differences.append(f"{name}: no name inside a bundle")
                continue
            places = (path.parent / inner, path.parent / Path(bundle["label"]).name / inner)
            _file(next((each for each in places if each.is_file()), None), said["sha256"], found)
    page = path.with_name(PAGE)
    if path.name == REPORT and page.is_file():
        with page.open(encoding="utf-8", errors="replace") as file:
            named = _HASH.search(file.read(4096))
        if named:
            found.files += 1
            if named[1] != sha256_of(path):
                found.differences.append(f"{PAGE} was written from another {path.name}")


def _file(file: Path | None, expected: str, found: Checked) -> None:
    if file is None:
        return
    found.files += 1
    actual = sha256_of(file)
    if actual != expected:
        found.differences.append(f"{file.name}: sha256 {actual[:12]}…, the report {expected[:12]}…")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
