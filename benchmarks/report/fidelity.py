"""The part of a page that says how near the shipped file is to the reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from convexport.benchmarks.report.blocks import (
    Block,
    Missing,
    Table,
    Words,
    decibels,
    interval,
    percent,
    points,
)
from convexport.benchmarks.report.headline import measure, named
from convexport.benchmarks.report.plots import differences
from convexport.benchmarks.report.thumbnails import MOST_OF_A_PAGE, shown
from convexport.benchmarks.report.verdict import (
    accuracy_of,
    largest_difference,
    parity_of,
    verified,
)

_Data = Mapping[str, Any]


def fidelity(report: _Data) -> Iterator[Block]:
    """Logits, decisions and labels, then single images."""
    rows = [(each["label"], *_parity_cells(parity_of(each))) for each in report["bundles"]]
    torch = report.get("torch_parity")
    if isinstance(torch, Mapping) and isinstance(report["latency"], Mapping):
        rows.append((report["latency"]["subjects"][0]["label"], *_parity_cells(torch)))
    columns = ("bundle", "images", "top-1 agreement", "top-5", "signal to noise",
               "largest difference", "least cosine")  # fmt: skip
    yield Table("Outputs against the reference", columns, tuple(rows))
    yield from _sets(report)
    judged = [(each, accuracy_of(each)) for each in report["bundles"]]
    known = [(bundle, accuracy) for bundle, accuracy in judged if accuracy is not None]
    if known:
        yield _accuracies("Top-1 against labels, paired", known)
    five = [(bundle, _top5(bundle)) for bundle in report["bundles"]]
    if any(found for _, found in five):
        rows5 = [(bundle, found) for bundle, found in five if found is not None]
        yield _accuracies("Top-5 against labels, paired", rows5)
    for bundle, accuracy in judged:
        if accuracy is None:
            yield Missing(named(report, bundle, "Accuracy"), measure(bundle, " --data DIR"))
    for bundle in report["bundles"]:
        yield from _images(report, bundle)


def _parity_cells(parity: _Data | None) -> tuple[str, ...]:
    if parity is None:
        return ("not measured",) + ("",) * 5
    moved = largest_difference(parity)
    difference = "not finite" if moved is None else f"{moved:.1e}"
    if "top1" not in parity:
        return str(parity["images"]), "not measured", "", "", difference, ""
    noise, top5, cosine = parity["sqnr_db"], parity["top5"], parity["cosine"]
    return (
        f"{parity['n']:,}",
        percent(parity["top1"]),
        f"{top5['k']}/{top5['n']}" if top5 else "",
        decibels(noise),
        difference,
        "not finite" if cosine is None else f"{cosine:.6f}",
    )


def _sets(report: _Data) -> Iterator[Block]:
    """On which images all of it was counted."""
    lines = []
    for bundle in report["bundles"]:
        found = verified(bundle)
        if found is None:
            continue
        said = [f"outputs compared on {found['parity_set']}"]
        if found.get("accuracy_set"):
            same = found["accuracy_set"] == found["parity_set"]
            crops = found.get("protocol", "1")
            said.append(
                f"labels on {'the same' if same else found['accuracy_set']}, "
                f"{'one crop' if crops == '1' else f'{crops} crops'} of each"
            )
        skipped = found.get("skipped") or {}
        if skipped.get("of"):
            said.append(f"{skipped['count']:,}/{skipped['of']:,} images skipped")
        lines.append(named(report, bundle, f"{'; '.join(said)}; {found['runtime']}."))
    if lines:
        yield Words("Counted on", tuple(line[0].upper() + line[1:] for line in lines))


def _top5(bundle: _Data) -> _Data | None:
    found = (verified(bundle) or {}).get("top5")
    return found if isinstance(found, Mapping) else None


def _accuracies(title: str, known: list[tuple[_Data, _Data]]) -> Table:
    rows = tuple(
        (
            bundle["label"],
            percent(found["reference"]),
            percent(found["actual"]),
            f"{points(found['drop_pp'])} pp",
            interval(found["low_pp"], found["high_pp"], "+.2f"),
            f"{found['only_reference']} / {found['only_actual']}",
            f"{found['p_value']:.3g}",
            f"below {found['margin_pp']:g} pp" if found["non_inferior"] else "not shown",
        )
        for bundle, found in known
    )
    columns = ("bundle", "reference", "this", "drop", "95 % interval, pp", "only either right",
               "McNemar p", "drop shown to be")  # fmt: skip
    return Table(title, columns, rows)


def _images(report: _Data, bundle: _Data) -> Iterator[Block]:
    """What is known of single images."""
    checked = bundle["verification"]
    found = checked if isinstance(checked, Mapping) else {}
    if "histogram" in found:
        yield differences(found["histogram"])
    else:
        yield Missing(named(report, bundle, "How far each logit moved"), measure(bundle))
    if "worst" in found:
        keys = ("image", "expected", "actual", "error")
        rows = tuple(tuple(_cell(each[key]) for key in keys) for each in found["worst"])
        most = MOST_OF_A_PAGE // len(report["bundles"])
        small = [shown(each.get("thumbnail")) for each in found["worst"][:most]]
        pictures = (*small, *[""] * (len(rows) - len(small)))
        title = named(report, bundle, "The images that moved most")
        yield Table(title, keys, rows, texts=3, pictures=pictures)
    else:
        yield Missing(named(report, bundle, "The images that moved most"), measure(bundle))
    if found.get("changed"):
        rows = tuple(
            (str(each["from"]), str(each["to"]), f"{each['count']:,}") for each in found["changed"]
        )
        columns = ("reference says", "this says", "images")
        yield Table(named(report, bundle, "Decisions that changed"), columns, rows, texts=2)
    elif "changed" in found:
        yield Words(named(report, bundle, "Decisions that changed"), ("None on these images.",))
    skipped = found.get("skipped") or {}
    if skipped.get("images"):
        left_out = tuple((str(each["image"]), str(each["reason"])) for each in skipped["images"])
        title = f"Images skipped, {skipped['count']:,} of {skipped['of']:,}"
        if len(left_out) < skipped["count"]:
            title += f"; the first {len(left_out)}"
        heads = ("image", "why")
        yield Table(named(report, bundle, title), heads, left_out, texts=2, shown=6)


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.4g}"
