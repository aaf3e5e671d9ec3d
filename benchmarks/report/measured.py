"""Bundles measured now, side by side, as one document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from convexport.benchmarks.compare_bundles import compare_bundles
from convexport.benchmarks.latency import LatencyOptions
from convexport.benchmarks.protocols import Progress
from convexport.benchmarks.report.document import (
    MEASURED_WITH_IT,
    Document,
    document,
    entries_of,
)
from convexport.benchmarks.verify import verify
from convexport.calibration.images import ImageSet


def measured(
    paths: Sequence[Path],
    images: ImageSet | None,
    options: LatencyOptions,
    report: Callable[[str], None],
    progress: Progress,
) -> Document:
    """Latency against the first bundle's FP32 reference, parity, and accuracy with labels.

    Args:
        images: to compare outputs on, labelled for accuracy; None compares on stand-ins.
        report: is given a line of progress now and then.
        progress: is told how many images are done.

    Raises:
        ConvexportError: as ``entries_of``, ``verify`` and ``compare_bundles``.
    """
    entries = entries_of(paths)
    compared = compare_bundles(paths, None, options, report=report)
    for found, path in zip(entries, paths, strict=True):
        checked = compared.parity[found["label"]]
        if images is not None:
            report(f"images through {found['label']}")
            checked = verify(path, images, progress=progress)
        found["verification"] = checked.to_dict()
    data = compared.to_dict()
    more = {key: data[key] for key in MEASURED_WITH_IT if data.get(key)}
    return document(entries, data["latency"], **more)
