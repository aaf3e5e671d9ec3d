"""Is the bundle still what was built, on this machine? Hashes, golden sample, parity, accuracy."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convexport.benchmarks.checkpoint import Checkpoint
from convexport.benchmarks.class_names import class_indices, class_warnings
from convexport.benchmarks.evaluation import Evaluation
from convexport.benchmarks.parity import LIMIT, PARITY_IMAGES, Parity, require_parity
from convexport.benchmarks.protocols import Progress
from convexport.benchmarks.shards import Shard, listing, parse_part
from convexport.benchmarks.verification import Verification as Verification
from convexport.benchmarks.verification import verification_of
from convexport.calibration.images import ImageSet
from convexport.calibration.photographs import photographs
from convexport.calibration.reader import OnBad
from convexport.calibration.values import all_constant
from convexport.runtime.bundle import MANIFEST, Manifest, as_written
from convexport.runtime.cpu import cpu_flags, integer_kernels
from convexport.runtime.crops import CENTRE, find
from convexport.runtime.engine import Engine, load
from convexport.runtime.errors import GateError, InputError, UsageError
from convexport.runtime.files import read_json, sha256_of
from convexport.runtime.sessions import Session, open_session
from convexport.runtime.trt_plan import find_plan

# How far the largest logit may move. INT8 and BF16 have no such limit: their gate is signal
# against noise, as what one logit does says little where every operator rounds.
LIMITS = {"fp32": LIMIT, "fp16": 1e-2}
# Below INT8's floor noise has more than half the power of the signal. Rounding to BF16 alone left
# 30 to 48 dB on the six nets tried: below its floor something else is wrong.
LEAST_SQNR_DB = {"int8": 3.0, "bf16": 20.0}
# Below it, look at what it does to the task.
LOW_SQNR_DB = 20.0

_CALIBRATION = "calibration.json"
# Where a pass keeps what it has counted so far, by all that the counts depend on.
Partial = Callable[[Mapping[str, Any]], Path]


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """How a bundle is held against images.

    Attributes:
        protocol: how many crops of each image accuracy is averaged over.
        bad_images: ``fail`` at the first that cannot be used, or ``skip`` and count them.
        shard: the part of the images to count, as ``2/8``.
        margin: the largest drop of top-1 that is accepted, as a share.
        checkpoint_seconds: between two times that a pass keeps what it has counted.

    Raises:
        UsageError: E0202, there is no such protocol; E0266, the margin is none; E0274, the shard
            is none.
    """

    protocol: str = CENTRE
    bad_images: OnBad = "fail"
    shard: str = "1/1"
    margin: float | None = None
    checkpoint_seconds: float = 30

    def __post_init__(self) -> None:
        find(self.protocol)
        parse_part(self.shard)
        if self.margin is not None and not (math.isfinite(self.margin) and 0 < self.margin <= 1):
            raise UsageError("E0266", f"a margin cannot be {100 * self.margin} percentage points")


_DEFAULTS = VerifyOptions()


def verify(
    bundle: Path,
    data: ImageSet | None = None,
    options: VerifyOptions = _DEFAULTS,
    *,
    progress: Progress = lambda done, total: None,
    partial: Partial | None = None,
) -> Verification:
    """Check a bundle on this machine.

    Args:
        data: images to compare on, labelled for accuracy; None compares on stand-ins.
        options: all but ``shard``, of which ``verify_shard`` makes use.
        progress: told how many images are done.
        partial: where an interrupted pass is found again; None starts anew.

    Raises:
        GateError: E0500, the golden sample fails; E0561 to E0564, parity does.
        InputError: the bundle was changed or not built so, the data's classes are not the net's, or
            images cannot be used.
        UsageError: E0268, there are no labels for the protocol or the margin.
    """
    whole, checkpoint = _count(bundle, data, options, (1, 1), progress, partial)
    found = conclude(whole, options.margin)
    checkpoint.done()
    return found


def verify_shard(
    bundle: Path,
    data: ImageSet | None,
    options: VerifyOptions,
    save: Path,
    *,
    progress: Progress = lambda done, total: None,
    partial: Partial | None = None,
) -> Shard:
    """Count one part of the images, and write the counts for ``shards.merge``; nothing is judged.

    Raises:
        UsageError: E0276, something stands there, or there is no such directory.
        StorageError: E0801, it cannot be written.
        ConvexportError: as ``verify``, but for parity.
    """
    if save.exists() or not save.parent.is_dir():
        why = "something stands there" if save.exists() else "there is no such directory"
        raise UsageError("E0276", f"the counts cannot go to {save}: {why}", hint="name another")
    part = parse_part(options.shard)
    shard, checkpoint = _count(bundle, data, options, part, progress, partial)
    shard.save(save)
    checkpoint.done()
    return shard


def conclude(whole: Shard, margin: float | None = None) -> Verification:
    """What the counts of all images say.

    Args:
        margin: see ``VerifyOptions``; it is not held to it here, but by ``require_margin``.

    Raises:
        GateError: E0561 to E0564, parity fails.
        InputError: E0378, no image could be used; E0344, all of them are of one colour.
        UsageError: E0268, there are no labels for the margin.
    """
    images = whole.tally.images
    if not images.read:
        raise InputError(
            "E0378",
            f"none of {whole.subject['images']} images could be used",
            where="; ".join(f"{name}: {why}" for _, name, why in images.skipped_images[:5]),
            hint="give images that the net can see",
        )
    if images.constant == images.read:
        raise all_constant(f"{images.read} images read")
    if margin is not None and not whole.tally.top1.n:
        raise _unlabelled("a margin is")
    found = verification_of(whole, margin)
    require_faithful(found.parity, "the bundle's model", whole.subject["precision"])
    return found


def require_margin(found: Verification) -> None:
    """Let nothing pass whose top-1 may have dropped by the margin or more.

    Raises:
        GateError: E0567, the upper end of the drop's 95 % interval is not below the margin.
    """
    if found.accuracy is not None and not found.accuracy.non_inferior:
        drop = found.accuracy
        raise GateError(
            "E0567",
            f"top-1 may have dropped by {drop.high_pp:.2f} points, "
            f"the margin is {drop.margin_pp:g}",
            where=f"{drop.drop_pp:+.2f} points on {drop.actual.n} images, "
            f"95 % interval {drop.low_pp:+.2f} to {drop.high_pp:+.2f}",
            hint="more images make the interval narrower; build --max-drop gives layers back",
        )


def _count(
    bundle: Path,
    data: ImageSet | None,
    options: VerifyOptions,
    part: tuple[int, int],
    progress: Progress,
    partial: Partial | None,
) -> tuple[Shard, Checkpoint]:
    if find(options.protocol).count > 1 and not (data and data.class_names):
        raise _unlabelled(f"{options.protocol} crops an image are")
    if options.margin is not None and not (data and data.class_names):
        raise _unlabelled("a margin is")
    engine = load(bundle, self_test=False)
    golden_error, manifest = engine.self_test(bundle), engine.manifest
    images = data or photographs("parity", PARITY_IMAGES)
    evaluation = Evaluation(
        reference=_reference(bundle, manifest),
        model=engine.runner,
        spec=manifest.preprocess,
        images=images,
        indices=class_indices(images.class_names, engine.labels, named=engine.has_labels)
        if images.class_names
        else (),
        protocol=options.protocol,
        output_kind=manifest.output_kind,
        skip=options.bad_images == "skip",
        calibrated=_calibrated(bundle, manifest),
    )
    names, times = listing(images)
    subject = _subject(bundle, engine, images, options, names, evaluation.block)
    # Of one model each device builds its own plan.
    tensorrt = manifest.runtime == "tensorrt"
    plan = sha256_of(find_plan(bundle / manifest.model)) if tensorrt else ""
    key = {**subject, "times": times, "part": list(part), "plan": plan}
    checkpoint = Checkpoint(partial and partial(key), options.checkpoint_seconds)
    tally = evaluation.run(part, checkpoint, progress)
    return Shard(subject, part, golden_error, dict(images.passed_over), tally), checkpoint


def _subject(
    bundle: Path, engine: Engine, images: ImageSet, options: VerifyOptions, names: str, block: int
) -> dict[str, Any]:
    """All that counts depend on, and what they are told with."""
    manifest = engine.manifest
    return {
        "name": manifest.name,
        "model_sha256": manifest.files[manifest.model],
        "precision": manifest.precision,
        "runtime": engine.runner.runtime,
        "provider": manifest.provider,
        "sha256_of_manifest": sha256_of(bundle / MANIFEST),
        "units": integer_kernels(cpu_flags()),
        "labels": list(engine.labels),
        "set": images.description,
        "images": len(images),
        "listing": names,
        "classes": list(images.class_names),
        "protocol": options.protocol,
        "bad_images": options.bad_images,
        "block": block,
        "warnings": list(class_warnings(images.class_names, engine.labels)),
    }


def _calibrated(bundle: Path, manifest: Manifest) -> frozenset[str]:
    """The contents that the ranges were made with, where the build wrote them down."""
    if _CALIBRATION not in manifest.files:
        return frozenset()
    facts = read_json(bundle / _CALIBRATION)
    with as_written():
        return frozenset(facts.get("contents", ()))


def _reference(bundle: Path, manifest: Manifest) -> Session:
    path = bundle / manifest.reference
    if manifest.runtime == "tensorrt":  # an engine is built of the model alone
        return open_session(path, runtime="onnxruntime", provider="CPUExecutionProvider")
    return open_session(path, runtime=manifest.runtime, provider=manifest.provider)


def require_faithful(parity: Parity, stage: str, precision: str) -> None:
    """Hold an artefact to what its precision is held to: a share of the largest logit, or noise.

    Raises:
        GateError: E0561 to E0563, as ``require_parity``; E0564, as ``require_signal``.
    """
    if precision in LIMITS:
        require_parity(parity, stage, LIMITS[precision])
    else:
        require_signal(parity, stage, precision)


def require_signal(parity: Parity, stage: str, precision: str = "int8") -> None:
    """Let nothing pass whose output has more noise than rounding to that precision explains.

    Raises:
        GateError: E0562 or E0563, as ``require_parity``; E0564, too much noise.
    """
    require_parity(parity, stage, sys.float_info.max)
    least = LEAST_SQNR_DB[precision]
    if parity.sqnr_db is not None and parity.sqnr_db < least:
        calibrate = (
            "calibrate with images like those that the net will see (--calib DIR), "
            "try --method minmax, or "
        )
        raise GateError(
            "E0564",
            f"{stage}: {parity.sqnr_db:.1f} dB of signal to noise, {least:g} are needed",
            where=f"top-1 agreement {parity.top1} with the reference",
            why=f"rounding to {precision.upper()} takes too much of what comes out",
            hint=f"{calibrate if precision == 'int8' else ''}build --fp32",
        )


def _unlabelled(what: str) -> UsageError:
    return UsageError(
        "E0268",
        f"{what} for labelled images",
        why="only accuracy is counted so",
        hint="give --data DIR with two folders of classes or more, or leave the option out",
    )
