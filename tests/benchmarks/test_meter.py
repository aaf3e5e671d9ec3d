from __future__ import annotations

import gc
import math
import time
from functools import partial

import numpy as np
import pytest

from convexport.benchmarks import meter
from convexport.benchmarks.meter import LatencyOptions, measure, overhead_ns
from convexport.benchmarks.samples import Samples
from convexport.benchmarks.statistics import percentile
from convexport.runtime.errors import UsageError


def _options(duration_s: float = 0.2, seed: int = 0) -> LatencyOptions:
    return LatencyOptions(duration_s=duration_s, warmup_s=0.05, seed=seed)


class Clock:
    """Stands still but for what is spent: 50 ns a look, and what a call takes."""

    def __init__(self) -> None:
        self.now = 0.0

    def advance(self, milliseconds: float) -> None:
        self.now += milliseconds * 1e6

    def perf_counter_ns(self) -> int:
        self.now += 50
        return int(self.now)

    def perf_counter(self) -> float:
        return self.perf_counter_ns() / 1e9


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(meter, "time", clock)
    return clock


def _order(found: dict[str, Samples]) -> list[str]:
    starts = [(start, name) for name in found for start in found[name].block_starts_ns]
    return [name for _, name in sorted(starts)]


def _percentile_ms(samples: Samples, percent: float) -> float:
    value = percentile(samples.ns / 1e6, percent).value
    assert value is not None
    return value


@pytest.mark.parametrize("name", ["duration_s", "warmup_s", "timeout_s"])
@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan, math.inf, "3", None, True])
def test_times_that_make_no_sense(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"E0260 {name}"):
        LatencyOptions(**{name: value})  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("name", ["processes", "batch", "threads"])
@pytest.mark.parametrize("value", [0, -1, 1.0, math.nan, math.inf, "3", None, True])
def test_counts_that_make_no_sense(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"E0260 {name}"):
        LatencyOptions(**{name: value})  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("value", [-1, 0.5, None])
def test_seeds_that_make_no_sense(value: object) -> None:
    with pytest.raises(UsageError, match="E0260 seed"):
        LatencyOptions(seed=value)  # type: ignore[arg-type]  # wrong on purpose


def test_five_milliseconds_read_five() -> None:
    def five() -> None:
        deadline = time.perf_counter_ns() + 5_000_000
        time.sleep(0.0045)
        while time.perf_counter_ns() < deadline:
            pass

    # The quickest: on a busy machine most calls are interrupted, and rightly take longer.
    samples = measure({"five": five}, _options(duration_s=1.0))["five"]
    assert samples.ns.min() / 1e6 == pytest.approx(5, rel=0.02)
    assert samples.first_ns >= 5_000_000
    assert len(samples.ns) <= 240


def test_a_stall_shows_in_the_tail_alone(clock: Clock) -> None:
    rng = np.random.default_rng(0)

    def stalling() -> None:
        clock.advance(200 if rng.random() < 0.03 else 5)

    samples = measure({"stalling": stalling}, _options(duration_s=5))["stalling"]
    assert _percentile_ms(samples, 50) == pytest.approx(5, rel=0.001)
    assert _percentile_ms(samples, 95) == pytest.approx(5, rel=0.001)
    assert _percentile_ms(samples, 99) == pytest.approx(200, rel=0.001)
    assert (samples.ns > 10**8).mean() == pytest.approx(0.03, rel=0.4)


def test_a_real_stall_is_in_the_samples() -> None:
    count = 0

    def stalling() -> None:
        nonlocal count
        count += 1
        time.sleep(0.03 if count % 10 == 0 else 0.001)

    samples = measure({"stalling": stalling}, _options(duration_s=0.5))["stalling"]
    assert (samples.ns >= 30_000_000).mean() >= 0.05
    assert samples.ns.min() < 15_000_000


def test_the_floor_is_small_and_in_every_sample() -> None:
    floor = overhead_ns()
    assert 0 < floor < 20_000
    samples = measure({"nothing": lambda: None}, _options())["nothing"]
    assert np.median(samples.ns) == pytest.approx(floor, rel=3)
    assert samples.block_sizes.max() <= 20_000


@pytest.mark.parametrize("seed", [1, 2])
def test_blocks_go_there_and_back(clock: Clock, seed: int) -> None:
    calls = {name: lambda: clock.advance(0.1) for name in "abcd"}
    order = _order(measure(calls, _options(duration_s=4, seed=seed)))
    assert len(order) == 4 * 2 * 10
    rounds = [order[begin : begin + 8] for begin in range(0, len(order), 8)]
    for there_and_back in rounds:
        assert sorted(there_and_back[:4]) == list("abcd")
        assert there_and_back[4:] == there_and_back[3::-1]
    assert len({tuple(blocks) for blocks in rounds}) > 1


def test_the_seed_gives_the_order(clock: Clock) -> None:
    calls = {name: lambda: clock.advance(0.1) for name in "abcd"}
    orders = [_order(measure(calls, _options(seed=seed))) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_a_drifting_machine_falls_on_both_alike(clock: Clock) -> None:
    def drifting() -> None:
        clock.advance(1 + clock.now / 1e9)  # a millisecond slower each second

    found = measure({"a": drifting, "b": drifting}, _options(duration_s=10))
    blocks = found["a"].blocks()
    assert np.median(blocks[-1]) > 2 * np.median(blocks[0])  # it did drift
    medians = [float(np.mean([np.median(b) for b in found[name].blocks()])) for name in "ab"]
    assert medians[0] == pytest.approx(medians[1], rel=0.02)


def test_a_slow_call_gets_the_same_time_not_the_same_number(clock: Clock) -> None:
    calls = {"fast": lambda: clock.advance(1), "slow": lambda: clock.advance(10)}
    found = measure(calls, _options(duration_s=5))
    assert found["fast"].ns.sum() == pytest.approx(5e9, rel=0.05)
    assert found["slow"].ns.sum() == pytest.approx(5e9, rel=0.05)
    assert len(found["fast"].ns) == pytest.approx(10 * len(found["slow"].ns), rel=0.05)


def test_each_block_begins_with_calls_that_are_not_counted(clock: Clock) -> None:
    last = ""

    def call(name: str) -> None:
        nonlocal last
        clock.advance(3 if name != last else 1)  # cold after the other
        last = name

    found = measure({name: partial(call, name) for name in "ab"}, _options(duration_s=2))
    assert max(samples.ns.max() for samples in found.values()) < 1_100_000


def test_a_call_longer_than_the_run_is_still_measured(clock: Clock) -> None:
    samples = measure({"slow": lambda: clock.advance(50)}, _options(duration_s=0.02))["slow"]
    assert len(samples.ns) == 2
    assert samples.ns == pytest.approx(50e6, rel=0.001)


def test_warm_up_waits_for_calm(clock: Clock) -> None:
    def cooling() -> None:
        clock.advance(max(1, 20 - clock.now / 1e9 * 4))  # calm after five seconds

    samples = measure({"cooling": cooling}, LatencyOptions(duration_s=10))["cooling"]
    assert samples.first_ns == pytest.approx(20e6, rel=0.001)
    assert samples.warmup.settled
    assert samples.warmup.window_s == 1
    assert 5 < samples.warmup.seconds < 9
    assert samples.ns.max() < 1_100_000


def test_warm_up_lasts_as_long_as_asked(clock: Clock) -> None:
    options = LatencyOptions(duration_s=0.2, warmup_s=3)
    warmup = measure({"calm": lambda: clock.advance(1)}, options)["calm"].warmup
    assert 3 <= warmup.seconds < 3.3
    assert (warmup.window_s, warmup.settled) == (0.1, True)


def test_warm_up_gives_up_and_says_so(clock: Clock) -> None:
    def rising() -> None:
        clock.advance(1 + clock.now / 1e9)

    warmup = measure({"rising": rising}, _options(duration_s=2))["rising"].warmup
    assert (warmup.settled, warmup.windows) == (False, 10)


def test_the_collector_rests_and_comes_back() -> None:
    seen = set()
    measure({"a": lambda: seen.add(gc.isenabled())}, _options(duration_s=0.02))
    assert seen == {True, False}  # on in the warm-up, off in the blocks
    assert gc.isenabled()
    calls = iter(range(10**6))

    def failing() -> None:
        if not gc.isenabled() and next(calls) > 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure({"a": failing}, _options())
    assert gc.isenabled()


def test_nothing_to_measure() -> None:
    with pytest.raises(UsageError, match="E0263"):
        measure({}, _options())
