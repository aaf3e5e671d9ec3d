"""What the stages share: where things are, and how a child is asked for them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guard import HOW_TO, Limits, ask
from nets import Net
from results import Results, Row
from tools import ONNX, TORCH, Tool

from convexport.benchmarks.host import load_between, load_snapshot

_CHILD = str(Path(__file__).with_name("child.py"))


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A comparison.

    Attributes:
        work: where nets, images and INT8 files go.
        results: the rows.
        python: the interpreter that has the peers.
        tools: what is compared; the first is what the others are compared with.
        limits: of each child.
        say: is given a line of progress now and then.
    """

    work: Path
    results: Results
    python: Path
    tools: tuple[Tool, ...]
    limits: Limits
    say: Callable[[str], None]

    def ask(self, request: Mapping[str, Any], *, foreign: bool) -> dict[str, Any]:
        """The answer of a fresh process, and what else ran meanwhile."""
        if foreign and not self.python.exists():
            return {"status": "not installed", "why": f"no {self.python}: {HOW_TO}"}
        interpreter = str(self.python) if foreign else sys.executable
        before = load_snapshot()
        answer = ask((interpreter, _CHILD), request, self.limits)
        return {**answer, "load": load_between(before, load_snapshot()).to_dict()}

    def measured(self, wanted: Row, measure: Callable[[], Mapping[str, Any]]) -> Row:
        """The finished row with that key, or else a new one, told and kept."""
        if found := self.results.find(wanted):
            return found
        row = self.results.add({**wanted, **measure()})
        name = " ".join(str(value) for key, value in wanted.items() if key != "stage")
        facts = [row["status"]]
        facts += [f"{row['seconds']:.1f} s"] if "seconds" in row else []
        facts += [row["why"]] if "why" in row else []
        self.say(f"{row['stage']} {name}: {', '.join(facts)}")
        return row

    def quantize(self, net: Net, tool: Tool, count: int, batch: int = 1) -> dict[str, Any]:
        """Let a tool quantize a net; its file takes its place only when it is whole."""
        images = net.images("calibration", count)
        file = file_of(net, tool, count)
        part = file.parent.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        request = {
            "job": "quantize",
            "module": tool.module,
            "options": dict(tool.options),
            "model": str(net.model),
            "input_name": net.manifest.input.name,
            "images": str(images.path),
            "count": images.count,
            "batch": batch,
            "output": str(part / file.name),
        }
        answer = self.ask(request, foreign=tool.foreign)
        if answer["status"] == "ok" and tool.runtimes and not (part / file.name).exists():
            answer = {**answer, "status": "failed", "why": "it wrote no file"}
        if answer["status"] == "ok":
            shutil.rmtree(file.parent, ignore_errors=True)
            part.rename(file.parent)
        shutil.rmtree(part, ignore_errors=True)
        return answer

    def made(self, net: Net, tool: Tool, count: int) -> dict[str, Any]:
        """Let a tool quantize a net unless its file is there; the answer's status says whether.

        What a tool could not do within the limits is not tried again.
        """
        if file_of(net, tool, count).exists():
            return {"status": "ok"}
        place = {"net": net.name, "images": count, "tool": tool.name}
        for row in (*self.results.rows("calibrate"), *self.results.rows("error")):
            if place.items() <= row.items() and row["status"] in ("out of memory", "timed out"):
                return {"status": row["status"], "why": row["why"]}
        self.say(f"{net.name}: {tool.name} quantizes with {count} images")
        return self.quantize(net, tool, count)


def file_of(net: Net, tool: Tool, count: int) -> Path:
    """Where a tool's file for a net is; what is not quantized is there, or made now."""
    if tool is ONNX:
        return net.model
    if tool is TORCH:
        return net.torch_weights()
    return net.directory / "int8" / f"{tool.name}-{count}" / f"model{tool.suffix}"
