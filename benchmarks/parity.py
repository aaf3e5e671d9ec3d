"""Parity: how far an artefact's logits are from the reference's, on the same images.

Two levels at once. Tensor: differences d = actual - reference over all logits. Decision: how
often both pick the same class. Cosine alone hides flips, agreement alone hides how near they
were: both are given, and no failure is dropped from a denominator.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from convexport.benchmarks.parity_tally import ATOL, DIFFER, RTOL, Logits, ParityTally, tallied
from convexport.benchmarks.statistics import Proportion, proportion
from convexport.runtime.errors import GateError, UsageError

LIMIT = 1e-4
# How many images a comparison takes where nobody says otherwise.
PARITY_IMAGES = 64


@dataclass(frozen=True)
class Parity:
    """What ``compare`` found. Where a value is not finite, what follows from it is None.

    Attributes:
        n: images.
        classes: logits an image.
        max_abs: max |d|.
        mean_abs: mean |d|.
        max_rel: max |d| / max |reference|, both over all images.
        cosine: the smallest over images, -1..1; 0 where one side is all zero.
        sqnr_db: 10 log10(sum reference^2 / sum d^2); None also if there is no noise at all.
        outside: share of logits with |d| > ATOL + RTOL |reference|.
        nonfinite_reference: logits of the reference that are NaN or infinite.
        nonfinite_actual: the same of the artefact.
        constant_reference: all images have the same logits, though there are several.
        constant_actual: the same of the artefact.
        top1: images for which both pick the same class (of equals the first); a NaN never does.
        top5: images whose class by the reference is among the artefact's first five; None with
            fewer than five classes.
        worst: indices of the images with the largest |d|, worst first, at most 12.
    """

    n: int
    classes: int
    max_abs: float | None
    mean_abs: float | None
    max_rel: float | None
    cosine: float | None
    sqnr_db: float | None
    outside: float
    nonfinite_reference: int
    nonfinite_actual: int
    constant_reference: bool
    constant_actual: bool
    top1: Proportion
    top5: Proportion | None
    worst: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **asdict(self),
            "top1": self.top1.to_dict(),
            "top5": self.top5 and self.top5.to_dict(),
            "worst": list(self.worst),
            "rtol": RTOL,
            "atol": ATOL,
        }


def compare(reference: Logits, actual: Logits) -> Parity:
    """Compare logits of shape (n, classes), float; row i of both is the same image.

    Raises:
        InputError: E0365, the reference is not such an array.
        GateError: E0560, the artefact's logits have another shape.
    """
    return parity_of(tallied(reference, actual))


def parity_of(tally: ParityTally) -> Parity:
    """Of all images that were counted; at least one."""
    return Parity(
        n=tally.n,
        classes=tally.classes,
        **tally.distances(),
        outside=tally.outside / (tally.n * tally.classes),
        nonfinite_reference=tally.nonfinite_reference,
        nonfinite_actual=tally.nonfinite_actual,
        constant_reference=tally.n > 1 and tally.row_reference != DIFFER,
        constant_actual=tally.n > 1 and tally.row_actual != DIFFER,
        top1=proportion(tally.agree, tally.n),
        top5=proportion(tally.among, tally.n) if tally.classes >= 5 else None,
        worst=tuple(row[1] for row in tally.worst),
    )


def require_parity(parity: Parity, stage: str, limit: float = LIMIT) -> None:
    """Let nothing pass whose ``max_rel`` exceeds ``limit``, or for which it says nothing.

    Raises:
        UsageError: E0265, the limit is not a number of at least 0.
        GateError: E0561, too far; E0562, NaN or infinite logits; E0563, all images have the
            same logits, on one side or on both.
    """
    if not (math.isfinite(limit) and limit >= 0):
        raise UsageError("E0265", f"a parity limit cannot be {limit}")
    images = f"worst images {', '.join(map(str, parity.worst[:5]))} of {parity.n}"
    bad = parity.nonfinite_reference, parity.nonfinite_actual
    if any(bad):
        raise GateError(
            "E0562",
            f"{stage}: logits that are not finite: {bad[0]} of the reference, {bad[1]} here",
            where=images,
        )
    if parity.constant_reference or parity.constant_actual:
        side = "reference" if parity.constant_reference else "artefact"
        raise GateError(
            "E0563",
            f"{stage}: the {side} gives the same logits for all {parity.n} images",
            why="an output that does not depend on its input shows nothing",
        )
    if parity.max_rel is None or parity.max_rel > limit:
        raise GateError(
            "E0561",
            f"{stage}: the outputs moved by {_number(parity.max_rel)} of the largest logit, "
            f"the limit is {limit:.3g}",
            where=f"{images}; max |d| {_number(parity.max_abs)}, top-1 agreement {parity.top1}",
            hint="compare this stage with the one before it",
        )


def _number(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.3g}"
