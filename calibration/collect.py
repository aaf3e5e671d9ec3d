"""Images → ranges: one pass, in memory that does not grow with the number of images."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import reduce
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from convexport.calibration.checkpoint import Checkpoint
from convexport.calibration.histograms import Channels, TensorRange, range_of
from convexport.calibration.observed import Outputs
from convexport.runtime.batches import filled, fixed_batch
from convexport.runtime.errors import InputError
from convexport.runtime.specs import Runner

Batch = NDArray[np.float32]
Seen = Mapping[str, Batch]
Ranges = dict[str, TensorRange]

# Batches whose grids are counted together: empty bins are most of the work of counting one.
_TOGETHER = 8
# How many images' grids a group of batches may hold, and as how many a whole tensor counts.
_HELD, _WHOLE = 1024, 50


def collect(
    runner: Runner,
    batches: Iterable[Batch],
    tensors: Mapping[str, Outputs],
    *,
    workers: int = 1,
    progress: Callable[[int], None] = lambda images: None,
    checkpoint: Checkpoint | None = None,
) -> Ranges:
    """Run every batch and keep the range of every named tensor.

    Args:
        runner: gives what tells of the tensors; one that is its input is read from the batch.
        batches: float32 N×C×H×W.
        tensors: which, and the outputs that tell of them (``write_observed``).
        workers: batches that are run and counted at the same time; with more than one, the
            runner is called by several threads. The result does not depend on it.
        progress: told the number of images after each group of batches.

        checkpoint: where the pass may be taken up again. The images are read again, since their
            reader has things to tell, but not run.

    Raises:
        InputError: E0350, a tensor is not finite; E0351, there was no batch.
    """
    observe = _observer(runner, tensors)
    ranges, done = checkpoint.read() if checkpoint else ({}, 0)
    if ranges.keys() != tensors.keys():
        ranges, done = {}, 0
    groups = _groups(batches, tensors)
    for group in islice(groups, done):
        progress(sum(map(len, group)))
    for images, new in _in_order(observe, groups, workers):
        ranges = {name: ranges[name].merge(new[name]) if ranges else new[name] for name in tensors}
        done += 1
        progress(images)
        if checkpoint:
            checkpoint.keep(ranges, done)
    if not ranges:
        raise InputError("E0351", "there were no calibration images")
    return ranges


def _observer(
    runner: Runner, tensors: Mapping[str, Outputs]
) -> Callable[[list[Batch]], tuple[int, Ranges]]:
    """Runs a group of batches, and gives the number of images and what was seen."""
    (input_spec,), fixed = runner.inputs, fixed_batch(runner)

    def run(batch: Batch) -> Seen:
        fed = filled(batch, fixed)
        given = {input_spec.name: fed, **runner.run({input_spec.name: fed})}
        # What a batch was filled up with is not counted.
        return {n: v[: len(batch)] if v.shape[:1] == fed.shape[:1] else v for n, v in given.items()}

    def observe(group: list[Batch]) -> tuple[int, Ranges]:
        seen = [run(batch) for batch in group]
        found = {name: _range(seen, name, outputs) for name, outputs in tensors.items()}
        return sum(map(len, group)), found

    return observe


def summary(ranges: Mapping[str, TensorRange]) -> dict[str, dict[str, float]]:
    """Minimum and maximum of each tensor, as JSON."""
    return {name: {"min": seen.minimum, "max": seen.maximum} for name, seen in ranges.items()}


def _groups(batches: Iterable[Batch], tensors: Mapping[str, Outputs]) -> Iterator[list[Batch]]:
    """As many batches together as may be held."""
    held = sum(_WHOLE if outputs.channels is None else 1 for outputs in tensors.values())
    remaining = iter(batches)
    first = list(islice(remaining, 1))
    size = max(1, min(_TOGETHER, _HELD // max(held * sum(map(len, first)), 1)))
    remaining = chain(first, remaining)
    while group := list(islice(remaining, size)):
        yield group


def _range(seen: Sequence[Seen], name: str, outputs: Outputs) -> TensorRange:
    """What one tensor was in a group of batches."""
    if outputs.channels is None:
        return reduce(TensorRange.merge, (range_of(each[outputs.values], name) for each in seen))
    values = np.concatenate([each[outputs.values] for each in seen])
    low, high, mean = (
        np.concatenate([each[output] for each in seen]).reshape(len(values), -1)
        for output in outputs.channels
    )
    total = mean.sum(axis=0, dtype=np.float64)
    return range_of(values, name, Channels(low.min(axis=0), high.max(axis=0), total, len(values)))


def _in_order(
    function: Callable[[list[Batch]], tuple[int, Ranges]],
    groups: Iterable[list[Batch]],
    workers: int,
) -> Iterator[tuple[int, Ranges]]:
    """The results in the order of the groups; no more are held than workers can use."""
    waiting: deque[Future[tuple[int, Ranges]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for group in groups:
                waiting.append(pool.submit(function, group))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
