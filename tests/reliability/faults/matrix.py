"""Faults, and what is wrong after one of them."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterable
from dataclasses import dataclass

from tests.reliability.faults.lab import Ended, Lab, leftovers, state_of


@dataclass(frozen=True)
class Fault:
    """What happens at the n-th thing that a build changes on disk.

    Attributes:
        mode: ``full`` (half of that write fits, and nothing after it), ``once`` (it fails) or
            ``signal``.
        number: of the error, or of the signal.
        at: which event, from 1.
        again: at which event the signal comes once more.
        after: seconds after which the signal comes instead.
        stage: when whose work is done it comes instead.
        twice: it comes again while that is tidied up.
    """

    mode: str
    number: int
    at: int = 0
    again: int = 0
    after: float | None = None
    stage: str | None = None
    twice: bool = False

    @property
    def kills(self) -> bool:
        """Whether the process has no chance to tidy up."""
        return self.mode == "signal" and self.number == signal.SIGKILL

    def data(self) -> dict[str, object]:
        """For the driver."""
        return {key: value for key, value in vars(self).items() if value}


def survived(lab: Lab, faults: Iterable[Fault], *, old: bool = True) -> dict[Fault, list[str]]:
    """Builds with those faults at the same time, then one more of each: what was wrong."""
    trees = [(fault, lab.tree(old=old)) for fault in faults]
    ends = lab.together([lab.wanted(tree, **fault.data()) for fault, tree in trees])
    wrong = {}
    for (fault, tree), end in zip(trees, ends, strict=True):
        found = lab.wrong_with(tree, old=old)
        found += wrong_end(fault, end, done=state_of(tree / "out/net") == lab.new)
        hidden = [path for path in leftovers(tree) if not path.endswith(".begun")]
        if hidden and not (fault.kills or fault.again or fault.twice):
            found.append(f"left behind at once: {hidden}")
        wrong[fault] = found + lab.wrong_after(tree)
        shutil.rmtree(tree)
    return wrong


def wrong_end(fault: Fault, end: Ended, *, done: bool) -> list[str]:
    """Another exit code than the fault's own, or more than a screen about it.

    Args:
        done: whether the bundle is there, so that the command may end well all the same.
    """
    own = {"signal": 130}.get(fault.mode, 8) if not fault.kills else -signal.SIGKILL
    found = []
    if end.code != own and not (done and end.code == 0):
        found.append(f"exit code {end.code}: {end.err[-2000:]}")
    if not end.plain:
        found.append(f"more than a screen: {end.err[-2000:]}")
    return found
