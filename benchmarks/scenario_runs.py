"""Scenarios over fresh processes: settle the rate or the batch, then measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from convexport.benchmarks.early_stopping import bound_floor
from convexport.benchmarks.host import affinity, load_between, load_snapshot
from convexport.benchmarks.latency import share_of
from convexport.benchmarks.loops import Stream
from convexport.benchmarks.meter import LatencyOptions
from convexport.benchmarks.recording import Subject
from convexport.benchmarks.scenarios import (
    Scenario,
    ScenarioRecording,
    ScenarioResult,
    evaluate_scenario,
)
from convexport.benchmarks.workers import ask, environment

# A rate that held once by luck is lowered by so much, so many times.
_STEP, _TRIES = 0.9, 4
_PATIENCE_S = 3600.0


def run_scenarios(
    subjects: Sequence[Subject],
    scenarios: Sequence[Scenario],
    options: LatencyOptions,
    *,
    report: Callable[[str], None],
) -> list[ScenarioResult]:
    """Each subject alone in each scenario.

    Args:
        options: ``duration_s`` and ``processes`` of each; the batch is the scenario's own.
        report: is given a line of progress now and then.

    A server without a rate at which the bound holds is measured at the lowest that was tried.

    Raises:
        ConvexportError: as ``latency.bench``.
    """
    return [
        _settled(subject, scenario, options, report)
        for subject in subjects
        for scenario in scenarios
    ]


def _settled(
    subject: Subject,
    scenario: Scenario,
    options: LatencyOptions,
    report: Callable[[str], None],
) -> ScenarioResult:
    if scenario.name == "offline" and scenario.batch is None:
        found = _search(subject, scenario, options, report)
        chosen = replace(scenario, batch=found["batch"])
        return _measured(subject, chosen, options, report, tried=found["tried"])
    if scenario.name != "server" or scenario.qps is not None:
        return _measured(subject, scenario, options, report)
    found = _search(subject, scenario, options, report)
    tried = list(found["tried"])
    if found["qps"] is None:  # the tail says by how much, and nothing else measured is lost
        chosen = replace(scenario, qps=min(each["qps"] for each in tried))
        return _measured(subject, chosen, options, report, tried=tried)
    qps = float(found["qps"])
    for left in reversed(range(_TRIES)):
        chosen = replace(scenario, qps=qps)
        result = _measured(subject, chosen, options, report, tried=tried)
        # At a lower rate there are fewer requests still.
        too_few = qps * _STEP * options.duration_s < bound_floor(scenario.percent)
        if not left or (not result.given_up and (result.bound_kept or too_few)):
            break
        tried.append({"qps": qps, "requests": result.n, "held": False})
        qps *= _STEP
    return result


def _measured(
    subject: Subject,
    scenario: Scenario,
    options: LatencyOptions,
    report: Callable[[str], None],
    tried: Sequence[dict[str, Any]] = (),
) -> ScenarioResult:
    env, _ = environment()
    before = load_snapshot()
    answers = []
    rate = "" if scenario.qps is None else f" at {scenario.qps:.4g}/s"
    for index in range(options.processes):
        report(
            f"{scenario.name}{rate}, process {index + 1} of {options.processes}: {subject.label}"
        )
        share, extra = share_of(options, index), {"scenario": scenario.to_dict()}
        answers.append(ask("stream", [subject], share, env, traced=True, extra=extra))
    first: Mapping[str, Any] = answers[0].value
    return evaluate_scenario(
        ScenarioRecording(
            scenario=scenario,
            label=subject.label,
            sha256=subject.sha256,
            runtime=first["runtime"],
            provider=first["provider"],
            fixed_batch=first["fixed_batch"],
            options=options,
            streams=tuple(Stream.from_dict(each.value["stream"]) for each in answers),
            traces=tuple(each.trace for each in answers),
            load=load_between(before, load_snapshot()),
            cpus=affinity(),
            tried=tuple(tried),
            settled=tuple(each.value["settled"] for each in answers),
        )
    )


def _search(
    subject: Subject,
    scenario: Scenario,
    options: LatencyOptions,
    report: Callable[[str], None],
) -> dict[str, Any]:
    report(f"{scenario.name}: looking for a {'batch' if scenario.bound_ms is None else 'rate'}")
    env, _ = environment()
    # A hundred requests of a slow net at a low rate, seven times over, take their time.
    patient = replace(options, timeout_s=max(options.timeout_s, _PATIENCE_S))
    return ask("search", [subject], patient, env, extra={"scenario": scenario.to_dict()}).value
