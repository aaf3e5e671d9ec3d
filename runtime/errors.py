"""The errors that a user meets, and the exit code of each.

    ConvexportError          1  a bug of ours
    ├── UsageError           2  the request makes no sense
    ├── InputError           3  a bad file or bad data
    ├── MachineError         4  this machine lacks what is needed (runtime, device, package)
    ├── GateError            5  a gate failed: parity, accuracy or latency
    ├── UnsupportedError     6  the target cannot do it
    ├── BusyError            7  somebody else holds it, or it took too long
    └── StorageError         8  the disk or its permissions

Every error says what is wrong, and where it helps: where, why it matters, what to do.
Codes are unique; their tens name the room: 00-19 runtime, 20-39 architectures, 40-59
calibration, 60-79 benchmarks, 80-99 exporter.
"""

from __future__ import annotations

import difflib
from typing import Any, Dict, Iterable, List, Mapping

# Of one part of a message: strangers choose names and values that occur in it.
_CHARACTERS, _LINES = 2000, 40


class ConvexportError(Exception):
    """What went wrong, in the parts that a person needs to put it right."""

    exit_code = 1

    def __init__(
        self, code: str, what: str, *, where: str = "", why: str = "", hint: str = ""
    ) -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.where = where
        self.why = why
        self.hint = hint

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self.code, self.what, self.where, self.why, self.hint)

    def lines(self) -> List[str]:
        """The message, one part a line."""
        parts = (("where", self.where), ("why", self.why), ("hint", self.hint))
        told = [f"{self.code} {self.what}"] + [f"{name}: {text}" for name, text in parts if text]
        return [_cut(part) for part in told]

    def to_dict(self) -> Dict[str, Any]:
        """The message as data, for ``--json``."""
        return {
            "code": self.code,
            "exit_code": self.exit_code,
            "what": self.what,
            "where": self.where,
            "why": self.why,
            "hint": self.hint,
        }

    def __str__(self) -> str:
        return "\n".join(self.lines())


class UsageError(ConvexportError):
    """The request makes no sense."""

    exit_code = 2


class InputError(ConvexportError):
    """A file or data that cannot be used."""

    exit_code = 3


class MachineError(ConvexportError):
    """This machine lacks what is needed."""

    exit_code = 4


class GateError(ConvexportError):
    """A gate failed: parity, accuracy or latency."""

    exit_code = 5


class UnsupportedError(ConvexportError):
    """The target cannot do it."""

    exit_code = 6


class BusyError(ConvexportError):
    """Somebody else holds it, or it took too long."""

    exit_code = 7


class StorageError(ConvexportError):
    """The disk is full, or does not let us."""

    exit_code = 8


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """A hint with the names closest to ``name``, or ``otherwise`` when none is close."""
    close = difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else otherwise


def rebuilt(data: Mapping[str, str]) -> ConvexportError:
    """The error that another process met, as if it had been met here.

    Args:
        data: its ``to_dict``, and the name of its class as ``kind``.
    """
    kinds = {kind.__name__: kind for kind in ConvexportError.__subclasses__()}
    parts = {name: data[name] for name in ("where", "why", "hint")}
    return kinds.get(data["kind"], ConvexportError)(data["code"], data["what"], **parts)


def _cut(part: str) -> str:
    short = "\n".join(part[:_CHARACTERS].split("\n")[:_LINES])
    return part if short == part else f"{short}…"


def _rebuild(kind: Any, code: str, what: str, where: str, why: str, hint: str) -> ConvexportError:
    error: ConvexportError = kind(code, what, where=where, why=why, hint=hint)
    return error
