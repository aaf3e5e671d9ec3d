"""What a verification found, from the counts of all its images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from convexport.benchmarks.accuracy import MARGIN_PP, PairedAccuracy
from convexport.benchmarks.evaluation import ImageTally
from convexport.benchmarks.parity import Parity, parity_of
from convexport.benchmarks.parity_tally import ParityTally
from convexport.benchmarks.protocols import TopError
from convexport.benchmarks.shards import Shard

_CHANGES = 20
# Beyond such a share of images left out, figures are hardly of the set.
_MANY = 0.01


@dataclass(frozen=True)
class Verification:
    """What ``verify`` found.

    Attributes:
        golden_error: of the golden sample, relative to its largest logit.
        parity: of the model with the bundle's FP32 reference, both run here.
        parity_set: on which images.
        accuracy: against the labels of the data given; None without labels.
        accuracy_set: on which images.
        protocol: crops an image, over which accuracy and errors are averaged; parity is of the
            central one.
        top1_error: of both; None without labels.
        top5_error: the same; None without labels, and with five classes or fewer.
        top5: as ``accuracy``, where a label counts among the first five; None likewise.
        histogram: how many logits moved by which share of the image's largest one, as edges and
            counts, one edge more than counts; the last count is of all beyond, too.
        worst: the 12 images whose logits moved farthest: ``image``, the classes of the reference
            (``expected``) and of the model (``actual``), and ``error``, max |difference|.
        changed: from the reference's class to the model's, how often; the 20 most frequent.
        skipped: how many images could not be used, of how many, and the first hundred of them.
        passed_over: what lay beside the images, as reason -> count.
        data: hashes of the set: ``listing`` of names and sizes, or of contents where there are no
            files; ``content`` of what was read.
        warnings: why figures may mean less than they say.
    """

    name: str
    model_sha256: str
    runtime: str
    golden_error: float
    parity: Parity
    parity_set: str
    accuracy: PairedAccuracy | None
    accuracy_set: str | None
    protocol: str
    top1_error: TopError | None
    top5_error: TopError | None
    top5: PairedAccuracy | None
    histogram: Mapping[str, Any]
    worst: tuple[Mapping[str, Any], ...]
    changed: tuple[Mapping[str, Any], ...]
    skipped: Mapping[str, Any]
    passed_over: Mapping[str, int]
    data: Mapping[str, str]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        found = dict(vars(self))
        for name in ("parity", "accuracy", "top1_error", "top5_error", "top5"):
            part = found[name]
            found[name] = "not measured" if part is None else part.to_dict()
        for name in ("worst", "changed", "warnings"):
            found[name] = list(found[name])
        return {**found, "mcnemar": self._mcnemar()}

    def _mcnemar(self) -> Any:
        if self.accuracy is None:
            return "not measured"
        return {
            "only_reference": self.accuracy.only_reference,
            "only_model": self.accuracy.only_actual,
            "p_value": self.accuracy.p_value,
        }


def verification_of(whole: Shard, margin: float | None = None) -> Verification:
    """What the counts of all images say.

    Args:
        whole: with at least one image.
        margin: of non-inferiority, as a share; None takes one point.
    """
    subject, tally = whole.subject, whole.tally
    points = MARGIN_PP if margin is None else 100 * margin
    top1, top5 = (each.result(points) if each.n else None for each in (tally.top1, tally.top5))
    images = subject["set"]
    return Verification(
        name=subject["name"],
        model_sha256=subject["model_sha256"],
        runtime=subject["runtime"],
        golden_error=whole.golden_error,
        parity=parity_of(tally.parity),
        parity_set=images,
        accuracy=top1,
        accuracy_set=None if top1 is None else images,
        protocol=subject["protocol"],
        top1_error=TopError.of(top1) if top1 else None,
        top5_error=TopError.of(top5) if top5 else None,
        top5=top5,
        histogram=tally.parity.histogram(),
        worst=tuple(_worst(tally.parity, subject["labels"])),
        changed=tuple(_changed(tally.parity, subject["labels"])),
        skipped={
            "count": tally.images.skipped,
            "of": subject["images"],
            "images": [{"image": n, "reason": why} for _, n, why in tally.images.skipped_images],
        },
        passed_over=dict(whole.passed_over),
        data={"listing": subject["listing"], "content": f"{tally.images.content:064x}"},
        warnings=tuple(_warnings(subject, tally.images, top1)),
    )


def _worst(tally: ParityTally, labels: list[str]) -> Iterator[dict[str, Any]]:
    for error, _, name, expected, actual in tally.worst:
        classes = {"expected": labels[expected], "actual": labels[actual]}
        yield {"image": name, **classes, "error": error}


def _changed(tally: ParityTally, labels: list[str]) -> Iterator[dict[str, Any]]:
    pairs = ((count, *map(int, key.split(">"))) for key, count in tally.changed.items())
    for count, before, after in sorted(pairs, key=lambda row: (-row[0], *row[1:]))[:_CHANGES]:
        yield {"from": labels[before], "to": labels[after], "count": count}


def _warnings(
    subject: Mapping[str, Any], images: ImageTally, top1: PairedAccuracy | None
) -> Iterator[str]:
    yield from subject["warnings"]
    if top1 is not None and top1.hint:
        yield top1.hint
    if images.skipped > _MANY * subject["images"]:
        yield f"{images.skipped} of {subject['images']} images were skipped"
    if images.calibrated:
        yield (
            f"{images.calibrated} of {images.read} images were calibrated with, "
            f"the first is {images.calibrated_images[0][1]}: figures on them flatter"
        )
