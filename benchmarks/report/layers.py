"""Where the time goes and where the noise comes from, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from convexport.benchmarks.report.blocks import Block, Missing, Table, Words
from convexport.benchmarks.report.headline import measure, named

_Data = Mapping[str, Any]

# Of the thousand layers of the deepest nets; the JSON has all.
_MOST = 300


def layer_blocks(report: _Data) -> Iterator[Block]:
    """Time and noise of each layer, bundle by bundle."""
    for bundle in report["bundles"]:
        if isinstance(bundle["layers"], Mapping):
            yield from _times(report, bundle)
        else:
            yield Missing(named(report, bundle, "The time of each layer"), measure(bundle))
        calibration = bundle["calibration"]
        if calibration and calibration["layers"]:
            title = named(report, bundle, "Own noise of each layer, noisiest first (60 dB to 0)")
            yield _noise(title, calibration["layers"])


def _noise(title: str, layers: Sequence[_Data]) -> Table:
    noise = [each["sqnr_db"] for each in layers[:_MOST]]
    said = ["not finite" if each is None else f"{each:.1f} dB" for each in noise]
    rows = tuple(
        (each["layer"], each["operator"], each["precision"], text)
        for each, text in zip(layers, said, strict=False)
    )
    bars = tuple(1.0 if each is None else min(max((60 - each) / 60, 0.0), 1.0) for each in noise)
    columns = ("layer", "operator", "precision", "own signal to noise")
    return Table(_cut(title, layers), columns, rows, texts=3, bars=bars)


def _cut(title: str, layers: Sequence[_Data]) -> str:
    return title if len(layers) <= _MOST else f"{title}, {_MOST} of {len(layers)}"


def _times(report: _Data, bundle: _Data) -> Iterator[Block]:
    found = bundle["layers"]
    conditions = found.get("conditions")
    facts = [f"The net reaches {found['fraction']:.0%} of what was measured as possible."]
    if found.get("peak_ops_per_s"):
        facts.append(f"Measured peak: {found['peak_ops_per_s'] / 1e9:,.1f} GOP/s.")
    if found.get("peak_bytes_per_s"):
        rate = found["peak_bytes_per_s"] / 1e9
        facts.append(f"Measured memory bandwidth: {rate:,.1f} GB/s, read and written.")
    if isinstance(conditions, Mapping):
        plain = (
            f"{key} {value}" for key, value in conditions.items() if isinstance(value, str | int)
        )
        facts.append(", ".join(plain).replace("_", " ") + ".")
    facts += found.get("notes", [])
    yield Words(named(report, bundle, "How near to the machine's limit"), tuple(facts))
    layers = found["layers"][:_MOST]
    rows = tuple(
        (
            each["name"],
            each["op"],
            each["precision"],
            str(each["bound"]),
            f"{each['ms']:.4g} ms",
            f"{each['share']:.1%}",
            f"{(each['ops'] or 0) / 1e6:,.2f}",
            f"{(each['bytes'] or 0) / 1e3:,.1f}",
            "" if each["fraction"] is None else f"{each['fraction']:.0%}",
        )
        for each in layers
    )
    columns = ("layer", "operator", "precision", "bound by", "time", "share", "M operations", "kB",
               "of the roof")  # fmt: skip
    largest = max((each["share"] for each in layers), default=1) or 1
    bars = tuple(each["share"] / largest for each in layers)
    title = _cut(named(report, bundle, "Time of each layer"), found["layers"])
    yield Table(title, columns, rows, texts=4, bars=bars)
