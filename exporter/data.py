"""Which images a build calibrates with, compares on, and counts accuracy on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from convexport.calibration.digits import digits
from convexport.calibration.images import ImageSet, folder, overlap
from convexport.calibration.photographs import photographs
from convexport.exporter.options import BuildOptions
from convexport.exporter.source import Source
from convexport.runtime.errors import MachineError, UsageError


@dataclass(frozen=True)
class Images:
    """The sets of one build; none shares an image with another.

    Attributes:
        calibration: sets the ranges; None where nothing is calibrated.
        parity: artefact and reference are compared on these.
        evaluation: labelled images of the net's own task; None where there are none.
    """

    calibration: ImageSet | None
    parity: ImageSet
    evaluation: ImageSet | None

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a user must know about the calibration images."""
        return tuple(self._notes())

    def _notes(self) -> Iterator[str]:
        if self.calibration is None:
            return
        if self.calibration.stand_in:
            yield (
                "calibration images are a stand-in (crops of two photographs): "
                "give your own with --calib DIR"
            )
        yield from self.calibration.doubts()
        if self.evaluation is not None and (same := overlap(self.calibration, self.evaluation)):
            yield f"{len(same)} calibration images are also evaluation images"


def choose_images(source: Source, options: BuildOptions) -> Images:
    """The digits for nets trained on them, the user's folder, or else the stand-in photographs.

    From a folder, images that are not used for calibration are kept for the comparison, where
    there are enough of them.

    Raises:
        InputError: the folder is missing, empty or holds no images.
    """
    _require_memory(source, options)
    calibrated = options.precision == "int8"
    # What a new classifier answers has nothing to do with digits.
    digital = source.weights["kind"] == "digits" and "classifier" not in source.weights
    if digital and options.calib is None:
        calibration = digits("calibration").sample(options.calib_images) if calibrated else None
        test = digits("test")
        if options.parity_images > len(test):
            raise UsageError(
                "E0281",
                f"--parity-images {options.parity_images}: there are {len(test)} digits",
                hint="give fewer",
            )
        return Images(calibration, test.sample(options.parity_images), test)
    evaluation = digits("test") if digital else None
    parity = photographs("parity", options.parity_images)
    if not calibrated:
        return Images(None, parity, evaluation)
    if options.calib is None:
        return Images(photographs("calibration", options.calib_images), parity, evaluation)
    images = folder(options.calib)
    calibration = images.sample(options.calib_images)
    return Images(
        calibration, _held_out(images, calibration, options.parity_images) or parity, evaluation
    )


def _require_memory(source: Source, options: BuildOptions) -> None:
    """Refuse what could not be held: the parity images are kept as one array.

    Raises:
        MachineError: E0481, there is not so much memory.
    """
    needed = options.parity_images * 4 * prod(source.shape)
    # All there is: what is free now does not count what the page cache would give back.
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available:
        raise MachineError(
            "E0481",
            f"the images need {needed / 1e9:.1f} GB, the machine has {available / 1e9:.1f} GB",
            where=f"{options.parity_images} images {'x'.join(map(str, source.shape))}",
            hint="give fewer --parity-images, or a smaller --input-shape",
        )


def _held_out(images: ImageSet, calibration: ImageSet, count: int) -> ImageSet | None:
    """Images of the folder whose content is not in the calibration set, if there are enough."""
    used = {item.name for item in calibration.items}
    rest = tuple(item for item in images.items if item.name not in used)
    if len(rest) < count:
        return None
    # Twice as many as are wanted: some may be copies of calibration images, or unreadable.
    candidates = replace(images, items=rest).sample(2 * count)
    copies = set(overlap(candidates, calibration))
    kept = tuple(item for item in candidates.items if item.name not in copies and item.readable())
    if len(kept) < count:
        return None
    description = "images of the given folder that were not used for calibration"
    return replace(images, items=kept, description=description).sample(count)
