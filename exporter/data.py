"""Which images a build calibrates with, compares on, and counts accuracy on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from convexport.benchmarks.verify import PARITY_IMAGES
from convexport.calibration.digits import digits
from convexport.calibration.images import ImageSet, folder, overlap
from convexport.calibration.photographs import photographs
from convexport.exporter.options import BuildOptions
from convexport.exporter.source import Source

FEW_IMAGES = 100


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
        if len(self.calibration) < FEW_IMAGES:
            yield f"only {len(self.calibration)} calibration images; 100 or more are better"
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
    used = {item.name for item in calibration.items}
    rest = ImageSet(
        kind=images.kind,
        description=f"{PARITY_IMAGES} images of the folder that were not used for calibration",
        items=tuple(item for item in images.items if item.name not in used),
    )
    return rest.sample(PARITY_IMAGES) if len(rest) >= PARITY_IMAGES else None
