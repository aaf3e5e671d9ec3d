"""convexport beside other quantizers: the same FP32 file, the same images, the same machine.

    python benchmarks/peers/compare.py calibrate | error | latency | table ...

README.md here says how to make the environment of the others. Every row is written as soon as it
is measured; a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import calibrating
import timing
from bench_setup import Setup
from guard import Limits
from nets import prepare
from output_error import output_error
from results import Results
from tables import write_tables
from tools import PEERS, choose


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, or write the tables."""
    asked = _parser().parse_args(arguments)
    # As Ctrl-C does it: a child leads a session of its own and would stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = Results(asked.results)
    if asked.stage == "table":
        asked.table.write_text(write_tables(results), encoding="utf-8")
        return
    work = asked.work.absolute()
    setup = Setup(
        work=work,
        results=results,
        python=asked.python.absolute(),
        tools=choose(asked.method or ["percentile"], asked.tool),
        limits=Limits(memory_bytes=int(asked.memory_gb * 1e9), seconds=asked.time_limit),
        say=_say,
    )
    nets = (prepare(name, asked.weights, work, _say) for name in asked.net)
    if asked.stage == "calibrate":
        plan = calibrating.Plan(
            counts=asked.images, batch=asked.batch, rounds=asked.rounds, patience_s=asked.patience
        )
        calibrating.calibrate(setup, nets, plan)
    elif asked.stage == "error":
        output_error(setup, nets, count=asked.images, evaluated=asked.evaluate)
    else:
        plan_ = timing.Plan(
            count=asked.images,
            batches=asked.batch,
            threads=asked.threads,
            rounds=asked.rounds,
            seconds=asked.seconds,
            tries=asked.tries,
        )
        timing.latency(setup, nets, plan_)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stages = parser.add_subparsers(dest="stage", required=True)
    common = _common()
    calibrate = stages.add_parser("calibrate", parents=[common], help="time and peak memory")
    calibrate.add_argument("--images", type=int, nargs="+", default=[128, 512, 2048])
    calibrate.add_argument("--batch", type=int, default=1, help="images per forward pass")
    calibrate.add_argument("--rounds", type=int, default=3)
    calibrate.add_argument(
        "--patience", type=float, default=600, help="s; no further round of a tool beyond it"
    )
    error = stages.add_parser("error", parents=[common], help="signal to noise, top-1 agreement")
    error.add_argument("--images", type=int, default=512, help="that calibrate")
    error.add_argument("--evaluate", type=int, default=1000, help="images that are compared on")
    latency = stages.add_parser("latency", parents=[common], help="p50 of each file")
    latency.add_argument("--images", type=int, default=512, help="that calibrate")
    latency.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    latency.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    latency.add_argument("--rounds", type=int, default=5, help="fresh processes of each file")
    latency.add_argument("--seconds", type=float, default=10, help="of each file, over all rounds")
    latency.add_argument(
        "--tries", type=int, default=1, help="of a process that other work disturbed, at most"
    )
    table = stages.add_parser("table", help="write the tables")
    table.add_argument("--results", type=Path, required=True)
    table.add_argument("--table", type=Path, required=True)
    return parser


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--net", nargs="+", default=["resnet50"])
    common.add_argument("--weights", default="random", help="random[:SEED] or digits")
    common.add_argument("--method", nargs="+", help="of convexport; the first is compared with")
    common.add_argument(
        "--tool", nargs="*", help=f"of {', '.join(tool.name for tool in PEERS)}; all if not given"
    )
    common.add_argument("--work", type=Path, required=True, help="nets, images and INT8 files")
    common.add_argument("--results", type=Path, required=True, help="JSON lines, appended to")
    common.add_argument("--python", type=Path, default=Path(".venv-peers/bin/python"))
    common.add_argument("--memory-gb", type=float, default=18, help="each process, at most")
    common.add_argument("--time-limit", type=float, default=3600, help="s, each process")
    return common


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
