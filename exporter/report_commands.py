"""``convexport report``: pages over what bundles measured, or measure now; and their check."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Group

from convexport.exporter.bench_commands import bench as bench_command
from convexport.exporter.bench_commands import extras_of
from convexport.exporter.commands import JSON, print_result
from convexport.runtime.errors import InputError, UsageError

_ALL = ("html", "markdown")
_OF_BENCH = ("scenarios", "qps", "bound_ms", "samples_per_query", "parts", "soak", "batches")


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Directory to write into.")
@click.option("--html", "only", flag_value="html", help="Beside the JSON only the page.")
@click.option("--markdown", "only", flag_value="markdown", help="Beside the JSON only Markdown.")
@click.option("--bench", type=click.Path(path_type=Path), help="What bench --save wrote of them.")
@click.option(
    "--verify",
    multiple=True,
    type=click.Path(path_type=Path),
    help="What verify --json or merge --json printed of one of them; as often as you like.",
)
@click.option("--measure", is_flag=True, help="Measure all of them now, here, side by side.")
@click.option("--data", help="With --measure: labelled images, a folder a class; or digits.")
@click.option("--seconds", type=float, help="With --measure, for each model.  [default: 10]")
@click.option("--batch", type=int, help="With --measure.  [default: the bundle's own, or 1]")
@JSON
def report(
    sources: tuple[Path, ...], output: Path | None, only: str | None, as_json: bool, **given: Any
) -> None:
    """Write report.html, report.json and report.md.

    SOURCE is a bundle, several bundles of one net, or a report.json. What they measured is shown;
    nothing is measured without --measure, which takes bench's options, too. With --bench it is
    what `bench --save` wrote.

    convexport report verify FILE computes every number of a report.json again, and compares
    hashes with the files beside it: exit code 3 where something differs."""
    if str(sources[0]) == "verify":
        _refuse(**({only: only} if only else {}), output=output, **given)
        return _check(sources[1:], as_json)
    if given["measure"]:
        _refuse(needed="bundles that are not measured now", bench=given["bench"])
        if given["data"] is not None:
            _refuse(needed="images counted apart, --data counts them now", verify=given["verify"])
        found = _measured(sources, given)
    else:
        now = ("data", "seconds", "batch", *_OF_BENCH)
        _refuse(needed="--measure", **{name: given[name] for name in now})
        found = _found(sources, given["bench"])
    if given["verify"]:
        from convexport.benchmarks.report.measured import with_verifications

        found = with_verifications(found, given["verify"])
    written = _written(found, output or Path("report"), only)
    print_result(as_json, {"written": [str(path) for path in written], "report": found},
           lambda: _as_text(found, written))  # fmt: skip


def _found(sources: tuple[Path, ...], bench: Path | None) -> dict[str, Any]:
    from convexport.benchmarks.report.document import of_bundles, read_report

    if bench is not None:
        from convexport.benchmarks.report.measured import of_benchmark
        from convexport.runtime.files import read_json

        return of_benchmark(sources, read_json(bench, limit=1 << 30))
    if len(sources) == 1 and not sources[0].is_dir():
        return read_report(_existing(sources[0]))
    return of_bundles(sources)


def _measured(sources: tuple[Path, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    from convexport.benchmarks.bundle_subjects import batch_for, read_bundles
    from convexport.benchmarks.latency import LatencyOptions
    from convexport.benchmarks.report.measured import measured
    from convexport.exporter.console import ConsoleEvents
    from convexport.exporter.verify_command import images_of, partial_of

    extras, images = extras_of(given), images_of(given["data"])
    batch = batch_for(read_bundles(sources), given["batch"])
    options = LatencyOptions(batch=batch)
    if given["seconds"] is not None:
        options = replace(options, duration_s=given["seconds"])
    events = ConsoleEvents()
    events.start("report")
    try:
        return measured(
            sources,
            images,
            options,
            extras,
            report=events.detail,
            progress=events.advance,
            partial=partial_of,
        )
    finally:
        events.close()


def _existing(path: Path) -> Path:
    if not path.exists():
        raise InputError(
            "E0395",
            "there is no bundle and no report of that name",
            where=str(path),
            hint="name a bundle's directory, or a report.json",
        )
    return path


def _written(found: Mapping[str, Any], output: Path, only: str | None) -> list[Path]:
    from convexport.benchmarks.report.render import files
    from convexport.runtime.files import storage_errors, write_atomically

    wanted = {kind: only in (None, kind) for kind in _ALL}
    contents = files(found, **wanted)
    with storage_errors(output):
        output.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(output / name, content)
    return [output / name for name in contents]


def _check(paths: tuple[Path, ...], as_json: bool) -> None:
    from convexport.benchmarks.report.check import check

    if len(paths) != 1:
        raise UsageError("E0296", "report verify takes one report.json", hint="name its file")
    path = _existing(paths[0] / "report.json" if paths[0].is_dir() else paths[0])
    found = check(path)
    print_result(as_json, found.to_dict(), lambda: _checked_text(found, path))
    if found.differences:
        sys.exit(3)


def _checked_text(found: Any, path: Path) -> Any:
    from convexport.exporter.console import line

    done = (
        f"{found.samples:,} samples, {found.counts} counted shares and {found.files} files "
        "computed again"
    )
    if not found.differences:
        return line(f"{path}: as it was written; {done}", style="green")
    head = line(f"{path}: {len(found.differences)} differences; {done}", style="bold red")
    return Group(head, *(line(f"  {each}", style="red") for each in found.differences))


def _as_text(found: Mapping[str, Any], written: list[Path]) -> Any:
    from convexport.benchmarks.report.render import overview
    from convexport.exporter.console import line, table

    parts = overview(found)
    verdict = found["verdict"]
    reasons = dict.fromkeys(each for row in verdict["bundles"].values() for each in row["reasons"])
    return Group(
        table(parts.columns[:7], (row[:7] for row in parts.rows), texts=2),
        *(line(f"{row[0]}: {row[7]}") for row in parts.rows),
        line(verdict["verdict"], style="green" if verdict["verdict"] == "PASS" else "yellow"),
        *(line(f"  {each}", style="yellow") for each in reasons),
        *(line(str(path), style="dim") for path in written),
    )


def _refuse(*, needed: str = "", **options: Any) -> None:
    flags = {param.name: param.opts[0] for param in report.params}
    for name, value in options.items():
        if value is not None and value is not False and value != ():
            flag = flags.get(name, f"--{name}")
            what = f"{flag} is for {needed}" if needed else f"{flag} is not for report verify"
            raise UsageError("E0296", what, hint=f"leave {flag} out")


report.params += [each for each in bench_command.params if each.name in _OF_BENCH]
