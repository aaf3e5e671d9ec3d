"""Images of one colour: they show a net nothing."""

from __future__ import annotations

import numpy as np

from convexport.runtime.errors import InputError


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
