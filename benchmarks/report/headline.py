"""The first screen: a bundle's verdict in a sentence, and its figures with their doubts."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from convexport.benchmarks.latency_result import UNSTABLE
from convexport.benchmarks.report.blocks import (
    Headline,
    Tile,
    agreed,
    interval,
    milliseconds,
    points,
    size,
)
from convexport.benchmarks.report.verdict import (
    FAIL,
    PASS,
    UNKNOWN,
    accuracy_of,
    largest_difference,
    latency_of,
    parity_of,
)

RANDOM_WEIGHTS = (
    "Random weights: this net, or its last layer, was never trained. Its speed and its size mean "
    "something; its answers mean nothing."
)
_NONE = "not measured"
_ADVICE = {
    PASS: "",
    FAIL: "Do not ship it: build it in another precision or with another method, "
    "convexport diagnose says which layers lose most.",
    UNKNOWN: "convexport report {bundle} --measure measures what is missing, here.",
    UNSTABLE: "Another run may give other figures. Measure again for 10 s or longer on a quiet "
    "machine with fixed clocks: convexport report {bundle} --measure.",
}

_Data = Mapping[str, Any]


def headline(report: _Data, bundle: _Data) -> Headline:
    """What a reader has to know of a bundle first."""
    label = bundle["label"]
    verdict = report["verdict"]["bundles"][label]
    timed = latency_of(report, bundle)
    if timed and parity_of(bundle) is None:  # faster than what, if the answers may be others?
        sentence = "It was timed, but its outputs were not compared with the reference."
        none = (Tile(each, "no parity", "") for each in ("Speed-up", "Latency, median"))
        tiles = (*none, _accuracy(bundle), _size(bundle), _memory(timed))
        return Headline(label, verdict["verdict"], tuple(verdict["reasons"]), sentence, tiles)
    tiles = (
        _speedup(timed),
        _latency(timed),
        _accuracy(bundle),
        _size(bundle),
        _memory(timed),
    )
    return Headline(label, verdict["verdict"], tuple(verdict["reasons"]), _sentence(timed), tiles)


def advice(verdict: str, bundle: str) -> str:
    """What to do about a verdict."""
    return _ADVICE.get(verdict, "").format(bundle=bundle)


def measure(bundle: _Data, more: str = "") -> str:
    """The command that measures what is missing."""
    return f"convexport report {shlex.quote(bundle['label'])} --measure{more}"


def named(report: _Data, bundle: _Data, what: str) -> str:
    """With the bundle's name, where there are several."""
    return what if len(report["bundles"]) == 1 else f"{bundle['label']}: {what}"


def agreement(bundle: _Data) -> str:
    """How near the shipped file is to the reference, in a few words."""
    parity = parity_of(bundle)
    if parity is None:
        return _NONE
    if "top1" not in parity:
        return f"off by at most {largest_difference(parity):.1e} of the largest logit"
    return agreed(parity)


def _sentence(timed: tuple[_Data, _Data] | None) -> str:
    if timed is None:
        return "Its latency was not measured."
    latency, row = timed
    speedup, first = row["speedup"], latency["subjects"][0]["label"]
    p50 = row["percentiles_ms"]["p50"]["value"]
    half = f"half of all calls take at most {milliseconds(p50)}"
    if p50 is None:
        half = f"{row['n']:,} calls are too few for a median"
    if speedup is None:
        return f"{half[0].upper()}{half[1:]}. Nothing was measured beside it."
    words = {
        "faster": f"{speedup['value']:.2f} times as fast as {first}",
        "slower": f"Slower than {first}, {speedup['value']:.2f} times as fast",
    }
    unproven = f"Not shown to be faster than {first}"
    said = words.get(speedup["claim"], unproven)
    if latency["verdict"] == UNSTABLE:
        said = f"In this run {said[0].lower()}{said[1:]}"
    return f"{said}; {half}."


def _speedup(timed: tuple[_Data, _Data] | None) -> Tile:
    name = "Speed-up"
    if timed is None or timed[1]["speedup"] is None:
        return Tile(name, _NONE, "nothing was measured beside it" if timed else "")
    speedup, first = timed[1]["speedup"], timed[0]["subjects"][0]["label"]
    ends = interval(speedup["low"], speedup["high"], ".2f") or "no interval"
    doubt = "" if speedup["claim"] == "faster" else f", {speedup['claim']}"
    detail = f"{ends} against {first}, {speedup['processes']} processes{doubt}"
    return Tile(name, f"{speedup['value']:.2f}", detail, "×")


def _latency(timed: tuple[_Data, _Data] | None) -> Tile:
    name = "Latency, median"
    if timed is None:
        return Tile(name, _NONE, "")
    latency, row = timed
    p50 = row["percentiles_ms"]["p50"]
    detail = (
        f"n = {row['n']:,}, batch {latency['conditions']['batch']}, "
        f"{latency['conditions']['threads']} threads"
    )
    if p50["value"] is None:
        return Tile(name, "n too small", detail)
    value, _, unit = milliseconds(p50["value"]).rpartition(" ")
    return Tile(
        name, value, f"{interval(p50['low'], p50['high']) or 'no interval'}; {detail}", unit
    )


def _accuracy(bundle: _Data) -> Tile:
    name, accuracy = "Top-1 change", accuracy_of(bundle)
    if accuracy is None:
        return Tile(name, _NONE, "no labelled images: --measure --data DIR")
    ends = interval(-accuracy["high_pp"], -accuracy["low_pp"], "+.2f")
    before, after = accuracy["reference"], accuracy["actual"]
    sides = f"{before['share']:.2%} → {after['share']:.2%}, n = {before['n']:,}"
    nothing = "; random weights, it means nothing" if bundle["random_weights"] else ""
    return Tile(name, points(-accuracy["drop_pp"]), f"{ends}; {sides}{nothing}", "pp")


def _size(bundle: _Data) -> Tile:
    files = bundle["files"]
    own, whole = files[bundle["model"]]["bytes"], files[bundle["reference"]]["bytes"]
    value, _, unit = size(own).rpartition(" ")
    if bundle["model_sha256"] == files[bundle["reference"]]["sha256"]:
        return Tile("Model file", value, "the FP32 file itself", unit)
    return Tile("Model file", value, f"{own / whole:.0%} of FP32's {size(whole)}", unit)


def _memory(timed: tuple[_Data, _Data] | None) -> Tile:
    name = "Peak memory"
    if timed is None or timed[1]["peak_rss_bytes"] is None:
        return Tile(name, _NONE, "")
    latency, row = timed
    value, _, unit = size(row["peak_rss_bytes"]).rpartition(" ")
    own = row["peak_rss_bytes"] - (row["baseline_rss_bytes"] or 0)
    first = latency["subjects"][0]
    beside = f"; {first['label']}: {size(first['peak_rss_bytes'])}" if first is not row else ""
    return Tile(name, value, f"{size(own)} above the empty runtime{beside}", unit)
