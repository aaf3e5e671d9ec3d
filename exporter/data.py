"""Which images a build calibrates with, compares on, and counts accuracy on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from convexport.benchmarks.verify import PARITY_IMAGES
from convexport.calibration.digits import digits
from convexport.calibration.images import ImageSet, folder, overlap
from convexport.calibration.photographs import photographs
from convexport.exporter.options import BuildOptions
from convexport.exporter.source import Source


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

    def notes(self) -> Iterator[str]:
        """What a user must know about the calibration images."""
        if self.calibration is None:
            return
        if self.calibration.stand_in:
            yield (
                "calibration images are a stand-in (crops of two photographs): "
                "give your own with --calib DIR"
            )
        if self.evaluation is not None and (same := overlap(self.calibration, self.evaluation)):
            yield f"{len(same)} calibration images are also evaluation images"


def choose_images(source: Source, options: BuildOptions) -> Images:
    """The digits for nets trained on them, the user's folder, or else the stand-in photographs.

    From a folder, images that are not used for calibration are kept for the comparison, where
    there are enough of them.

    Raises:
        InputError: the folder is missing, empty or holds no images.
    """
    calibrated = options.precision == "int8"
    if source.weights["kind"] == "digits" and options.calib is None:
        calibration = digits("calibration").sample(options.calib_images) if calibrated else None
        test = digits("test")
        return Images(calibration, test.sample(PARITY_IMAGES), test)
    evaluation = digits("test") if source.weights["kind"] == "digits" else None
    parity = photographs("parity", PARITY_IMAGES)
    if not calibrated:
        return Images(None, parity, evaluation)
    if options.calib is None:
        return Images(photographs("calibration", options.calib_images), parity, evaluation)
    images = folder(options.calib)
    calibration = images.sample(options.calib_images)
    return Images(calibration, _held_out(images, calibration) or parity, evaluation)


def _held_out(images: ImageSet, calibration: ImageSet) -> ImageSet | None:
    """Images of the folder whose content is not in the calibration set, if there are enough."""
    used = {item.name for item in calibration.items}
    rest = tuple(item for item in images.items if item.name not in used)
    if len(rest) < PARITY_IMAGES:
        return None
    # Twice as many as are wanted: some may be copies of calibration images, or unreadable.
    candidates = replace(images, items=rest).sample(2 * PARITY_IMAGES)
    copies = set(overlap(candidates, calibration))
    kept = tuple(item for item in candidates.items if item.name not in copies and item.readable())
    if len(kept) < PARITY_IMAGES:
        return None
    description = "images of the given folder that were not used for calibration"
    return replace(images, items=kept, description=description).sample(PARITY_IMAGES)
