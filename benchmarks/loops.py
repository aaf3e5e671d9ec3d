"""How requests reach an engine: one after the other, or when they please.

A loop is a function of a call and a clock; nothing in it knows what the call does, so a test runs
it on a clock of its own. In the closed loop the next request is made when the last is answered: it
measures the service alone. In the open loop requests arrive whether or not the engine is free, and
a latency counts from the moment at which its request was due: whoever counts from the start of
service leaves out the waiting that a slow answer inflicts on all behind it.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from convexport.benchmarks.samples import Nanoseconds, pack, unpack

SECOND = 1_000_000_000
# The kernel wakes a sleeper late by some tens of microseconds; the rest is spun away.
_SPIN_NS = 300_000

Call = Callable[[], object]


class Clock(Protocol):
    """What tells a loop the time."""

    def now(self) -> int:
        """In nanoseconds, from some fixed moment."""

    def wait_until(self, ns: int) -> None:
        """Return at that moment, or at once when it has passed."""


class WallClock:
    """This machine's own clock."""

    def now(self) -> int:
        """``time.perf_counter_ns``."""
        return time.perf_counter_ns()

    def wait_until(self, ns: int) -> None:
        """Sleep, and spin for the end of it."""
        left = ns - time.perf_counter_ns() - _SPIN_NS
        if left > 0:
            time.sleep(left / SECOND)
        while time.perf_counter_ns() < ns:
            pass


@dataclass(frozen=True, eq=False)
class Stream:
    """What a loop saw.

    Attributes:
        latency_ns: int64 (n,), in the order of the requests.
        due_ns: int64 (n,), when each was due (open loop) or made (closed), since the loop began.
        seconds: from the beginning to the last answer.
        stopped: whether the loop was given up before its end.
    """

    latency_ns: Nanoseconds
    due_ns: Nanoseconds
    seconds: float
    stopped: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON; the arrays as ``samples.ENCODING`` says."""
        return {
            "latency_ns": pack(self.latency_ns),
            "due_ns": pack(self.due_ns),
            "seconds": self.seconds,
            "stopped": self.stopped,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Stream:
        """The inverse of ``to_dict``.

        Raises:
            InputError: E0360, an array cannot be unpacked.
        """
        latency_ns, due_ns = unpack(data["latency_ns"]), unpack(data["due_ns"])
        return cls(latency_ns, due_ns, float(data["seconds"]), bool(data["stopped"]))


def closed_loop(call: Call, clock: Clock, *, duration_ns: int) -> Stream:
    """Request after request for so long, and at least one."""
    latencies, dues = array("q"), array("q")
    now, begin, stop = clock.now, clock.now(), 0
    while not latencies or stop - begin < duration_ns:
        start = now()
        call()
        stop = now()
        latencies.append(stop - start)
        dues.append(start - begin)
    return _stream(latencies, dues, stop - begin)


def open_loop(
    call: Call,
    clock: Clock,
    schedule: npt.NDArray[np.int64],
    *,
    bound_ns: int,
    most_late: int,
) -> Stream:
    """Requests that arrive when the schedule says, answered one at a time in that order.

    Args:
        call: answers one request.
        clock: of the arrivals.
        schedule: nanoseconds since the beginning, ascending.
        bound_ns: later than this a request is late.
        most_late: with more late ones than this the loop is given up.
    """
    latencies, late, stop = array("q"), 0, 0
    begin = clock.now()
    for due in schedule.tolist():
        clock.wait_until(begin + due)
        call()
        stop = clock.now() - begin
        latencies.append(stop - due)
        late += stop - due > bound_ns
        if late > most_late:
            break
    dues = array("q", schedule[: len(latencies)].tolist())
    return _stream(latencies, dues, stop, stopped=len(latencies) < len(schedule))


def poisson(qps: float, duration_s: float, seed: int) -> npt.NDArray[np.int64]:
    """Arrivals of a Poisson process of that rate in nanoseconds, at least one; seeded."""
    rng = np.random.default_rng(seed)
    count = max(1, round(qps * duration_s))
    arrivals: npt.NDArray[np.int64] = np.cumsum(rng.exponential(SECOND / qps, size=count)).astype(
        np.int64
    )
    return arrivals


def highest(holds: Callable[[float], bool], limit: float, *, steps: int = 7) -> float | None:
    """The highest rate below ``limit`` found to hold, by bisection; None where none of them does.

    Each step halves what is left, so that the answer is within ``limit`` / 2 ** ``steps``.
    """
    low, high, best = 0.0, limit, None
    for _ in range(steps):
        middle = (low + high) / 2
        if holds(middle):
            low = best = middle
        else:
            high = middle
    return best


def _stream(latencies: array[int], dues: array[int], end_ns: int, stopped: bool = False) -> Stream:
    latency_ns, due_ns = (np.array(values, dtype=np.int64) for values in (latencies, dues))
    return Stream(latency_ns, due_ns, end_ns / SECOND, stopped)
