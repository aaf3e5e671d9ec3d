"""Accuracy of an artefact against the reference, image by image.

Both see the same images, so only the images on which they disagree about being right carry
information: b that only the reference has right, c that only the artefact has right. The drop
is (b - c) / n. Its interval is Tango's score interval (1998, Statistics in Medicine 17, 891-908),
which keeps its coverage when b and c are small or zero: the values D that

    | b - c - n D |  <=  z sqrt( n (2 q + D (1 - D)) )

does not reject, where q is the likeliest probability of an image of kind c given D, the larger
root of 2n q^2 + (-b - c + (2n - b + c) D) q - c D (1 - D) = 0. The p-value is McNemar's exact
one (1947, Psychometrika 12): b given b + c is binomial with 1/2.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convexport.benchmarks.distributions import binomial_cdf, normal_quantile
from convexport.benchmarks.parity_tally import ranks
from convexport.benchmarks.statistics import CONFIDENCE, Proportion, proportion
from convexport.benchmarks.tally import Tally, kept, summed
from convexport.runtime.errors import InputError, UsageError

MARGIN_PP = 1.0

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class PairedAccuracy:
    """Top-1 of both, and the drop in percentage points (above 0: the artefact is worse).

    Attributes:
        reference: images that the reference has right.
        actual: images that the artefact has right.
        only_reference: b, right in the reference alone.
        only_actual: c, right in the artefact alone.
        drop_pp: (b - c) / n in percentage points.
        low_pp: lower end of its 95 % interval.
        high_pp: upper end.
        p_value: McNemar's exact test of no difference, two-sided.
        margin_pp: how much drop would be accepted.
        non_inferior: the upper end is below the margin.
        nonfinite: images with a NaN or infinite logit on either side; there it counts as wrong.
        hint: what is odd about the labels, or nothing.
    """

    reference: Proportion
    actual: Proportion
    only_reference: int
    only_actual: int
    drop_pp: float
    low_pp: float
    high_pp: float
    p_value: float
    margin_pp: float
    non_inferior: bool
    nonfinite: int
    hint: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **asdict(self),
            "reference": self.reference.to_dict(),
            "actual": self.actual.to_dict(),
            "method": "Tango score interval 95 %, McNemar exact",
        }


@dataclass
class AccuracyTally(Tally):
    """Labelled images so far: how many each side had right, and which alone.

    Attributes:
        classes: of the net.
        nonfinite: images with a NaN or infinite logit on either side.
        over: images whose label is one less than the reference's class; ``under``: one more.
    """

    n: int = summed()
    classes: int = kept(0, max)
    reference: int = summed()
    actual: int = summed()
    only_reference: int = summed()
    only_actual: int = summed()
    nonfinite: int = summed()
    over: int = summed()
    under: int = summed()

    def result(self, margin_pp: float = MARGIN_PP) -> PairedAccuracy:
        """Of all images that were counted; at least one.

        Raises:
            UsageError: E0266, a margin that is not above 0.
        """
        if not (math.isfinite(margin_pp) and margin_pp > 0):
            raise UsageError("E0266", f"a margin cannot be {margin_pp} percentage points")
        b, c = self.only_reference, self.only_actual
        low, high = tango_interval(b, c, self.n)
        return PairedAccuracy(
            reference=proportion(self.reference, self.n),
            actual=proportion(self.actual, self.n),
            only_reference=b,
            only_actual=c,
            drop_pp=100 * (b - c) / self.n,
            low_pp=100 * low,
            high_pp=100 * high,
            p_value=mcnemar_exact(b, c),
            margin_pp=margin_pp,
            non_inferior=100 * high < margin_pp,
            nonfinite=self.nonfinite,
            hint=self._hint(),
        )

    def _hint(self) -> str:
        right = proportion(self.reference, self.n)
        for count, where in ((self.over, "before"), (self.under, "after")):
            shifted = proportion(count, self.n)
            if shifted.low > right.high:
                return (
                    f"the reference has {right} right, and {shifted} of the labels stand one "
                    f"{where} its answer: labels are off by one (a class too many, as background?)"
                )
        if self.classes < 2 or right.low > 1 / self.classes:
            return ""
        return (
            f"the reference has {right} right, no better than chance (1/{self.classes}): "
            "labels look permuted, or the weights untrained"
        )


def paired_accuracy(
    reference_logits: _Array, logits: _Array, labels: _Array, *, margin_pp: float = MARGIN_PP
) -> PairedAccuracy:
    """Compare two nets on the same labelled images.

    Args:
        reference_logits: (n, classes).
        logits: (n, classes), of the artefact.
        labels: (n,) whole numbers in 0..classes - 1.
        margin_pp: of non-inferiority, in percentage points, above 0.

    Raises:
        InputError: E0366, shapes that do not belong together; E0367, labels that are no classes.
        UsageError: E0266, a margin that is not above 0.
    """
    return counted_right(reference_logits, logits, labels).result(margin_pp)


def counted_right(
    reference_logits: _Array, logits: _Array, labels: _Array, *, top: int = 1
) -> AccuracyTally:
    """``paired_accuracy``, as counts that can be added to those of other images.

    Args:
        top: an image is right where its label is among so many of the largest logits.

    Raises:
        InputError: E0366 or E0367, as there.
    """
    want, have, truth = np.asarray(reference_logits), np.asarray(logits), np.asarray(labels)
    _require_shapes(want, have, truth)
    n, classes = want.shape
    _require_classes(truth, classes)
    truth = truth.astype(np.intp)
    sound = [np.isfinite(side).all(axis=1) for side in (want, have)]
    first, second = (
        (ranks(side, truth) < top) & finite
        for side, finite in zip((want, have), sound, strict=True)
    )
    shift = np.where(sound[0], want.argmax(axis=1) - truth, 0)
    counts = {
        "reference": first,
        "actual": second,
        "only_reference": first & ~second,
        "only_actual": second & ~first,
        "nonfinite": ~(sound[0] & sound[1]),
        "over": shift == 1,
        "under": shift == -1,
    }
    return AccuracyTally(
        n=n, classes=classes, **{name: int(each.sum()) for name, each in counts.items()}
    )


def mcnemar_exact(b: int, c: int) -> float:
    """The two-sided exact p-value for b against c discordant images; 1 if there are none."""
    return min(1.0, 2 * float(binomial_cdf(b + c, 0.5)[min(b, c)]))


def tango_interval(b: int, c: int, n: int, *, tries: int = 1) -> tuple[float, float]:
    """The 95 % interval of (b - c) / n, within -1..1; b + c <= n, n >= 1.

    Args:
        tries: how many such intervals have to hold together (Bonferroni).
    """
    z = normal_quantile(1 - (1 - CONFIDENCE) / 2 / tries)
    middle = (b - c) / n
    # The statistic falls as D grows: it is above z left of the interval, below -z right of it.
    low = _falls_to(z, -1.0, middle, b, c, n)
    high = _falls_to(-z, middle, 1.0, b, c, n)
    return low, high


def _falls_to(level: float, low: float, high: float, b: int, c: int, n: int) -> float:
    """Where between two differences Tango's statistic falls to ``level``, by halving."""
    for _ in range(60):
        middle = (low + high) / 2
        if _statistic(middle, b, c, n) > level:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _statistic(difference: float, b: int, c: int, n: int) -> float:
    linear = (2 * n - b + c) * difference - b - c
    constant = -c * difference * (1 - difference)
    root = math.sqrt(max(0.0, linear**2 - 8 * n * constant))
    q = (root - linear) / (4 * n)
    variance = n * (2 * q + difference * (1 - difference))
    excess = b - c - n * difference
    return excess / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, excess)


def _require_shapes(want: _Array, have: _Array, labels: _Array) -> None:
    fits = want.ndim == 2 and 0 not in want.shape and have.shape == want.shape
    if not fits or labels.shape != want.shape[:1]:
        raise InputError(
            "E0366",
            "logits and labels do not belong together",
            where=f"reference {want.shape}, artefact {have.shape}, labels {labels.shape}",
        )


def _require_classes(labels: _Array, classes: int) -> None:
    if labels.dtype.kind not in "iu":
        raise InputError("E0367", f"labels are whole numbers, not {labels.dtype}")
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        raise InputError(
            "E0367",
            f"{len(outside)}/{len(labels)} labels are none of the {classes} classes",
            where=f"first at image {outside[0]}: label {labels[outside[0]]}",
            hint=f"labels run from 0 to {classes - 1}: do yours start at 1?",
        )
