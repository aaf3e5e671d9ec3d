"""Parity: how far an artefact's logits are from the reference's, on the same images.

Two levels at once. Tensor: differences d = actual - reference over all logits. Decision: how
often both pick the same class. Cosine alone hides flips, agreement alone hides how near they
were: both are given, and no failure is dropped from a denominator.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convexport.benchmarks.statistics import Proportion, proportion
from convexport.runtime.errors import GateError, InputError, UsageError

RTOL, ATOL = 1e-3, 1e-4
LIMIT = 1e-4
# How many images a comparison takes where nobody says otherwise.
PARITY_IMAGES = 64
_WORST = 12

Logits = npt.NDArray[Any]
_Floats = npt.NDArray[np.float64]


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
    want, have = _logits(reference), np.asarray(actual)
    if have.shape != want.shape or have.dtype.kind not in "fiu":
        raise GateError(
            "E0560",
            "the outputs differ in shape or kind",
            where=f"reference {want.shape}, artefact {have.shape} {have.dtype}",
        )
    have = have.astype(np.float64)
    n, classes = want.shape
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(have - want)
    chosen = picks(want, 1)[:, 0]
    # An infinite reference would tolerate anything, itself included: only finite is within.
    within = np.isfinite(distance) & (distance <= ATOL + RTOL * np.abs(want))
    agree = picks(have, 1)[:, 0] == chosen
    among = (picks(have, min(5, classes)) == chosen[:, None]).any(axis=1)
    sound = np.isfinite(want).all(axis=1) & np.isfinite(have).all(axis=1)
    badness = np.where(np.isfinite(distance), distance, np.inf).max(axis=1)
    return Parity(
        n=n,
        classes=classes,
        **_distances(want, have, distance),
        outside=float(1 - within.mean()),
        nonfinite_reference=int((~np.isfinite(want)).sum()),
        nonfinite_actual=int((~np.isfinite(have)).sum()),
        constant_reference=_constant(want),
        constant_actual=_constant(have),
        top1=proportion(int((agree & sound).sum()), n),
        top5=proportion(int((among & sound).sum()), n) if classes >= 5 else None,
        worst=tuple(int(index) for index in np.argsort(-badness, kind="stable")[:_WORST]),
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


def _logits(reference: Logits) -> _Floats:
    array = np.asarray(reference)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise InputError(
            "E0365",
            "reference logits are numbers of shape (images, classes)",
            where=f"given {array.shape} {array.dtype}",
        )
    return array.astype(np.float64)


def picks(logits: Logits, count: int) -> npt.NDArray[np.intp]:
    """(n, count): the classes with the largest logits; of equals the first, as argmax does."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :count]


def _constant(logits: _Floats) -> bool:
    return len(logits) > 1 and bool((logits == logits[0]).all())


def _distances(want: _Floats, have: _Floats, distance: _Floats) -> dict[str, Any]:
    """The five distances by name, all None as soon as a value is not finite."""
    if not np.isfinite(distance).all():
        return dict.fromkeys(("max_abs", "mean_abs", "max_rel", "cosine", "sqnr_db"))
    largest = float(np.abs(want).max())
    max_abs = float(distance.max())
    noise, signal = float((distance**2).sum()), float((want**2).sum())
    lengths = np.linalg.norm(want, axis=1) * np.linalg.norm(have, axis=1)
    dots = (want * have).sum(axis=1)
    cosines = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
    cosines[(distance == 0).all(axis=1)] = 1.0
    return {
        "max_abs": max_abs,
        "mean_abs": float(distance.mean()),
        "max_rel": max_abs / largest if largest else (None if max_abs else 0.0),
        "cosine": float(np.clip(cosines.min(), -1, 1)),
        "sqnr_db": 10 * math.log10(signal / noise) if signal and noise else None,
    }


def _number(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.3g}"
