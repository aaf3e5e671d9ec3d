"""Bundles measured side by side, now or by ``bench``, as one document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from convexport.benchmarks.compare_bundles import compare_bundles
from convexport.benchmarks.latency import LatencyOptions
from convexport.benchmarks.limits import layers
from convexport.benchmarks.protocols import Progress
from convexport.benchmarks.report.document import (
    MALFORMED,
    MEASURED_WITH_IT,
    Document,
    document,
    entries_of,
)
from convexport.benchmarks.verify import verify
from convexport.calibration.images import ImageSet
from convexport.runtime.errors import InputError, UnsupportedError


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
    compared = compare_bundles(paths, None, options, report=report).to_dict()
    found = of_benchmark(paths, compared)
    entries = found["bundles"]
    for each, path in zip(entries, paths, strict=True):
        report(f"layers of {each['label']}")
        with suppress(UnsupportedError):  # not of that runtime: they stay "not measured"
            each["layers"] = layers(path, threads=options.threads)
        if images is not None:
            report(f"images through {each['label']}")
            each["verification"] = verify(path, images, progress=progress).to_dict()
    return document(entries, found["latency"], **{key: found[key] for key in MEASURED_WITH_IT})


def of_benchmark(paths: Sequence[Path], compared: Mapping[str, Any]) -> Document:
    """The document of what ``bench`` measured, as ``Comparison.to_dict`` gives it.

    Raises:
        InputError: E0375, it did not measure these bundles, or is no benchmark; as ``entries_of``.
    """
    entries = entries_of(paths)
    for found in entries:
        try:
            checked = compared["parity"][found["label"]]
            same = checked["model_sha256"] == found["model_sha256"]
            latency = compared["latency"]
        except (KeyError, TypeError):
            same = False
        if not same:
            raise InputError(
                "E0375",
                f"the benchmark did not measure {found['label']}",
                why="a latency holds for one file alone",
                hint=f"convexport bench {found['label']} --json > FILE measures it",
            )
        found["verification"] = checked
    more = {key: compared[key] for key in MEASURED_WITH_IT if compared.get(key)}
    try:  # the page may be written elsewhere
        return document(entries, latency, **more, environment=latency["conditions"]["host"])
    except MALFORMED as error:
        raise InputError(
            "E0375",
            f"this is no benchmark: {error!r}",
            hint="convexport bench BUNDLE --json > FILE writes one",
        ) from error
