"""``verify`` and ``merge``: a bundle against images of any number, at once or in parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convexport.exporter.commands import BUNDLE, JSON, print_result, share

if TYPE_CHECKING:
    from convexport.benchmarks.shards import Shard
    from convexport.benchmarks.verify import Verification
    from convexport.calibration.images import ImageSet

_MARGIN = click.option(
    "--margin",
    metavar="SHARE",
    callback=share,
    help="Exit with 5 unless the drop of top-1 is shown to be smaller, as 1%.",
)


@click.command()
@BUNDLE
@click.option("--data", help="A directory of images, a folder a class; or digits.")
@click.option(
    "--protocol", default="1", show_default=True, help="Crops an image for accuracy: 1, 10 or 144."
)
@click.option(
    "--bad-images",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="At images that cannot be used.",
)
@click.option("--shard", metavar="I/N", help="Count this part of the images, with --save.")
@click.option("--save", type=click.Path(path_type=Path), help="Write the counts, for merge.")
@_MARGIN
@JSON
def verify(
    bundle: Path, data: str | None, shard: str | None, save: Path | None, as_json: bool, **rest: Any
) -> None:
    """Check a bundle on this machine: hashes, golden sample, parity; accuracy with --data.

    An interrupted run over many images goes on where it was."""
    from convexport.benchmarks import verify as room
    from convexport.exporter.console import ConsoleEvents
    from convexport.exporter.verify_text import shard_text
    from convexport.runtime.errors import UsageError

    options = room.VerifyOptions(shard="1/1" if shard is None else shard, **rest)
    if shard is not None and save is None:
        raise UsageError(
            "E0293", "--shard counts for a later merge", hint="say where with --save FILE"
        )
    events = ConsoleEvents()
    events.start("verify")
    images, seen = images_of(data), events.advance
    found: Verification | Shard
    try:
        if save is None:
            found = room.verify(bundle, images, options, progress=seen, partial=partial_of)
        else:
            found = room.verify_shard(
                bundle, images, options, save, progress=seen, partial=partial_of
            )
    finally:
        events.close()
    if isinstance(found, room.Verification):
        _print_verification(as_json, found, options.margin)
    elif found.part[1] == 1:
        _print_verification(as_json, room.conclude(found, options.margin), options.margin)
    else:
        print_result(as_json, found.to_dict(), lambda: shard_text(found))


@click.command()
@click.argument("shards", nargs=-1, required=True, type=click.Path(path_type=Path))
@_MARGIN
@JSON
def merge(shards: tuple[Path, ...], margin: float | None, as_json: bool) -> None:
    """Add up the files that `verify --shard I/N --save FILE` wrote: as one run over all images."""
    from convexport.benchmarks import shards as room
    from convexport.benchmarks.verify import conclude

    _print_verification(as_json, conclude(room.merge(shards), margin), margin)


def images_of(data: str | None) -> ImageSet | None:
    """What --data names: a folder of images, or the digits that are kept for tests."""
    from convexport.calibration.digits import digits
    from convexport.calibration.images import folder

    if data is None:
        return None
    return digits("test") if data == "digits" else folder(Path(data))


def partial_of(key: Mapping[str, Any]) -> Path:
    """Where an interrupted pass keeps its counts: beside the stages of builds."""
    from convexport.exporter.cache import StageCache
    from convexport.exporter.options import default_cache

    return StageCache(default_cache()).trusted_partial("verify", key)


def _print_verification(as_json: bool, found: Verification, margin: float | None) -> None:
    from convexport.benchmarks.verify import require_margin
    from convexport.exporter import summary

    print_result(as_json, found.to_dict(), lambda: summary.verification_text(found))
    if margin is not None:
        require_margin(found)
