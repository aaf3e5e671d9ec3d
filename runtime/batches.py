"""Many images through a runner, a few at a time."""

from __future__ import annotations

from typing import Optional

import numpy as np

from convexport.runtime.errors import UsageError
from convexport.runtime.specs import Runner

DEFAULT_BATCH = 8


def fixed_batch(runner: Runner) -> Optional[int]:
    """The batch that the runner insists on, or None where it is free."""
    batch = runner.inputs[0].shape[0]
    return batch if isinstance(batch, int) else None


def run_in_batches(runner: Runner, inputs: np.ndarray) -> np.ndarray:
    """The first output for every image.

    Args:
        runner: with one input.
        inputs: float32 N×C×H×W; N a multiple of the batch where that is fixed.

    Raises:
        UsageError: E0202, the images do not fill whole batches.
    """
    size = fixed_batch(runner) or DEFAULT_BATCH
    if fixed_batch(runner) and len(inputs) % size:
        raise UsageError("E0202", f"{len(inputs)} images do not fill batches of {size}")
    name, output = runner.inputs[0].name, runner.outputs[0].name
    parts = (np.ascontiguousarray(inputs[i : i + size]) for i in range(0, len(inputs), size))
    return np.concatenate([runner.run({name: part})[output] for part in parts])
