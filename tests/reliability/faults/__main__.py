"""Faults at every change on disk, or kills at random: what builds survive.

``python -m tests.reliability.faults --kills 200 --seed 0``, or ``--every ENOSPC SIGKILL``; it exits
with 1 where something was wrong afterwards.
"""

from __future__ import annotations

import argparse
import errno
import random
import signal
import time
from collections.abc import Iterator

from tests.reliability.faults.lab import Lab, laboratory
from tests.reliability.faults.matrix import Fault, survived

# Mode, number, and after how many events it comes again.
FAULTS = {
    "ENOSPC": ("full", errno.ENOSPC, 0),
    "EIO": ("once", errno.EIO, 0),
    "EFBIG": ("once", errno.EFBIG, 0),
    "SIGKILL": ("signal", signal.SIGKILL, 0),
    "SIGTERM": ("signal", signal.SIGTERM, 0),
    "SIGINT": ("signal", signal.SIGINT, 1),
}
KILLS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
AT_ONCE = 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.faults")
    parser.add_argument("--kills", type=int, default=0, help="so many, at random")
    parser.add_argument("--every", nargs="*", choices=FAULTS, help="these, at each change on disk")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with laboratory() as lab:
        begun, tree = time.perf_counter(), lab.tree()
        changes, seconds = lab.run(tree).count, time.perf_counter() - begun
        print(f"an undisturbed build changes the disk {changes} times, in {seconds:.1f} s")
        faults = {
            "kills at random": kills(arguments.kills, arguments.seed, changes, seconds),
            **{name: every(name, changes) for name in arguments.every or ()},
        }
        wrong = sum([counted(lab, name, list(each)) for name, each in faults.items()])
    raise SystemExit(bool(wrong))


def kills(count: int, seed: int, changes: int, seconds: float) -> Iterator[Fault]:
    """Half of them at a change on disk, half at any moment; some come twice."""
    noise = random.Random(seed)
    for index in range(count):
        number, at = noise.choice(KILLS), noise.randint(1, changes)
        if index % 2:
            yield Fault("signal", number, after=noise.uniform(0.0, seconds))
        else:
            yield Fault("signal", number, at=at, again=at + noise.choice((0, 0, 1, 2, 5)))


def every(name: str, changes: int) -> Iterator[Fault]:
    """A kind of fault, at each change on disk."""
    mode, number, second = FAULTS[name]
    for at in range(1, changes + 1):
        yield Fault(mode, number, at, again=at + second if second else 0)


def counted(lab: Lab, name: str, faults: list[Fault]) -> int:
    """Try them, say what came of them, and give the number of those that were not survived."""
    wrong = {}
    for start in range(0, len(faults), AT_ONCE):
        results = survived(lab, faults[start : start + AT_ONCE], old=start % 3 > 0)
        wrong.update({fault: found for fault, found in results.items() if found})
    if faults:
        print(f"{name}: survived {len(faults) - len(wrong)} of {len(faults)}", flush=True)
    for fault, found in wrong.items():
        print(f"  {fault}", *found, sep="\n    ")
    return len(wrong)


if __name__ == "__main__":
    main()
