"""A report document as a page, as Markdown for a pull request, and as lines of a terminal."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from convexport.benchmarks.report.blocks import Missing, Section, Table, visible
from convexport.benchmarks.report.check import PAGE
from convexport.benchmarks.report.conditions import conditions
from convexport.benchmarks.report.document import MALFORMED, REPORT, malformed
from convexport.benchmarks.report.headline import (
    RANDOM_WEIGHTS,
    advice,
    agreement,
    headline,
)
from convexport.benchmarks.report.sections import picture, sections
from convexport.runtime.errors import ConvexportError
from convexport.runtime.files import json_bytes
from convexport.runtime.optional import require

MARKDOWN = "report.md"
_TEMPLATES = Path(__file__).with_name("templates")
# What Markdown or HTML inside it would read as markup.
_MARKUP = re.compile(r"([\\`*_\[\]<>#!|~$@&]|:(?=//)|(?<=[wW])\.)")

_Data = Mapping[str, Any]


def files(report: _Data, *, html: bool = True, markdown: bool = True) -> dict[str, bytes]:
    """What is written into a directory: file name -> bytes; the JSON always.

    Raises:
        InputError: E0360 or E0361, it holds no samples where it should; E0379, it lacks what
            every report has.
        MachineError: E0401, Jinja2 is not installed.
    """
    data = json_bytes(report)
    found = {REPORT: data}
    if html:
        found[PAGE] = page(report, hashlib.sha256(data).hexdigest()).encode(errors="replace")
    if markdown:
        found[MARKDOWN] = as_markdown(report).encode(errors="replace")
    return found


def page(report: _Data, digest: str) -> str:
    """One HTML file that needs nothing else: no script, no font, no picture from elsewhere.

    Args:
        digest: SHA-256 of the JSON file that it shows, in hex.
    """
    jinja2 = require("jinja2", purpose="a report page")
    try:
        content = {
            "title": title(report),
            "subtitle": _subtitle(report),
            "written": _written(report),
            "verdict": report["verdict"]["verdict"],
            "headlines": [headline(report, each) for each in report["bundles"]],
            "overview": overview(report),
            "advice": advice(report["verdict"]["verdict"], _label(report)),
            "random": RANDOM_WEIGHTS if any(b["random_weights"] for b in report["bundles"]) else "",
            "picture": picture(report) if len(report["bundles"]) > 1 else None,
            "all_reasons": _reasons(report),
            "agreements": {each["label"]: agreement(each) for each in report["bundles"]},
            "sections": [_tidy(each) for each in (*sections(report), *conditions(report))],
            "style": (_TEMPLATES / "report.css").read_text(encoding="utf-8"),
            "digest": digest,
        }
    except ConvexportError:
        raise
    except MALFORMED as error:
        raise malformed(Path(REPORT), error) from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Markup of ours is left alone.
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    return str(environment.get_template("report.html.j2").render(content))


def title(report: _Data) -> str:
    """The name of the net; bundles of one report are of one net."""
    return str(report["bundles"][0]["name"])


def overview(report: _Data) -> Table:
    """One row a bundle: the headline as a table."""
    rows = []
    for bundle in report["bundles"]:
        head = headline(report, bundle)
        speedup, latency, accuracy, space, memory = head.tiles
        first = f"{speedup.value}{speedup.unit}"
        if speedup.unit:
            first += f" ({speedup.detail.partition(' against')[0]})"
        others = (
            f"{each.value} {each.unit}".strip() for each in (latency, accuracy, space, memory)
        )
        rows.append((head.label, head.verdict, first, *others, agreement(bundle)))
    columns = ("bundle", "verdict", "speed-up", "median", "top-1 change", "model file",
               "peak memory", "against the reference")  # fmt: skip
    return Table("At a glance", columns, tuple(rows), texts=2)


def as_markdown(report: _Data) -> str:
    """The short form: verdict, headline table, conditions.

    Raises:
        InputError: E0379, it lacks what every report has.
    """
    try:
        table, latency = overview(report), report["latency"]
        host = report["environment"].get("cpu")
        lines = [f"### {_plain(title(report))}: {_plain(report['verdict']['verdict'])}", ""]
        if any(each["random_weights"] for each in report["bundles"]):
            lines += [f"**{RANDOM_WEIGHTS}**", ""]
        lines += ["| " + " | ".join(table.columns) + " |", "|---|---|" + "--:|" * 6]
        lines += ["| " + " | ".join(map(_plain, row)) + " |" for row in table.rows]
        lines += ["", *(f"- {_plain(each)}" for each in _reasons(report))]
        measured = "latency not measured side by side"
        if isinstance(latency, Mapping):
            found = latency["conditions"]
            measured = (
                f"batch {found['batch']}, {found['threads']} threads, {found['processes']} "
                f"processes, {found['duration_s']:g} s each, loop: {found['loop']}"
            )
        under = f"{host}; {measured}; {_written(report)}. Intervals are of 95 %."
        lines += ["", f"<sub>{_plain(under)}</sub>", ""]
    except MALFORMED as error:
        raise malformed(Path(REPORT), error) from error
    return "\n".join(lines)


def _subtitle(report: _Data) -> str:
    first = report["bundles"][0]
    many = len(report["bundles"])
    what = f"{many} bundles" if many > 1 else f"{first['precision']} for {first['target']}"
    environment = report["environment"]
    cpus = environment.get("cpus")
    where = (
        f"{environment.get('cpu') or 'an unknown CPU'}, {cpus} {'core' if cpus == 1 else 'cores'}"
    )
    return f"{what} · {where} · {report['created'][:10]}"


def _written(report: _Data) -> str:
    return f"convexport {report['convexport']}, {report['created']}"


def _tidy(section: Section) -> Section:
    """What is missing stands behind what is there."""
    ordered = sorted(section.blocks, key=lambda block: isinstance(block, Missing))
    return replace(section, blocks=tuple(ordered))


def _reasons(report: _Data) -> tuple[str, ...]:
    """Of all bundles, each once."""
    found = report["verdict"]["bundles"].values()
    return tuple(dict.fromkeys(each for bundle in found for each in bundle["reasons"]))


def _label(report: _Data) -> str:
    return " ".join(each["label"] for each in report["bundles"])


def _plain(text: Any) -> str:
    """Text that stays text in Markdown, on one line."""
    return _MARKUP.sub(r"\\\1", visible(str(text)))
