"""The sweep: every variant built in FP32 and INT8 on the CPU, and what came of it as a table.

    python -m convexport.benchmarks.sweep --results FILE [--net NAME]... [--table docs/zoo.md]

Each variant is built by the command line in fresh processes, as a user would build it, with
random weights and stand-in images. Results are appended to a file as they come: a sweep that was
interrupted goes on where it stopped. All variants take hours on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import inspect
import json
import pkgutil
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from convexport.architectures import families
from convexport.architectures.registry import find, variants
from convexport.benchmarks.figures import CLI, reason, run
from convexport.benchmarks.host import describe_host

_CALIBRATION_IMAGES = 32
# A quarter of what a build takes by default: the large nets need seconds for each.
_PARITY_IMAGES = 16
# One method for all: what another would do better is a matter of single nets.
_METHOD = ("--method", "percentile", "--repair", "none")

Row = dict[str, Any]


def measure(name: str, scratch: Path) -> Row:
    """Build a variant in both precisions; the second build takes the first one's stages."""
    host = describe_host()
    try:
        images = ("--parity-images", str(_PARITY_IMAGES))
        fp32 = _build(name, scratch, "fp32", *images)
        calibration = ("--calib-images", str(_CALIBRATION_IMAGES))
        int8 = _build(name, scratch, "int8", *images, *calibration, *_METHOD)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {
        "name": name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "host": {key: host[key] for key in ("cpu", "cpus")},
        "fp32": fp32,
        "int8": int8,
    }


def _build(name: str, scratch: Path, precision: str, *more: str) -> Row:
    bundle = scratch / precision
    options = ("--weights", "random", "--bench-seconds", "0", "--offline", "--json")
    places = ("-o", str(bundle), "--cache-dir", str(scratch / "cache"))
    done = run((*CLI, "build", name, f"--{precision}", *options, *more, *places))
    cost = {"seconds": round(done.seconds, 1), "peak_mb": round(done.peak_mb)}
    if done.code != 0:
        return {**cost, "error": reason(done)}
    manifest = json.loads(done.output)["manifest"]
    return {
        **cost,
        "bytes": (bundle / manifest["model"]).stat().st_size,
        "graph": manifest["graph"],
        "parity": manifest["parity"],
        "precisions": manifest["layers"],
        "versions": manifest["versions"],
    }


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The results in Markdown, in the order of the zoo."""
    hosts = {f"{row['host']['cpu']}, {row['host']['cpus']} cores" for row in rows}
    built = [row["fp32"] for row in rows if "error" not in row["fp32"]]
    versions = {
        tool: " and ".join(sorted({each["versions"][tool] for each in built}))
        for tool in (built[0]["versions"] if built else ())
    }
    dates = sorted(row["date"] for row in rows)
    days = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    yield from (
        "# The zoo, built",
        "",
        "Written by `python -m convexport.benchmarks.sweep`; do not edit.",
        "",
        f"{len(rows)} of {sum(bool(row.num_classes) for row in variants().values())} nets, "
        f"{days}, {' and '.join(sorted(hosts))}; "
        + ", ".join(f"{tool} {version}" for tool, version in versions.items())
        + ".",
        "",
        "Random weights and stand-in images: nothing here says how accurate a trained net is. FP32 "
        "parity is the largest difference to PyTorch as a share of the largest logit, on as many "
        "images as the column for the top-1 counts, and at batch 1, 3 and 8, the worse of export "
        f"and simplification; the limit is 1e-4. INT8 was calibrated with {_CALIBRATION_IMAGES} "
        "images, at the 99.999th percentile, and compared with the PyTorch reference on others; "
        "below 3 dB a build is refused. Seconds are those of the FP32 build and of "
        "the INT8 build after it, whatever else the machine did meanwhile.",
        "",
        "| variant | parameters | nodes | FP32 MB | FP32 parity | INT8 MB | INT8 layers "
        "| signal to noise | same top-1 | seconds | peak MB |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    )
    for row in rows:
        yield "| " + " | ".join(_cells(row)) + " |"
    yield from _failures(rows)
    yield from _lines_of_code()


def _cells(row: Mapping[str, Any]) -> Iterator[str]:
    fp32, int8 = row["fp32"], row["int8"]
    yield row["name"]
    yield f"{find(row['name']).counts.params:,}"
    if "error" in fp32:
        yield from ("", "", "failed, see below")
    else:
        parity = [fp32["parity"][stage]["max_rel"] for stage in ("export", "simplify")]
        yield str(fp32["graph"]["nodes"])
        yield _megabytes(fp32)
        yield f"{max(value for each in parity for value in each.values()):.1e}"
    if "error" in int8:
        yield from ("", "", "failed, see below", "")
    else:
        quantized = int8["parity"]["quantize"]
        precisions = list(int8["precisions"].values())
        yield _megabytes(int8)
        yield f"{precisions.count('int8')}/{len(precisions)}"
        noise = quantized["sqnr_db"]
        yield "no noise" if noise is None else f"{noise:.1f} dB"
        yield f"{quantized['top1']['k']}/{quantized['top1']['n']}"
    yield f"{fp32['seconds']:.0f} + {int8['seconds']:.0f}"
    yield f"{max(fp32['peak_mb'], int8['peak_mb']):,}"


def _megabytes(built: Mapping[str, Any]) -> str:
    return f"{built['bytes'] / 1e6:.1f}"


def _failures(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    failed = [
        (row["name"], precision, row[precision]["error"])
        for row in rows
        for precision in ("fp32", "int8")
        if "error" in row[precision]
    ]
    if not failed:
        yield from ("", "All of these were built in both precisions.")
        return
    yield from ("", "## Not built", "")
    for name, precision, why in failed:
        yield f"- {name} in {precision.upper()}: {why}"


def _lines_of_code() -> Iterator[str]:
    """What the definitions take: lines that are not blank, docstrings and comments included."""
    yield from ("", "## Lines of code", "", "| file | variants | lines |", "|---|--:|--:|")
    total = 0
    for module in sorted(pkgutil.iter_modules(families.__path__), key=lambda each: each.name):
        file = importlib.import_module(f"{families.__name__}.{module.name}")
        lines = sum(bool(line.strip()) for line in inspect.getsource(file).splitlines())
        total += lines
        yield f"| {module.name} | {len(getattr(file, 'VARIANTS', ()))} | {lines} |"
    yield f"| all | {len(variants())} | {total} |"


def read_results(path: Path) -> dict[str, Row]:
    """The rows of a results file by variant; of several for one the last counts."""
    if not path.is_file():
        return {}
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):  # cut where the sweep was killed
            rows.append(json.loads(line))
    return {row["name"]: row for row in rows}


def main() -> None:
    """Measure what is missing, then write the table if one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--net", action="append", default=[], help="only this variant")
    parser.add_argument("--table", type=Path, help="write the Markdown table here")
    arguments = parser.parse_args()
    classifiers = [name for name, row in variants().items() if row.num_classes]
    for name in [find(net).name for net in arguments.net] or classifiers:
        if name in read_results(arguments.results):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            row = measure(name, Path(scratch) / "build")
        with arguments.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(*_cells(row), file=sys.stderr, flush=True)
    if arguments.table:
        rows = read_results(arguments.results)
        known = [rows[name] for name in variants() if name in rows]
        if not known:
            raise SystemExit("there are no results yet: nothing to write a table of")
        arguments.table.write_text("\n".join(table(known)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
