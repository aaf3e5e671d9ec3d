"""The verdict of a report: one word a bundle, with its reasons, computed from the rest alone.

FAIL           parity or accuracy is shown to be lost, or it is shown to be slower
UNSTABLE       the latency may well be another one in another run
NOT MEASURED   there is no latency, or no parity of the very file that was timed
PASS           none of these
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from convexport.benchmarks.latency_result import UNSTABLE
from convexport.benchmarks.verify import LEAST_SQNR_DB, LIMITS

PASS, FAIL, UNKNOWN = "PASS", "FAIL", "NOT MEASURED"
# Of several bundles the first of these counts.
ORDER = (FAIL, UNSTABLE, UNKNOWN, PASS)

_Data = Mapping[str, Any]


def judge(report: _Data) -> dict[str, Any]:
    """The whole report's verdict, and each bundle's with reasons, by label."""
    found = {}
    for bundle in report["bundles"]:
        reasons = {kind: list(check(report, bundle)) for kind, check in _CHECKS.items()}
        word = next((kind for kind in ORDER if reasons.get(kind)), PASS)
        found[bundle["label"]] = {"verdict": word, "reasons": reasons.get(word, [])}
    words = [each["verdict"] for each in found.values()]
    return {"verdict": min(words, key=ORDER.index, default=UNKNOWN), "bundles": found}


def latency_of(report: _Data, bundle: _Data) -> tuple[_Data, _Data] | None:
    """The measurement in which a bundle's very file was timed, and its row there."""
    engine = bundle["runtime"] == "tensorrt"  # its plan has another hash than its ONNX file
    for latency in (report["latency"], bundle["latency"]):
        if not isinstance(latency, Mapping):
            continue
        names = (bundle["label"], bundle["precision"])
        rows = [
            row
            for row in latency["subjects"]
            if row["sha256"] == bundle["model_sha256"] or (engine and row["label"] in names)
        ]
        if rows:  # of twins the one of that name, or else the last: the first is the baseline
            return latency, max(rows, key=lambda row: (row["label"] == names[0], rows.index(row)))
    return None


def accuracy_of(bundle: _Data) -> _Data | None:
    """The paired comparison with labels, the latest first."""
    checked = verified(bundle)
    for found in (checked and checked["accuracy"], bundle["accuracy"]):
        if isinstance(found, Mapping):
            return found
    return None


def parity_of(bundle: _Data) -> _Data | None:
    """The comparison of the very file that is shipped with the reference, the latest first."""
    checked = verified(bundle)
    if checked is not None:
        return dict(checked["parity"])
    compared = bundle["parity"]
    target = compared.get("target")
    if target:
        return dict(target["artefact"] or target["fp32"])
    if bundle["runtime"] == "tensorrt":  # what was compared is the graph, not an engine
        return None
    for stage in ("quantize", "half", "simplify"):
        if stage in compared:
            return dict(compared[stage])
    return None


def verified(bundle: _Data) -> _Data | None:
    """What ``verify`` found, if it was of this very file."""
    found = bundle["verification"]
    if isinstance(found, Mapping) and found["model_sha256"] == bundle["model_sha256"]:
        return found
    return None


def largest_difference(parity: _Data) -> float | None:
    """As a share of the largest logit, over all batch sizes."""
    found = parity["max_rel"]
    largest: float | None = max(found.values()) if isinstance(found, Mapping) else found
    return largest


def _failed(report: _Data, bundle: _Data) -> Iterator[str]:
    parity, accuracy, timed = parity_of(bundle), accuracy_of(bundle), latency_of(report, bundle)
    if parity is not None:
        yield from _unfaithful(parity, bundle["precision"])
    if accuracy is not None and accuracy["low_pp"] > accuracy["margin_pp"]:
        yield (
            f"at least {accuracy['low_pp']:.2f} points of accuracy are lost, "
            f"{accuracy['margin_pp']:g} are the margin"
        )
    if timed and timed[0]["verdict"] != UNSTABLE:
        speedup = timed[1]["speedup"]
        if speedup and speedup["claim"] == "slower":
            yield f"shown to be slower than {timed[0]['subjects'][0]['label']}"
    for change in report.get("regression") or ():
        if (change["label"], change["verdict"]) == (bundle["label"], "slower"):
            yield f"{change['ratio']:.2f} times what a saved result has, {change['limit']:g} may be"


def _unfaithful(parity: _Data, precision: str) -> Iterator[str]:
    if parity.get("nonfinite_reference") or parity.get("nonfinite_actual"):
        yield "logits are not finite"
        return
    moved, noise = largest_difference(parity), parity.get("sqnr_db")
    if precision in LIMITS and (moved is None or moved > LIMITS[precision]):
        moved_by = "an unknown share" if moved is None else f"{moved:.1e}"
        yield f"a logit moved by {moved_by} of the largest, {LIMITS[precision]:g} is the limit"
    least = LEAST_SQNR_DB.get(precision)
    if least is not None and noise is not None and noise < least:
        yield f"{noise:.1f} dB of signal to noise, {least:g} are needed"


def _unstable(report: _Data, bundle: _Data) -> Iterator[str]:
    timed = latency_of(report, bundle)
    if timed and timed[0]["verdict"] == UNSTABLE:
        yield from timed[0]["reasons"]


def _unknown(report: _Data, bundle: _Data) -> Iterator[str]:
    if latency_of(report, bundle) is None:
        yield "no latency of this very file was measured"
    if parity_of(bundle) is None:
        yield "what was timed was not compared with the reference"


_CHECKS = {FAIL: _failed, UNSTABLE: _unstable, UNKNOWN: _unknown}
