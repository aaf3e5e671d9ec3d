"""A gate for a build server: is a bundle slower than it was when a result was saved?

Two runs compare only under the same conditions; where they differ, the gate refuses and says in
what. It fails only where the whole interval of the ratio lies beyond the limit: a noisy machine
makes the interval wide, and the gate then says that it cannot tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from convexport.benchmarks.latency_result import (
    FED_IMAGES,
    BenchResult,
    SubjectResult,
    evaluate,
)
from convexport.benchmarks.meter import LatencyOptions
from convexport.benchmarks.recording import Recording
from convexport.benchmarks.report.verdict import latency_of
from convexport.benchmarks.statistics import ratio_of_groups
from convexport.runtime.errors import GateError, InputError, UsageError
from convexport.runtime.files import read_json

# What a latency depends on beside the model: of the options, of the host, and of each subject.
_OPTIONS = ("batch", "threads", "warmup_s")
_HOST = ("cpu", "machine", "cpus", "cpu_quota", "smt", "governor", "gpu")
_SUBJECT = ("runtime", "provider")


@dataclass(frozen=True)
class Change:
    """One bundle then and now.

    Attributes:
        label: of the bundle.
        ratio: median now / median then, over processes; above 1 it became slower.
        low: lower end of the 95 % interval; None with fewer than two processes on a side.
        high: upper end.
        limit: what the ratio must not exceed.
        verdict: ``slower``, ``not slower``, ``cannot tell`` or ``too few processes``.
        same_model: whether it is the very same model file.
    """

    label: str
    ratio: float | None
    low: float | None
    high: float | None
    limit: float
    verdict: str
    same_model: bool

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "method": "Welch's t interval on log medians of processes"}


def read_baseline(path: Path) -> BenchResult:
    """The latencies that ``bench --save`` or a build wrote, computed again from their raw samples.

    In a build's ``report.json`` the row of the file that it ships takes the bundle's name.

    Raises:
        InputError: E0302, it cannot be read; E0360 or E0361, it is no such file.
    """
    data = read_json(path, limit=1 << 30)  # raw samples of minutes
    try:
        found = evaluate(Recording.from_dict(data["latency"]["recording"]))
        named = {row.label: row for row in found.subjects}
        for bundle in data.get("bundles", ()):
            timed = latency_of({"latency": data["latency"]}, {**bundle, "latency": None})
            if timed is not None and str(bundle["label"]) not in named:
                row = named[timed[1]["label"]]
                named[row.label] = replace(row, label=str(bundle["label"]))
        return replace(found, subjects=tuple(named.values()))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            "E0361",
            "this is no saved benchmark",
            where=str(path),
            why=f"{type(error).__name__}: {error}"[:300],
            hint="convexport bench BUNDLE --save FILE writes one",
        ) from error


def require_limit(max_slowdown: float) -> None:
    """Refuse a limit that nothing could exceed, or everything.

    Raises:
        UsageError: E0270, it is no share of at least 0.
    """
    if not 0 <= max_slowdown < math.inf:
        raise UsageError(
            "E0270", f"a slowdown of {max_slowdown:g} is no limit", hint="--max-slowdown 5%"
        )


def require_comparable(
    then: BenchResult,
    labels: Sequence[str],
    options: LatencyOptions,
    host: Mapping[str, Any],
    fed: str = FED_IMAGES,
) -> None:
    """Refuse before anything is measured where the conditions are others than then.

    Args:
        labels: of the bundles to compare.
        options: of the measurement to come.
        host: this machine, as ``latency.machine`` gives it.
        fed: what the models are to be fed, as in the conditions of a result.

    Raises:
        UsageError: E0271, so few processes that the gate could not fail.
        InputError: E0371, a condition differs, or the baseline lacks a bundle.
    """
    if min(len(then.recording.runs), options.processes) < 2:
        raise UsageError(
            "E0271",
            "a gate needs two processes on either side",
            where=f"{len(then.recording.runs)} then, {options.processes} now",
            why="one process says nothing of how far another would be from it",
            hint="measure both with --processes 5",
        )
    for label in labels:
        _find(then, label)
    before = then.recording
    was = {**_conditions(before.options, before.host), "fed": then.conditions["fed"]}
    _require_same(was, {**_conditions(options, host), "fed": fed}, "")


def changes(
    then: BenchResult, now: BenchResult, labels: Sequence[str], max_slowdown: float
) -> list[Change]:
    """What became of each of the bundles.

    Args:
        labels: of the subjects to compare; both results must have them.
        max_slowdown: 0.05 allows a ratio of 1.05.

    Raises:
        InputError: E0371, another runtime or provider, or a subject is missing.
    """
    return [_change(_find(then, each), _find(now, each), 1 + max_slowdown) for each in labels]


def require_not_slower(found: Sequence[Change]) -> None:
    """Let nothing pass that became slower beyond doubt.

    Raises:
        GateError: E0565, it did.
    """
    for change in found:
        if change.verdict == "slower":
            raise GateError(
                "E0565",
                f"{change.label} takes {change.ratio:.3f} times as long as in the baseline",
                where=f"95 % interval {change.low:.3f} to {change.high:.3f}, "
                f"{change.limit:.3f} is allowed",
                hint="find out why, or save a new baseline with --save",
            )


def _change(then: SubjectResult, now: SubjectResult, limit: float) -> Change:
    facts = [{key: getattr(side, key) for key in _SUBJECT} for side in (then, now)]
    _require_same(facts[0], facts[1], now.label)
    same = then.sha256 == now.sha256
    found = ratio_of_groups(then.process_medians_ms, now.process_medians_ms)
    if found is None:
        return Change(now.label, None, None, None, limit, "too few processes", same)
    ratio, low, high = found
    verdict = "slower" if low > limit else "not slower" if high <= limit else "cannot tell"
    return Change(now.label, ratio, low, high, limit, verdict, same)


def _conditions(options: LatencyOptions, host: Mapping[str, Any]) -> dict[str, Any]:
    chosen = options.to_dict()
    return {name: chosen[name] for name in _OPTIONS} | {name: host.get(name) for name in _HOST}


def _find(result: BenchResult, label: str) -> SubjectResult:
    for subject in result.subjects:
        if subject.label == label:
            return subject
    raise InputError(
        "E0371",
        f"the baseline has no {label}",
        where=f"it has {', '.join(subject.label for subject in result.subjects)}",
        hint="a bundle is told from another by its directory's name",
    )


def _require_same(then: Mapping[str, Any], now: Mapping[str, Any], label: str) -> None:
    others = [
        f"{name}: {then[name]} then, {now[name]} now" for name in now if then[name] != now[name]
    ]
    if others:
        raise InputError(
            "E0371",
            f"{label or 'the baseline'} was measured under other conditions",
            where="; ".join(others),
            why="a difference could come from there as well",
            hint="measure the baseline here, in the same way, with --save",
        )
