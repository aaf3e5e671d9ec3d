"""Images → ranges: one pass, in memory that does not grow with the number of images."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from convexport.calibration.histograms import TensorRange, range_of
from convexport.runtime.errors import InputError
from convexport.runtime.specs import Runner

Batch = NDArray[np.float32]
Ranges = dict[str, TensorRange]
Result = TypeVar("Result")


def collect(
    runner: Runner,
    batches: Iterable[Batch],
    tensors: Iterable[str],
    *,
    workers: int = 1,
    progress: Callable[[int], None] = lambda images: None,
) -> Ranges:
    """Run every batch and keep the range of every named tensor.

    Args:
        runner: gives the tensors as outputs; a tensor that is its input is read from the batch.
        batches: float32 N×C×H×W.
        tensors: names of inputs or outputs of the runner.
        workers: batches that are run and counted at the same time; with more than one, the
            runner is called by several threads. The result does not depend on it.
        progress: told the number of images after each batch.

    Raises:
        InputError: E0350, a tensor is not finite; E0351, there was no batch.
    """
    names = tuple(tensors)
    (input_spec,) = runner.inputs

    def observe(batch: Batch) -> tuple[int, Ranges]:
        seen = {input_spec.name: batch, **runner.run({input_spec.name: batch})}
        return len(batch), {name: range_of(seen[name], name) for name in names}

    ranges: Ranges = {}
    for images, new in _in_order(observe, batches, workers):
        ranges = {name: ranges[name].merge(new[name]) if ranges else new[name] for name in names}
        progress(images)
    if not ranges:
        raise InputError("E0351", "there were no calibration images")
    return ranges


def summary(ranges: Mapping[str, TensorRange]) -> dict[str, dict[str, float]]:
    """Minimum and maximum of each tensor, as JSON."""
    return {name: {"min": seen.minimum, "max": seen.maximum} for name, seen in ranges.items()}


def _in_order(
    function: Callable[[Batch], Result], batches: Iterable[Batch], workers: int
) -> Iterator[Result]:
    """The results in the order of the batches; no more batches are held than workers can use."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for batch in batches:
                waiting.append(pool.submit(function, batch))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
