"""How far an artefact's logits are from the reference's, as counts of images that can be added."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from convexport.benchmarks.tally import COUNTED, Tally, exact, kept, listed, nearest, summed
from convexport.runtime.errors import GateError, InputError

RTOL, ATOL = 1e-3, 1e-4
DIFFER = "differ"
# Of |d| over the image's largest |reference|: zero, then four bins a power of ten. They are the
# same for every pass, so that histograms of parts can be added; what is beyond is in the last.
EDGES = (0.0, *(float(f"{10 ** (k / 4):.6g}") for k in range(-32, 5)))

_WORST_FIRST = listed(12, lambda row: (row[0] is not None, -(row[0] or 0.0), row[1]))

Logits = npt.NDArray[Any]
_Floats = npt.NDArray[np.float64]


@dataclass
class ParityTally(Tally):
    """What a comparison needs to know of the images seen so far.

    Attributes:
        n: images.
        classes: logits an image.
        max_abs: max |d|, of those that are finite.
        largest: max |reference|, likewise.
        cosine: the smallest so far.
        distance: the sum of |d|; ``noise`` of d^2, ``signal`` of reference^2: see ``exact``.
        outside: logits with |d| > ATOL + RTOL |reference|, or whose distance is not finite.
        nonfinite: logits whose distance is not; ``nonfinite_reference`` and ``nonfinite_actual``
            those that are not themselves.
        row_reference: a hash of the images' logits while all have the same, then ``differ``;
            ``row_actual`` likewise.
        agree: images for which both pick the same class; ``among`` those whose class by the
            reference is among the artefact's first five.
        bins: how many differences lie in each bin of ``EDGES``, by its index.
        changed: reference's class and the artefact's, ``3>5``, where they are not the same.
        worst: the images with the largest |d|: |d| (None: not finite), position, name, both
            classes.
    """

    n: int = summed()
    classes: int = kept(0, max)
    max_abs: float = kept(0.0, max)
    largest: float = kept(0.0, max)
    cosine: float = kept(1.0, min)
    distance: int = summed()
    noise: int = summed()
    signal: int = summed()
    outside: int = summed()
    nonfinite: int = summed()
    nonfinite_reference: int = summed()
    nonfinite_actual: int = summed()
    row_reference: str = kept("", lambda mine, theirs: _same_row(mine, theirs))
    row_actual: str = kept("", lambda mine, theirs: _same_row(mine, theirs))
    agree: int = summed()
    among: int = summed()
    bins: dict[str, int] = field(default_factory=dict, metadata=COUNTED)
    changed: dict[str, int] = field(default_factory=dict, metadata=COUNTED)
    worst: list[list[Any]] = field(default_factory=list, metadata=_WORST_FIRST)

    def histogram(self) -> dict[str, Any]:
        """Of |d| over the image's largest |reference|: one more edge than there are counts."""
        counts = [self.bins.get(str(index), 0) for index in range(len(EDGES) - 1)]
        return {"edges": list(EDGES), "counts": counts}

    def distances(self) -> dict[str, Any]:
        """The five distances by name, all None as soon as a value is not finite."""
        if self.nonfinite:
            return dict.fromkeys(("max_abs", "mean_abs", "max_rel", "cosine", "sqnr_db"))
        noise, signal = nearest(self.noise), nearest(self.signal)
        share = self.max_abs / self.largest if self.largest else None
        return {
            "max_abs": self.max_abs,
            "mean_abs": nearest(self.distance) / (self.n * self.classes),
            "max_rel": share if self.largest or self.max_abs else 0.0,
            "cosine": self.cosine,
            "sqnr_db": 10 * math.log10(signal / noise) if signal and noise else None,
        }


def tallied(
    reference: Logits, actual: Logits, positions: Sequence[int] = (), names: Sequence[str] = ()
) -> ParityTally:
    """``compare``, as counts that can be added to those of other images.

    Args:
        positions: of the images in their set; by default as they come.
        names: of the images; by default none.

    Raises:
        InputError: E0365, the reference is not such an array.
        GateError: E0560, the artefact's logits have another shape.
    """
    want, have = _logits(reference), _outputs(reference, actual)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(have - want)
    finite = np.isfinite(distance)
    n, classes = want.shape
    # An infinite reference would tolerate anything, itself included: only finite is within.
    within = finite & (distance <= ATOL + RTOL * np.abs(want))
    pairs = np.stack((want.argmax(axis=1), have.argmax(axis=1)), axis=1).tolist()
    tally = ParityTally(
        n=n,
        classes=classes,
        outside=int((~within).sum()),
        nonfinite=int((~finite).sum()),
        nonfinite_reference=int((~np.isfinite(want)).sum()),
        nonfinite_actual=int((~np.isfinite(have)).sum()),
        row_reference=_row(want),
        row_actual=_row(have),
        **_agreement(want, have),
        bins=_bins(want, distance),
        changed=dict(Counter(f"{a}>{b}" for a, b in pairs if a != b)),
        **(_measured(want, have, distance) if finite.all() else {}),
    )
    furthest = np.where(finite, distance, np.inf).max(axis=1).tolist()
    rows = zip(furthest, positions or range(n), names or [""] * n, pairs, strict=True)
    worst = [[far if math.isfinite(far) else None, *place, *pair] for far, *place, pair in rows]
    # By way of a merge, which keeps the worst alone.
    tally.absorb(ParityTally(worst=worst))
    return tally


def _agreement(want: _Floats, have: _Floats) -> dict[str, Any]:
    rank = ranks(have, want.argmax(axis=1))
    sound = np.isfinite(want).all(axis=1) & np.isfinite(have).all(axis=1)
    tops = {"agree": 1, "among": 5}
    return {name: int(((rank < top) & sound).sum()) for name, top in tops.items()}


def _outputs(reference: Logits, actual: Logits) -> _Floats:
    have = np.asarray(actual)
    if have.shape != np.shape(reference) or have.dtype.kind not in "fiu":
        raise GateError(
            "E0560",
            "the outputs differ in shape or kind",
            where=f"reference {np.shape(reference)}, artefact {have.shape} {have.dtype}",
        )
    return have.astype(np.float64)


def _logits(reference: Logits) -> _Floats:
    array = np.asarray(reference)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise InputError(
            "E0365",
            "reference logits are numbers of shape (images, classes)",
            where=f"given {array.shape} {array.dtype}",
        )
    return array.astype(np.float64)


def ranks(logits: Logits, classes: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """(n,): how many logits come before that of each image's class; of equals the first does."""
    own = np.take_along_axis(logits, classes[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < classes[:, None]
    before: npt.NDArray[np.intp] = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    return before


def _row(logits: _Floats) -> str:
    """What stands for the images' logits: see ``ParityTally.row_reference``."""
    if not (logits == logits[0]).all():
        return DIFFER
    # Adding zero makes one of both zeros.
    return hashlib.sha256((logits[0] + 0.0).tobytes()).hexdigest()


def _same_row(mine: str, theirs: str) -> str:
    return (mine or theirs) if mine == theirs or not (mine and theirs) else DIFFER


def _bins(want: _Floats, distance: _Floats) -> dict[str, int]:
    largest = np.abs(want).max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(distance == 0, 0.0, distance / largest)
    within = np.clip(shares[np.isfinite(distance) & np.isfinite(largest)], 0, EDGES[-2])
    index, counts = np.unique(np.searchsorted(EDGES, within, side="right") - 1, return_counts=True)
    return {str(k): count for k, count in zip(index.tolist(), counts.tolist(), strict=True)}


def _measured(want: _Floats, have: _Floats, distance: _Floats) -> dict[str, Any]:
    """The parts of the distances that are sums, or largest or smallest ones."""
    lengths = np.linalg.norm(want, axis=1) * np.linalg.norm(have, axis=1)
    dots = (want * have).sum(axis=1)
    cosines = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
    cosines[(distance == 0).all(axis=1)] = 1.0
    sums = {"distance": distance, "noise": distance**2, "signal": want**2}
    return {
        "max_abs": float(distance.max()),
        "largest": float(np.abs(want).max()),
        "cosine": float(np.clip(cosines.min(), -1, 1)),
        **{name: sum(map(exact, each.sum(axis=1).tolist())) for name, each in sums.items()},
    }
