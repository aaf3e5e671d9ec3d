"""Bundles measured side by side, now or by ``bench``, as one document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from convexport.benchmarks.compare_bundles import (
    BENCH_VERSION,
    NOTHING,
    Extras,
    compare_bundles,
)
from convexport.benchmarks.latency import LatencyOptions
from convexport.benchmarks.limits import Roof, layers
from convexport.benchmarks.protocols import Progress
from convexport.benchmarks.report.document import (
    BESIDE_IT,
    MALFORMED,
    MEASURED_WITH_IT,
    NOT_MEASURED,
    REPORT,
    Document,
    document,
    entries_of,
    read_report,
    redacted,
)
from convexport.benchmarks.report.thumbnails import with_thumbnails
from convexport.benchmarks.report.verdict import judge, parity_of
from convexport.benchmarks.verify import Partial, Verification, verify
from convexport.calibration.images import ImageSet
from convexport.runtime.errors import InputError, UnsupportedError
from convexport.runtime.files import read_json

_LARGEST = 1 << 30  # raw samples of minutes


def measured(
    paths: Sequence[Path],
    images: ImageSet | None,
    options: LatencyOptions,
    extras: Extras = NOTHING,
    *,
    report: Callable[[str], None] = lambda text: None,
    progress: Progress = lambda done, total: None,
    partial: Partial | None = None,
) -> Document:
    """Latency against the first bundle's FP32 reference, parity, and accuracy with labels.

    Args:
        images: to compare outputs on, labelled for accuracy; None compares on stand-ins.
        extras: what else ``bench`` measures.
        report: is given a line of progress now and then.
        progress: is told how many images are done.
        partial: where an interrupted pass over the images is found again; None starts anew.

    Raises:
        ConvexportError: as ``entries_of``, ``verify`` and ``compare_bundles``.
    """

    def check(bundle: Path) -> Verification:
        return verify(bundle, images, progress=progress, partial=partial)

    entries_of(paths)  # refused before minutes are spent
    compared = compare_bundles(paths, None, options, extras, check=check, report=report).to_dict()
    entries, roof = _entries(paths, compared), Roof(options.threads)
    for each, path in zip(entries, paths, strict=True):
        report(f"layers of {each['label']}")
        with suppress(UnsupportedError):  # not of that runtime: they stay "not measured"
            each["layers"] = layers(path, roof)
        if images is not None:
            each["verification"] = with_thumbnails(each["verification"], images)
    return _whole(entries, compared)


def of_benchmark(paths: Sequence[Path], compared: Mapping[str, Any]) -> Document:
    """The document of what ``bench`` measured, as ``Comparison.to_dict`` gives it.

    Raises:
        InputError: E0375, it did not measure these bundles, or is no benchmark; as ``entries_of``.
    """
    _require_known(compared)
    entries = _entries(paths, compared)
    try:  # the page may be written elsewhere
        return _whole(entries, compared, environment=compared["latency"]["conditions"]["host"])
    except MALFORMED as error:
        raise InputError(
            "E0375",
            f"this is no benchmark: {error!r}",
            hint="convexport bench BUNDLE --json > FILE writes one",
        ) from error


def with_verifications(report: Document, files: Sequence[Path]) -> Document:
    """The document with what ``verify --json`` or ``merge --json`` found, each of its own model.

    Raises:
        InputError: E0302, a file is no JSON; E0375, it is no verification, or of another model.
    """
    for path in files:
        found = read_json(path, limit=_LARGEST)
        try:
            own = [b for b in report["bundles"] if b["model_sha256"] == found["model_sha256"]]
            for bundle in own:
                bundle["verification"] = redacted(found)
                parity_of(bundle)
            report["verdict"] = judge(report)
            report["warnings"] = list(dict.fromkeys([*report["warnings"], *found["warnings"]]))
        except MALFORMED as error:
            raise InputError(
                "E0375",
                f"{path.name} is no verification: {error!r}",
                where=str(path),
                hint="convexport verify BUNDLE --json > FILE writes one, or merge --json",
            ) from error
        if not own:
            raise InputError(
                "E0375",
                f"{path.name} verified none of these bundles",
                where=f"{path}: {found.get('name')}, sha256 {str(found['model_sha256'])[:12]}…",
                why="what was counted holds for one file alone",
            )
    return report


def _require_known(compared: Any) -> None:
    """Files from before there was a version have what 1.0 has."""
    version = (
        compared.get("schema_version", BENCH_VERSION) if isinstance(compared, Mapping) else None
    )
    if str(version).partition(".")[0] != BENCH_VERSION.partition(".")[0]:
        raise InputError(
            "E0375",
            "this is no benchmark that this version reads",
            where=f"schema_version {str(version)[:40]}",
            hint="convexport bench BUNDLE --save FILE writes one",
        )


def _entries(paths: Sequence[Path], compared: Mapping[str, Any]) -> list[Document]:
    """The bundles' entries, each with the verification of its own file."""
    entries = entries_of(paths)
    for found, path in zip(entries, paths, strict=True):
        checked = None
        with suppress(*MALFORMED):
            checked = _checked(found, path, compared)
        if checked is None:
            raise InputError(
                "E0375",
                f"the benchmark did not measure {found['label']}",
                why="a latency holds for one file alone",
                hint=f"convexport bench {found['label']} --json > FILE measures it",
            )
        found["verification"] = checked
    return entries


def _whole(entries: Sequence[Document], compared: Mapping[str, Any], **more: Any) -> Document:
    """The document, with a warning for each thing that was asked for and ended in an error."""
    kinds = (*MEASURED_WITH_IT, *BESIDE_IT)
    found = document(
        entries,
        compared["latency"],
        **{kind: compared[kind] for kind in kinds if compared.get(kind)},
        **more,
    )
    for asked, error in compared.get("failed", {}).items():
        found["warnings"].append(redacted(f"{asked}: {error['code']} {error['what']}"))
    return found


def _checked(found: Document, path: Path, compared: Mapping[str, Any]) -> Any:
    """The parity of the file that was timed; None: another file was, or none."""
    label, model = found["label"], found["model_sha256"]
    if "parity" in compared:
        checked = compared["parity"][label]
        return checked if checked["model_sha256"] == model else None
    # convexport-bench has run the golden sample alone: what the bundle's report has holds on.
    timed = {row["label"]: row["sha256"] for row in compared["latency"]["subjects"]}
    if timed[label] != model:
        return None
    with suppress(InputError, *MALFORMED):
        known = read_report(path / REPORT)["bundles"][0]["verification"]
        if known["model_sha256"] == model:
            return known
    return NOT_MEASURED
