"""Rows of results: JSON lines, appended as soon as they are measured."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convexport.benchmarks.host import describe_host
from convexport.benchmarks.latency_result import OTHERS_LIMIT, STEAL_LIMIT

Row = dict[str, Any]

# Who else may take the CPUs, by the member of ``Load``, and which share of them makes a doubt.
TAKERS = {"others": ("other processes", OTHERS_LIMIT), "steal": ("the hypervisor", STEAL_LIMIT)}

# What tells a row from all others of its stage.
KEYS = {
    "calibrate": ("net", "images", "tool", "round"),
    "error": ("net", "images", "tool", "runtime", "evaluated"),
    "peak": ("threads",),
    "latency": ("net", "tool", "images", "runtime", "batch", "threads", "round"),
}
# Another try may well end otherwise.
_AGAIN = ("failed", "not installed")


@dataclass(frozen=True)
class Results:
    """A file of rows; of several with the same key the last counts."""

    path: Path

    def rows(self, stage: str) -> list[Row]:
        """All rows of a stage, in the order in which their keys first came."""
        found: dict[tuple[Any, ...], Row] = {}
        text = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
        for line in text.splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # cut where a run was killed
                row = json.loads(line)
                if row["stage"] == stage:
                    found[_key(row)] = row
        return list(found.values())

    def find(self, wanted: Mapping[str, Any]) -> Row | None:
        """The finished row with the key of ``wanted``, if there is one."""
        rows = {_key(row): row for row in self.rows(wanted["stage"])}
        row = rows.get(_key(wanted))
        return None if row is None or row["status"] in _AGAIN else row

    def add(self, row: Mapping[str, Any]) -> Row:
        """Append a row, with the day and the machine."""
        host = describe_host()
        whole = {
            **row,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "host": {key: host[key] for key in ("cpu", "cpus", "ram_bytes", "flags")},
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(whole, allow_nan=False) + "\n")
        return whole


def disturbance(row: Mapping[str, Any]) -> float:
    """What others took of the CPUs, in limits: above 1 the row is disturbed."""
    load = row.get("load") or {}
    return max((load.get(name) or 0) / limit for name, (_, limit) in TAKERS.items())


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (row["stage"], *(row[name] for name in KEYS[row["stage"]]))
