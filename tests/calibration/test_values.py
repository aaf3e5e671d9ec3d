"""Images of one colour."""

import numpy as np

from convexport.calibration.values import is_constant


def test_each_channel_counts_by_itself() -> None:
    image = np.stack([np.full((4, 4), value, np.float32) for value in (0, 1, 2)])
    assert is_constant(image)
    image[2, 3, 3] = 5
    assert not is_constant(image)
