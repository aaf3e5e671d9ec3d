"""Which images a build calibrates with, compares on, and counts accuracy on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from convexport.benchmarks.statistics import images_needed, proportion
from convexport.calibration.digits import digits
from convexport.calibration.images import ImageSet, folder, overlap
from convexport.calibration.photographs import photographs
from convexport.exporter.options import BuildOptions
from convexport.exporter.source import Source
from convexport.runtime.errors import MachineError, UsageError

# Images that recipes of INT8 are tried on, and fewer than which say nothing.
_TRIED_ON, _FEWEST = 32, 8


@dataclass(frozen=True)
class Images:
    """The sets of one build; none shares an image with another.

    Attributes:
        calibration: sets the ranges; None where nothing is calibrated.
        held_out: what calibration decides is tried on these; None where nothing is tried.
        parity: artefact and reference are compared on these.
        evaluation: labelled images of the net's own task; None where there are none.
    """

    calibration: ImageSet | None
    held_out: ImageSet | None
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
        if self.held_out is self.calibration:
            yield "too few images to hold some out: INT8 was chosen on those that set its ranges"
        yield from self.calibration.doubts()
        if self.evaluation is not None and (same := overlap(self.calibration, self.evaluation)):
            yield f"{len(same)} calibration images are also evaluation images"


def choose_images(source: Source, options: BuildOptions) -> Images:
    """The digits for nets trained on them, the user's folder, or else the stand-in photographs.

    From a folder, images that are not used for calibration are kept for the comparison, where
    there are enough of them.

    Raises:
        InputError: the folder is missing, empty or holds no images.
        UsageError: E0287, so few images cannot show so small a drop as ``max_drop``.
    """
    _require_memory(source, options)
    images = _chosen(source, options)
    if options.max_drop is not None and images.held_out is not None:
        counted = images.held_out if images.evaluation is None else images.evaluation
        if counted is images.calibration:
            raise UsageError(
                "E0287",
                "no image is left to count the drop on",
                where=f"--max-drop {options.max_drop:.2%}",
                why="those that set the ranges prove nothing",
                hint="give more images with --calib, or fewer --calib-images",
            )
        _require_provable(options.max_drop, len(counted))
    return images


def _chosen(source: Source, options: BuildOptions) -> Images:
    # What FP16 decides follows from the ranges: nothing is tried.
    tries = options.precision == "int8"
    calibrated = tries or options.precision == "fp16"
    # What a new classifier answers has nothing to do with digits.
    digital = source.weights["kind"] == "digits" and "classifier" not in source.weights
    if digital and options.calib is None:
        test = digits("test")
        if options.parity_images > len(test):
            raise UsageError(
                "E0281",
                f"--parity-images {options.parity_images}: there are {len(test)} digits",
                hint="give fewer",
            )
        parity = test.sample(options.parity_images)
        if not calibrated:
            return Images(None, None, parity, test)
        pool = digits("calibration")
        calibration = pool.sample(options.calib_images)
        if not tries:
            return Images(calibration, None, parity, test)
        return Images(*_with_held_out(calibration, pool, (), _TRIED_ON), parity, test)
    evaluation = digits("test") if digital else None
    parity = photographs("parity", options.parity_images)
    if not calibrated:
        return Images(None, None, parity, evaluation)
    wanted = _TRIED_ON
    if options.max_drop is not None and evaluation is None:
        wanted = images_needed(options.max_drop)
    if options.calib is None:
        calibration = photographs("calibration", options.calib_images)
        held_out = photographs("held-out", wanted) if tries else None
        return Images(calibration, held_out, parity, evaluation)
    images = folder(options.calib)
    calibration = images.sample(options.calib_images)
    unused = _unused(images, (calibration,), options.parity_images)
    if unused is not None and len(unused) == options.parity_images:
        parity = unused
    if not tries:
        return Images(calibration, None, parity, evaluation)
    return Images(*_with_held_out(calibration, images, (parity,), wanted), parity, evaluation)


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


def _require_provable(max_drop: float, images: int) -> None:
    least = proportion(0, images).high
    if least > max_drop:
        raise UsageError(
            "E0287",
            f"{images} images cannot show a drop below {least:.2%}",
            where=f"--max-drop {max_drop:.2%}",
            why="without any change the 95 % interval still reaches so far",
            hint=f"allow more, or give at least {images_needed(max_drop)} images",
        )


def _with_held_out(
    calibration: ImageSet, pool: ImageSet, others: tuple[ImageSet, ...], wanted: int
) -> tuple[ImageSet, ImageSet]:
    """The calibration set and the held-out one: unused images of the pool, or else a fifth of it.

    Of few images none can be spared: then both are the same set.
    """
    unused = _unused(pool, (calibration, *others), wanted)
    if unused is not None and len(unused) >= min(_FEWEST, wanted):
        return calibration, unused
    if len(calibration) < 5 * _TRIED_ON:
        return calibration, calibration
    fifth, rest = calibration.items[4::5], [*calibration.items]
    del rest[4::5]
    description = "a fifth of the calibration images, held out"
    return (
        replace(calibration, items=tuple(rest)),
        replace(calibration, items=fifth, description=description),
    )


def _unused(images: ImageSet, used: tuple[ImageSet, ...], count: int) -> ImageSet | None:
    """Up to so many images whose content is in none of the sets that are used; None without."""
    names = {item.name for each in used for item in each.items if each.kind == images.kind}
    rest = [index for index, name in enumerate(images.names()) if name not in names]
    if not rest:
        return None
    # Twice as many as are wanted: some may be copies of used images, or unreadable.
    some = min(2 * count, len(rest))
    picked = (rest[index * len(rest) // some] for index in range(some))
    candidates = replace(images, items=tuple(images.items[index] for index in picked))
    copies = {name for each in used for name in overlap(candidates, each)}
    kept = tuple(item for item in candidates.items if item.name not in copies and item.readable())
    description = "images of the same set that were not used for calibration"
    found = replace(images, items=kept, description=description)
    return found.sample(min(count, len(kept))) if kept else None
