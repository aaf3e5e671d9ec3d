"""The meter: how long calls take inside one process.

Each call is made once (the first inference), then warmed up until two consecutive windows agree,
then measured in blocks of equal time. A round visits the calls in a random order and back again
(A B C C B A), so that a drift of the machine falls on all of them alike. Every block begins with
a tenth of its time unmeasured: after another model ran, the caches and the thread pool are not
those of a model that runs alone. The garbage collector runs between rounds only.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from convexport.benchmarks.host import cores
from convexport.benchmarks.samples import Samples, Warmup
from convexport.runtime.errors import UsageError

WARMUP_S = 0.5
SETTLED = 0.02
_MAX_WINDOWS = 10
_WINDOW_CALLS = 3
_BLOCK_S = 0.2
_BLOCK_SAMPLES = 20_000
_FLOOR_CALLS = 10_000
_SECOND = 1_000_000_000

Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class LatencyOptions:
    """How to measure.

    Attributes:
        duration_s: how long each model is measured, over all processes together.
        processes: fresh processes; a claim needs five.
        batch: images per call.
        threads: intra-op threads of the runtime; default: what this process can keep busy.
        warmup_s: the shortest warm-up of each model in each process.
        seed: of the noise and of the order.
        timeout_s: how much longer than planned a process may take.

    Raises:
        UsageError: E0260, a value makes no sense.
    """

    duration_s: float = 10.0
    processes: int = 5
    batch: int = 1
    threads: int = field(default_factory=cores)
    warmup_s: float = WARMUP_S
    seed: int = 0
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        for name in ("processes", "batch", "threads"):
            _require_whole(name, getattr(self, name), least=1)
        _require_whole("seed", self.seed, least=0)
        for name in ("duration_s", "warmup_s", "timeout_s"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value <= 0:
                raise _bad_option(name, value, "seconds above 0")

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def measure(
    calls: Mapping[str, Call],
    options: LatencyOptions,
    *,
    begun: Callable[[int], object] = lambda ns: None,
) -> dict[str, Samples]:
    """Measure calls side by side in this process for ``options.duration_s`` seconds each.

    Only ``duration_s``, ``warmup_s`` and ``seed`` are used. A call that takes longer than its
    share is still made at least once a block. The cost of the clock is in every sample; see
    ``overhead_ns``. ``begun`` is told when, in ``time.perf_counter_ns``, the first block begins.

    Raises:
        UsageError: E0263, there is nothing to measure.
    """
    if not calls:
        raise UsageError("E0263", "there is nothing to measure")
    firsts = {label: _timed(call) for label, call in calls.items()}
    warm = {label: warm_up(call, options) for label, call in calls.items()}
    longest = max(median for _, median in warm.values())
    span = max(longest, int(min(_BLOCK_S, options.duration_s / 10) * _SECOND))
    rounds = math.ceil(options.duration_s * _SECOND / (2 * span))
    sizes: dict[str, list[int]] = {label: [] for label in calls}
    starts: dict[str, list[int]] = {label: [] for label in calls}
    samples: dict[str, list[int]] = {label: [] for label in calls}
    with collector_off():
        begin = time.perf_counter_ns()
        begun(begin)
        for label in _order(list(calls), rounds, options.seed):
            start, block = _block(calls[label], span)
            starts[label].append(start - begin)
            sizes[label].append(len(block))
            samples[label] += block
    return {
        label: Samples(
            np.array(samples[label], dtype=np.int64),
            np.array(sizes[label], dtype=np.int64),
            np.array(starts[label], dtype=np.int64),
            firsts[label],
            warm[label][0],
        )
        for label in calls
    }


def overhead_ns() -> float:
    """What the meter reads for a call that does nothing: the floor of every sample."""
    return float(np.median([_timed(_nothing) for _ in range(_FLOOR_CALLS)]))


def planned_s(options: LatencyOptions) -> float:
    """An upper bound of the time that ``measure`` needs for one fast call."""
    warmup = options.warmup_s + _MAX_WINDOWS * _window_s(options)
    return warmup + 1.3 * options.duration_s


def _order(labels: list[str], rounds: int, seed: int) -> Iterator[str]:
    shuffled = random.Random(seed)
    for _ in range(rounds):
        shuffled.shuffle(labels)
        yield from labels
        yield from reversed(labels)
        gc.collect()


def _block(call: Call, span: int) -> tuple[int, list[int]]:
    """The start, and the samples of ``span`` ns, at least one and at most _BLOCK_SAMPLES."""
    clock = time.perf_counter_ns
    deadline = clock() + span // 10
    call()
    while clock() < deadline:
        call()
    samples: list[int] = []
    begin = stop = clock()
    deadline = begin + span
    while stop < deadline and len(samples) < _BLOCK_SAMPLES:
        start = clock()
        call()
        stop = clock()
        samples.append(stop - start)
    return begin, samples


def warm_up(call: Call, options: LatencyOptions) -> tuple[Warmup, int]:
    """Windows until two in a row agree, and the median of the last in ns."""
    window_s = _window_s(options)
    begin = time.perf_counter()
    medians: list[float] = []
    while len(medians) < _MAX_WINDOWS or time.perf_counter() - begin < options.warmup_s:
        medians.append(_window(call, window_s))
        seconds = time.perf_counter() - begin
        settled = len(medians) > 1 and (abs(medians[-1] - medians[-2]) < SETTLED * medians[-2])
        if settled and seconds >= options.warmup_s:
            break
    return Warmup(seconds, len(medians), window_s, settled), int(medians[-1])


def _window_s(options: LatencyOptions) -> float:
    """A second; less when the run itself takes less than two."""
    return min(1.0, options.duration_s / 2)


def _window(call: Call, window_s: float) -> float:
    samples: deque[int] = deque(maxlen=_BLOCK_SAMPLES)
    deadline = time.perf_counter() + window_s
    while time.perf_counter() < deadline or len(samples) < _WINDOW_CALLS:
        samples.append(_timed(call))
    return float(np.median(samples))


def _timed(call: Call) -> int:
    start = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - start


def _nothing() -> None:
    pass


@contextmanager
def collector_off() -> Iterator[None]:
    """Collect garbage now, and not again before the block is left."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _require_whole(name: str, value: object, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise _bad_option(name, value, f"a whole number of at least {least}")


def _bad_option(name: str, value: object, expected: str) -> UsageError:
    return UsageError("E0260", f"{name} cannot be {value!r}", hint=f"give {expected}")
