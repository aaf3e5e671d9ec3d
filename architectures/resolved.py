"""Weights that were found, not loaded yet."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from convexport.architectures.ensemble import EnsembleConfig, common_preprocess
from convexport.architectures.variant import Shape
from convexport.runtime.specs import Preprocess

# Any that short fits the 64 bits of a generator.
SEED_DIGITS = 18
SEEDS = 10**SEED_DIGITS


@dataclass(frozen=True, kw_only=True)
class ResolvedWeights:
    """Weights that were found, not loaded yet.

    Attributes:
        kind: which of the four kinds.
        source: for people; a file by its name only, never by a path of this machine.
        path: the file; None for random weights.
        seed: of random weights.
        sha256: of the file, in hex; for random weights that of ``random:SEED``.
        licence: where it is known.
        notes: what the user must be told.
        num_classes: outputs, where the weights differ from the variant.
        input: channels, height, width, where they differ.
        preprocess: where it differs.
        labels: names of the classes, where the weights bring them.
        parts: those of an ensemble's members, where each has its own.
    """

    kind: Literal["pretrained", "file", "digits", "random"]
    source: str
    path: Path | None
    seed: int | None
    sha256: str
    licence: str
    notes: tuple[str, ...] = ()
    num_classes: int | None = None
    input: Shape | None = None
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] = ()
    parts: tuple[ResolvedWeights, ...] = ()


def requests_of(config: EnsembleConfig, request: str | None, seed: int) -> list[str | None]:
    """What is asked of each member; random ones get seeds in sequence, as twins may be members."""
    if request is None or not request.startswith("random"):
        return [request] * len(config.members)
    return [f"random:{(seed + index) % SEEDS}" for index in range(len(config.members))]


def combined(config: EnsembleConfig, parts: Sequence[ResolvedWeights]) -> ResolvedWeights:
    """The weights of an ensemble whose members have these: random if one of them is."""
    names = [member.variant.name for member in config.members]
    kinds = {part.kind for part in parts}
    told = list(zip(names, parts, strict=True))
    given = common_preprocess(preprocesses(config, parts))
    return ResolvedWeights(
        kind="random" if "random" in kinds else parts[0].kind,
        source="; ".join(f"{name}: {part.source}" for name, part in told),
        path=None,
        seed=None,
        sha256=hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest(),
        licence=", ".join(sorted({part.licence for part in parts if part.licence})),
        notes=tuple(f"{name}: {note}" for name, part in told for note in part.notes),
        num_classes=parts[0].num_classes,
        input=given.shape,
        preprocess=given,
        labels=parts[0].labels,
        parts=tuple(parts),
    )


def preprocesses(config: EnsembleConfig, parts: Sequence[ResolvedWeights]) -> list[Preprocess]:
    """That of each member: what its weights were trained with, or else its own."""
    return [
        part.preprocess or member.variant.preprocess
        for member, part in zip(config.members, parts, strict=True)
    ]
