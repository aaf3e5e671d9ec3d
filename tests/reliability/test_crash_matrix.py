"""A build that meets a fault: the old bundle or the whole new one, and the next run finishes.

A shim before the C library counts what a build of a tiny net changes on disk, and fails or kills it
at the n-th of these; `faults/shim.c` says what it does not see. These are samples; each change on
disk is tried by `python -m tests.reliability.faults --every ENOSPC SIGKILL`.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator

import pytest

from tests.reliability.faults.lab import Lab, compiler, laboratory, state_of
from tests.reliability.faults.matrix import Fault, survived

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(compiler() is None, reason="needs a C compiler and Linux for the shim"),
]
STAGES = ("reference", "export", "simplify", "calibrate", "quantize")
PARTS, EACH = 2, 7


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with laboratory() as ready:
        yield ready


@pytest.fixture(scope="module")
def changes(lab: Lab) -> int:
    """How often an undisturbed build changes something on disk."""
    done = lab.run(lab.tree())
    assert done.code == 0 and done.count > 100
    return done.count


def all_survived(lab: Lab, faults: list[Fault], *, old: bool = True) -> None:
    for start in range(0, len(faults), 2):
        for fault, wrong in survived(lab, faults[start : start + 2], old=old).items():
            assert not wrong, f"{fault}: {wrong}"


def test_the_shim_sees_every_file_of_a_build(lab: Lab) -> None:
    tree, trace = lab.tree(old=False), lab.folder / "trace"
    assert lab.run(tree, trace=str(trace)).code == 0
    opened = {line.rpartition("/")[2] for line in trace.read_text().splitlines()}
    files = {path.name for path in tree.rglob("*") if path.is_file()}
    assert len(files) > 10 and files <= opened


@pytest.mark.parametrize("part", range(PARTS))
def test_the_disk_is_full_from_any_write_on(lab: Lab, changes: int, part: int) -> None:
    events = range(1 + 3 * part, changes + 1, EACH)
    all_survived(lab, [Fault("full", errno.ENOSPC, at=n) for n in events])


@pytest.mark.parametrize("number", [errno.EIO, errno.EFBIG, errno.EDQUOT])
def test_one_write_fails(lab: Lab, changes: int, number: int) -> None:
    events = range(1 + number % 7, changes + 1, 31)
    all_survived(lab, [Fault("once", number, at=n) for n in events], old=number != errno.EIO)


@pytest.mark.parametrize("largest", [0, 300, 900, 2500])
def test_a_file_may_not_grow(lab: Lab, largest: int) -> None:
    """The system's own limit, not the shim's."""
    tree = lab.tree()
    done = lab.run(tree, largest_file=largest)
    assert done.code == 8 and done.plain, done.err
    assert state_of(tree / "out/net") == lab.old
    assert lab.wrong_with(tree) == [] == lab.wrong_after(tree)


@pytest.mark.parametrize("old", [True, False])
def test_killed_at_a_write(lab: Lab, changes: int, old: bool) -> None:
    events = range(1 + 5 * old, changes + 1, 23)
    all_survived(lab, [Fault("signal", signal.SIGKILL, at=n) for n in events], old=old)


def test_killed_at_each_step_of_the_last_swap(lab: Lab, changes: int) -> None:
    """When the old bundle gives way to the new one."""
    trace = lab.folder / "last"
    assert lab.run(lab.tree(), trace=str(trace)).count == changes
    kinds = [line.partition("\t")[0] for line in trace.read_text().splitlines()]
    counted = [kind for kind in kinds if kind != "from"]
    swap = max(n for n, kind in enumerate(counted, 1) if kind == "rename")
    events = range(swap - 2, swap + 4)
    all_survived(lab, [Fault("signal", signal.SIGKILL, at=n) for n in events])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_at_a_write_and_again_while_tidying_up(
    lab: Lab, changes: int, number: signal.Signals
) -> None:
    events = range(3 + number % 5, changes + 1, 31)
    all_survived(lab, [Fault("signal", number, at=n, again=n + 1 + n % 3) for n in events])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_twice_in_each_stage(lab: Lab, number: signal.Signals) -> None:
    all_survived(lab, [Fault("signal", number, stage=name, twice=True) for name in STAGES])
