"""Loops on a clock of their own: what a stalling engine shows, open and closed."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from convexport.benchmarks.early_stopping import allowed_late, bound_floor, early_stopping
from convexport.benchmarks.loops import (
    SECOND,
    Stream,
    WallClock,
    closed_loop,
    highest,
    open_loop,
    poisson,
)
from convexport.benchmarks.statistics import percentile

MS = 1_000_000


@dataclass
class Clock:
    """Stands still but for what is spent or waited."""

    ns: int = 0

    def now(self) -> int:
        return self.ns

    def wait_until(self, ns: int) -> None:
        self.ns = max(self.ns, ns)


@dataclass
class Stalling:
    """Answers in 5 ms, but for the first request after each 500 ms: that one takes 200 ms more."""

    clock: Clock
    stalls: int = 0

    def __call__(self) -> None:
        if self.clock.ns // (500 * MS) > self.stalls:
            self.stalls = self.clock.ns // (500 * MS)
            self.clock.ns += 200 * MS
        self.clock.ns += 5 * MS


def _open(call: object, clock: Clock, schedule: np.ndarray, **limits: int) -> Stream:
    limits = {"bound_ns": 10**15, "most_late": 10**9, **limits}
    return open_loop(call, clock, schedule, **limits)  # type: ignore[arg-type]


def _ms(stream: Stream, percent: float) -> float:
    value = percentile(stream.latency_ns / MS, percent).value
    assert value is not None
    return value


def test_a_stall_is_in_the_open_loops_tail_and_not_in_the_closed_loops_median() -> None:
    clock = Clock()
    closed = closed_loop(Stalling(clock), clock, duration_ns=60 * SECOND)
    assert _ms(closed, 50) == _ms(closed, 95) == 5
    clock = Clock()
    arrived = _open(Stalling(clock), clock, poisson(50, 60, seed=1))
    assert _ms(arrived, 99) > 200
    # A third of all requests come while one stalls, or while what it held up is worked off.
    assert (arrived.latency_ns > 50 * MS).mean() > 0.2
    assert (closed.latency_ns > 50 * MS).mean() < 0.03


def test_the_open_loop_is_a_queue() -> None:
    """Against Lindley's recursion: a wait is what the one before left over."""
    rng = np.random.default_rng(3)
    service = rng.integers(1 * MS, 12 * MS, 2000)
    clock, due = Clock(), poisson(120, 10, seed=5)
    times = iter(service.tolist())

    def call() -> None:
        clock.ns += next(times)

    stream = _open(call, clock, due)
    wait, expected = 0, []
    for index in range(len(due)):
        if index:
            wait = max(0, wait + int(service[index - 1]) - int(due[index] - due[index - 1]))
        expected.append(wait + int(service[index]))
    assert stream.latency_ns.tolist() == expected
    assert stream.due_ns.tolist() == due.tolist() and not stream.stopped
    assert stream.seconds == pytest.approx((due[-1] + expected[-1]) / SECOND)


def test_an_overloaded_loop_is_given_up() -> None:
    clock = Clock()

    def call() -> None:
        clock.ns += 30 * MS

    stream = _open(call, clock, poisson(100, 100, seed=0), bound_ns=50 * MS, most_late=20)
    assert stream.stopped and (stream.latency_ns > 50 * MS).sum() == 21
    assert len(stream.due_ns) == len(stream.latency_ns) < 100


def test_arrivals_are_poisson_and_seeded() -> None:
    arrivals = poisson(200, 100, seed=7)
    assert np.array_equal(arrivals, poisson(200, 100, seed=7))
    assert not np.array_equal(arrivals, poisson(200, 100, seed=8))
    gaps = np.diff(arrivals) / SECOND
    assert len(arrivals) == 20_000 and gaps.min() >= 0
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 200, rel=0.05)  # of an exponential, mean and deviation
    assert len(poisson(0.001, 1, seed=0)) == 1


def test_bisection_finds_the_rate() -> None:
    found = highest(lambda qps: qps <= 73, 100, steps=10)
    assert found is not None and 73 - 100 / 2**10 <= found <= 73
    assert highest(lambda qps: False, 100) is None


def test_the_wall_clock_wakes_when_it_is_told() -> None:
    clock = WallClock()
    begin = clock.now()
    clock.wait_until(begin + 3 * MS)
    assert 3 * MS <= clock.now() - begin < 50 * MS
    clock.wait_until(begin)  # long past


def test_five_milliseconds_read_five_in_both_loops() -> None:
    clock = WallClock()

    def five() -> None:
        clock.wait_until(clock.now() + 5 * MS)

    # The quickest: on a busy machine most calls are interrupted, and rightly take longer.
    closed = closed_loop(five, clock, duration_ns=SECOND // 2)
    arrived = _open(five, clock, np.arange(1, 40) * 12 * MS)
    for stream in (closed, arrived):
        assert stream.latency_ns.min() / MS == pytest.approx(5, rel=0.02)


def test_a_stream_travels() -> None:
    clock = Clock()
    stream = closed_loop(Stalling(clock), clock, duration_ns=SECOND)
    again = Stream.from_dict(stream.to_dict())
    assert again.to_dict() == stream.to_dict()
    assert np.array_equal(again.due_ns[1:], np.cumsum(stream.latency_ns)[:-1])


# n, percent, "Would discard ... highest latency queries": from LoadGen's own summaries.
@pytest.mark.parametrize(
    ("n", "discarded"), [(659, 47), (2048, 172), (2116, 178), (2145, 181), (4_776_846, 476_158)]
)
def test_early_stopping_discards_as_many_as_loadgen(n: int, discarded: int) -> None:
    assert allowed_late(n, 90) - 1 == discarded


@pytest.mark.parametrize(("percent", "floor"), [(90, 64), (99, 662)])  # LoadGen's, of both streams
def test_below_the_floor_there_is_no_estimate(percent: int, floor: int) -> None:
    few = early_stopping(np.arange(floor - 1), percent)
    assert (few.estimate, few.floor, few.n) == (None, floor, floor - 1)
    enough = early_stopping(np.arange(floor)[::-1], percent)
    assert (enough.estimate, enough.discarded) == (floor - 1, 0)


@pytest.mark.parametrize(("percent", "floor"), [(90, 44), (95, 90), (99, 459), (99.9, 4603)])
def test_a_bound_takes_as_many_requests_with_none_late(percent: float, floor: int) -> None:
    assert bound_floor(percent) == floor
    assert (allowed_late(floor - 1, percent), allowed_late(floor, percent)) == (-1, 0)


def test_allowed_late_against_the_binomial_written_out() -> None:
    for n in (1, 43, 44, 100, 459, 700):
        for percent in (90, 99):
            p = 1 - Fraction(percent, 100)
            masses = (math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1))
            total, sums = Fraction(0), []
            for mass in masses:
                total += mass
                sums.append(total)
            assert allowed_late(n, percent) == bisect.bisect_right(sums, Fraction(1, 100)) - 1


def test_the_estimate_covers_the_percentile() -> None:
    rng = np.random.default_rng(0)
    true = -math.log(0.1)  # p90 of the exponential distribution
    kept = [early_stopping(rng.exponential(size=400), 90).estimate for _ in range(2000)]
    assert np.mean([value is not None and value >= true for value in kept]) > 0.98
