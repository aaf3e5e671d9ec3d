"""Many images through a runner, a few at a time."""

from __future__ import annotations

from typing import Optional

import numpy as np

from convexport.runtime.specs import Runner

DEFAULT_BATCH = 8


def fixed_batch(runner: Runner) -> Optional[int]:
    """The batch that the runner insists on, or None where it is free."""
    batch = runner.inputs[0].shape[0]
    return batch if isinstance(batch, int) else None


def filled(batch: np.ndarray, size: Optional[int]) -> np.ndarray:
    """The batch, made ``size`` long by repeating its last image; None leaves it as it is."""
    if size is None or len(batch) == size:
        return batch
    return np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])


def run_in_batches(runner: Runner, inputs: np.ndarray) -> np.ndarray:
    """The first output for every image.

    Args:
        runner: with one input. Where its batch is fixed, the last one is filled up, and what
            that gives is left out.
        inputs: float32 N×C×H×W.
    """
    fixed = fixed_batch(runner)
    # A TensorRT engine takes a free batch up to what it was built for.
    size = fixed or min(DEFAULT_BATCH, getattr(runner, "max_batch", DEFAULT_BATCH))
    name, output = runner.inputs[0].name, runner.outputs[0].name
    parts = (np.ascontiguousarray(inputs[i : i + size]) for i in range(0, len(inputs), size))
    logits = [runner.run({name: filled(part, fixed)})[output][: len(part)] for part in parts]
    return np.concatenate(logits)
