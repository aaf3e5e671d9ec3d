"""``list`` and ``show``: what the zoo says of its nets."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from rich.console import Group
from rich.text import Text

from convexport.architectures import registry
from convexport.architectures.diagram import diagram
from convexport.architectures.ensemble import EnsembleConfig
from convexport.architectures.facts import layer_table
from convexport.architectures.layers import drop_auxiliary_heads
from convexport.architectures.variant import Variant
from convexport.exporter.console import table
from convexport.exporter.targets import AUTO, TARGETS
from convexport.runtime.errors import UsageError, did_you_mean

Row = dict[str, Any]


def listing(family: str | None) -> list[Row]:
    """Every variant's facts, or those of one family.

    Raises:
        UsageError: E0285, there is no such family.
    """
    rows = [_facts(variant) for variant in registry.variants().values()]
    families = list(dict.fromkeys(row["family"] for row in rows))
    if family is not None and family not in families:
        hint = did_you_mean(family, families, otherwise=f"one of {', '.join(families)}")
        raise UsageError("E0285", f"there is no family {family!r}", hint=hint)
    return [row for row in rows if family in (None, row["family"])]


def listing_table(rows: list[Row]) -> Any:
    """The rows for a terminal."""
    columns = ("name", "year", "input", "classes", "params", "MACs", "weights")
    cells = (
        (
            row["name"],
            row["year"],
            _shape(row["input"]),
            row["classes"],
            f"{row['params'] / 1e6:.2f} M",
            _operations(row["macs"]),
            ", ".join(kind for kind in row["weights"] if kind != "random"),
        )
        for row in rows
    )
    return Group(
        table(columns, cells),
        Text("\nAny net can also have random weights, or yours: --weights FILE.", style="dim"),
        Text(f"Each is built for a --target: {', '.join(TARGETS)}, or {AUTO}.", style="dim"),
    )


def description(name: str) -> Row:
    """One variant's facts with its layers.

    Raises:
        UsageError: E0220, there is no such variant; E0225, E0226, no such ensemble.
    """
    variant = registry.find(name)
    with torch.device("meta"):
        module = drop_auxiliary_heads(registry.create(name))
    layers = layer_table(module, variant.input)
    return {
        **_facts(variant),
        "diagram": diagram(module, variant.input),
        "preprocess": variant.preprocess.to_dict() if variant.num_classes else None,
        "published": [
            {**asdict(each), "conditions": "ImageNet, 1 crop, as the publisher states"}
            for each in variant.published
        ],
        "layers": [{**asdict(layer), "output": list(layer.output)} for layer in layers],
    }


def description_table(facts: Row) -> Any:
    """The facts for a terminal."""
    head = [
        f"{facts['name']}  {facts['title']}, {facts['year']}",
        f"{facts['paper']}",
        f"input {_shape(facts['input'])}, {facts['classes'] or 'no'} classes, "
        f"{facts['params']:,} parameters, {facts['macs']:,} multiply-adds, "
        f"{facts['weight_layers']} layers with weights",
    ]
    if facts["layout"]:
        head.append(f"loads checkpoints of {facts['layout']} unchanged")
    if facts["reported"]:
        head.append(f"reported: {facts['reported']}")
    if facts["notes"]:
        head.append(f"note: {facts['notes']}")
    head += [
        f"weights {each['name']} of {each['source']}: top-1 {each['top1']} %, top-5 "
        f"{each['top5']} % ({each['conditions']}); {each['licence']}, {each['url']}"
        for each in facts["published"]
    ]
    columns = ("layer", "kind", "output", "params", "MACs")
    rows = (
        (
            layer["path"],
            layer["kind"],
            _shape(layer["output"]),
            f"{layer['params']:,}",
            f"{layer['macs']:,}",
        )
        for layer in facts["layers"]
    )
    drawing = Text("\n".join(facts["diagram"]) + "\n", no_wrap=True, overflow="ignore")
    return Group(Text("\n".join(head) + "\n"), drawing, table(columns, rows))


def _facts(variant: Variant) -> Row:
    return {
        "name": variant.name,
        "family": variant.family,
        "year": variant.paper.year,
        "title": variant.paper.title,
        "paper": variant.paper.url,
        "input": list(variant.input),
        "classes": variant.num_classes,
        **variant.counts._asdict(),
        "layout": variant.layout,
        "notes": variant.notes,
        "reported": variant.reported,
        "weights": _weights(variant),
    }


def _weights(variant: Variant) -> list[str]:
    """The words that ``--weights`` takes for it: of an ensemble those that all members take."""
    if isinstance(variant.net, EnsembleConfig):
        kinds = [_weights(member.variant) for member in variant.net.members]
        return [kind for kind in kinds[0] if all(kind in other for other in kinds)]
    if not variant.num_classes:
        return []
    return [
        *(["pretrained"] if any(each.sha256 for each in variant.published) else []),
        *(["digits"] if variant.digits else []),
        "random",
    ]


def _shape(shape: list[int]) -> str:
    return "×".join(str(size) for size in shape)


def _operations(macs: int) -> str:
    return f"{macs / 1e9:.2f} G" if macs >= 1e9 else f"{macs / 1e6:.1f} M"
