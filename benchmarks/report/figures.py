"""The report's own figures: how long one takes to write, and how large it is."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from convexport.benchmarks.figures import CLI, run, succeeded

_RUNS = 11
# What writing takes beside starting Python and reading the report.
_REPORT_STEPS = """
import sys, time
from pathlib import Path
from convexport.benchmarks.report.document import read_report
from convexport.benchmarks.report.render import files
report = read_report(Path(sys.argv[1]))
start = time.perf_counter()
found = files(report)
print(time.perf_counter() - start, *(f"{name}={len(data)}" for name, data in found.items()))
"""


def report(out: Path, nets: Sequence[str]) -> list[str]:
    """Time to write and size of a report of a build with five processes and 10 s a model."""
    lines = []
    for name in nets or ("lenet5",):
        options = ("--int8", "--weights", "digits", "--bench-seconds", "10", "--json", "--offline")
        places = ("-o", str(out / name), "--cache-dir", str(out / "cache"))
        done = succeeded(run((*CLI, "build", name, *options, *places)), name)
        rows = json.loads(done.output)["report"]["latency"]["subjects"]
        file = out / name / "report.json"
        ended = [succeeded(run((sys.executable, "-c", _REPORT_STEPS, str(file))), "report")
                 for _ in range(_RUNS)]  # fmt: skip
        times = sorted(float(each.output.split()[0]) for each in ended)
        whole = sorted(
            succeeded(
                run((*CLI, "report", str(out / name), "-o", str(out / "pages"))), name
            ).seconds
            for _ in range(_RUNS)
        )
        sizes = (each.split("=") for each in ended[0].output.split()[1:])
        lines += [
            f"{name}: {sum(row['n'] for row in rows):,} samples of {len(rows)} models",
            f"  writing               {statistics.median(times):.3f} s  "
            f"({times[0]:.3f}–{times[-1]:.3f}, n={_RUNS}), Jinja2's import included",
            f"  convexport report     {statistics.median(whole):.3f} s  "
            f"({whole[0]:.3f}–{whole[-1]:.3f}, n={_RUNS})",
            "  " + ", ".join(f"{each} {int(size) / 1e3:,.0f} kB" for each, size in sizes),
        ]
    return lines
