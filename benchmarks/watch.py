"""What the machine did during a part of a benchmark, and why its numbers may not hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from convexport.benchmarks.host import Load
from convexport.benchmarks.latency_result import machine_doubts, warmup_doubts
from convexport.benchmarks.stored import known
from convexport.benchmarks.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Of all processes of one part.

    Attributes:
        load: of the machine.
        cpus: that we may run on.
        provider: that ran the model.
        traces: of the machine, one a process.
        settled: whether each warm-up settled.
    """

    load: Load
    cpus: int
    provider: str
    traces: tuple[Trace | None, ...]
    settled: tuple[bool, ...]

    def doubts(self) -> list[str]:
        """Why another run may well give other numbers."""
        return [
            *warmup_doubts(self.settled),
            *machine_doubts(self.load, self.cpus, self.traces, (self.provider,)),
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "load": self.load.to_dict(),
            "cpus": self.cpus,
            "provider": self.provider,
            "traces": [trace and trace.to_dict() for trace in self.traces],
            "settled": list(self.settled),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Watch:
        """The inverse of ``to_dict``."""
        return cls(
            load=Load(**known(Load, data["load"])),
            cpus=data["cpus"],
            provider=data["provider"],
            traces=tuple(each and Trace.from_dict(each) for each in data["traces"]),
            settled=tuple(data["settled"]),
        )


def watched(watch: Watch | None) -> dict[str, Any]:
    """The members of a part that tell of it; none where an older version measured the part."""
    return {} if watch is None else {"reasons": watch.doubts(), "watch": watch.to_dict()}


def watch_of(data: Mapping[str, Any]) -> Watch | None:
    """The inverse of ``watched``."""
    return Watch.from_dict(data["watch"]) if "watch" in data else None
