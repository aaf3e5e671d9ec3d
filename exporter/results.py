"""What a build gives: the artefact of its stages, and the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convexport.exporter.cache import StageResult
from convexport.exporter.measure import Entrant
from convexport.runtime.bundle import Manifest


@dataclass(frozen=True)
class BuildResult:
    """A bundle and how it came about.

    Attributes:
        bundle: its directory.
        report: what was measured, now or when the bundle was built.
        stages: in order; empty where the bundle stood there already.
    """

    bundle: Path
    manifest: Manifest
    report: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[StageResult, ...] = ()


@dataclass(frozen=True)
class Made:
    """What the stages up to accuracy gave.

    Attributes:
        done: the stages, in order; the first is the reference.
        entrant: the artefact, as the target runs it.
        fp32: the simplified FP32 ONNX.
    """

    done: tuple[StageResult, ...]
    entrant: Entrant
    fp32: Path

    @property
    def facts(self) -> dict[str, dict[str, Any]]:
        """What each stage had to say."""
        return {result.name: dict(result.facts) for result in self.done}
