"""What the values of tensors give away before any range is set from them."""

from __future__ import annotations

import numpy as np

from convexport.runtime.errors import InputError, UsageError
from convexport.runtime.specs import Preprocess

_SLACK = 1e-3
_NARROW = 0.02


def check_values(array: np.ndarray, spec: Preprocess) -> tuple[str, ...]:
    """Look at tensors (float, NCHW) that came from elsewhere, before they set any range.

    Returns:
        Notes on values that do not fit what the spec's mean and std give for pixels of 0..1.

    Raises:
        UsageError: E0240, the array is empty.
        InputError: E0343, a value is NaN or infinite; E0344, every image is constant.
    """
    if not array.size:
        raise UsageError("E0240", "no values to look at", where=f"shape {array.shape}")
    finite = np.isfinite(array)
    if not finite.all():
        bad = np.flatnonzero(~finite.reshape(len(array), -1).all(axis=1))
        what = f"{np.count_nonzero(~finite)} values are NaN or infinite"
        where = f"images {', '.join(map(str, bad[:5]))} of {len(array)}"
        raise InputError("E0343", what, where=where, why="one of them spoils a tensor's range")
    if all(is_constant(image) for image in array):
        raise all_constant(f"{len(array)} tensors")
    # Per channel, back to what the pixels were before mean and std: 0..1.
    mean, std = np.array(spec.mean), np.array(spec.std)
    least = float((array.min(axis=(0, 2, 3)) * std + mean).min())
    most = float((array.max(axis=(0, 2, 3)) * std + mean).max())
    found = f"before mean and std the pixels were {least:.3g}..{most:.3g}, not 0..1"
    if least < -_SLACK or most > 1 + _SLACK:
        return (f"{found}: were they normalised with this mean and std?",)
    if most - least < _NARROW:
        return (f"{found}: were they divided by 255 twice?",)
    return ()


def is_constant(image: np.ndarray) -> bool:
    """Whether each channel of one image (CHW) is of one value."""
    return bool((image == image[:, :1, :1]).all())


def all_constant(where: str) -> InputError:
    """E0344, for who finds nothing but constant images."""
    return InputError(
        "E0344",
        "every image is of one colour",
        where=where,
        why="such images show the net nothing; every range would be too small",
    )
