"""What a person sees: a build's progress on stderr, and tables on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.status import Status
from rich.table import Table
from rich.text import Text

from convexport.benchmarks.report.blocks import agreed
from convexport.cli import printable
from convexport.exporter.cache import StageResult
from convexport.exporter.events import Events

# Where the output is no terminal: wide enough for our tables, narrow enough to mail.
_PLAIN_WIDTH = 100


def console(*, stderr: bool = False) -> Console:
    """A console that obeys NO_COLOR and is plain when it is no terminal."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PLAIN_WIDTH
    return Console(stderr=stderr, width=width, highlight=False)


class ConsoleEvents(Events):
    """Shows a build: one line a stage, a bar while images go through, notes as they come."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._stage = ""
        self._bar: Progress | None = None
        self._status: Status | None = None

    def begin(self, what: str) -> None:
        """Its name on a line of its own."""
        self.close()
        self._console.print(line(f"  {what}", style="bold"))

    def start(self, stage: str) -> None:
        """Remember its name for the bar."""
        self._stage = stage

    def advance(self, done: int, total: int) -> None:
        """Move the bar, on a terminal only."""
        if not self._console.is_terminal:
            return
        if self._bar is None:
            columns = (TextColumn("  {task.description:<10}"), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.add_task(self._stage, total=total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done)

    def detail(self, text: str) -> None:
        """Name what is being done beside the stage, on a terminal only."""
        if self._console.is_terminal:
            if self._status is None:
                self._status = self._console.status("")
                self._status.start()
            self._status.update(f"{self._stage}: {escape(printable(text))}")

    def finish(self, result: StageResult) -> None:
        """One line: what was done, how long it took, what it found."""
        self.close()
        seconds = "cached" if result.cached else f"{result.seconds:.1f} s"
        text = Text(f"  {result.name:<10}{seconds:>8}   ")
        text.append_text(line(stage_line(result.name, result.facts), style="dim"))
        self._console.print(text)

    def note(self, text: str) -> None:
        """A line that stands out."""
        self.close()
        self._console.print(f"[yellow]  note:[/] {escape(printable(text))}")

    def close(self) -> None:
        """Take the bar and the status line away."""
        if self._status is not None:
            self._status.stop()
            self._status = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def line(text: Any, *, style: str = "") -> Text:
    """Text as it is: no markup in it, and nothing that would steer the terminal."""
    return Text(printable(text), style=style)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, texts: int = 1) -> Table:
    """A table whose first ``texts`` columns are text and whose others are numbers."""
    made = Table(box=None, pad_edge=False, show_header=any(columns))
    cells = [[line(cell) for cell in row] for row in rows]
    for index, column in enumerate(columns):
        # On a narrow terminal texts are folded; a number is never broken, nor cut.
        widest = max((row[index].cell_len for row in cells), default=0)
        text = index < texts
        made.add_column(
            line(column),
            justify="left" if text else "right",
            overflow="fold",
            min_width=None if text else widest,
        )
    for row in cells:
        made.add_row(*row)
    return made


def stage_line(name: str, facts: Mapping[str, Any]) -> str:
    """What a stage found, in one line."""
    if name == "reference":
        return f"{facts['parity']['images']} images through {facts['reference']}"
    if name in ("export", "simplify"):
        worst = max(facts["parity"]["max_rel"].values())
        return f"{facts['nodes']} nodes, opset {facts['opset']}, parity {worst:.1e}"
    if name == "calibrate":
        return f"{len(facts['ranges'])} tensors from {facts['images']} images"
    if name == "equalize":
        pairs = len(facts["pairs"])
        return f"{pairs} pairs of layers" if pairs else "channels are even enough"
    if name == "quantize":
        placed = f"{facts['counts'].get('int8', 0)} nodes in INT8"
        return f"{placed}, {_method(facts['choice'])}, {fidelity(facts['parity'])}"
    if name == "signed":
        return f"tensors of both signs in S8: {len(facts['tensors'])}"
    if name == "half":
        counts, casts = facts["report"]["counts"], facts["report"]["casts"]
        typed = f"{counts['fp16']} of {sum(counts.values())} nodes in FP16, {casts} Casts"
        return f"{typed}, {fidelity(facts['parity'])}"
    if name == "flavour":
        held = len(facts["fp32_layers"])
        made = f"{facts['flavour']}, opset {facts['opset']}, {held} layers that FP16 cannot hold"
        return f"{made}, {fidelity(facts['parity'])}"
    if name == "target":
        return target_line(facts["parity"])
    if name == "accuracy":
        before, after = facts["reference"], facts["actual"]
        return f"top-1 {before['k']}/{before['n']} → {after['k']}/{after['n']}"
    if name == "latency":
        return ", ".join(_latency(row) for row in facts["subjects"])
    return ""


def _method(choice: Mapping[str, Any]) -> str:
    named = choice["method"]["name"]
    if named == "percentile":
        named += f" {choice['method']['percentile']:g}"
    repairs = {"equalized": choice["equalized"], "biases corrected": choice["bias_corrected"]}
    return ", ".join([named, *(repair for repair, done in repairs.items() if done)])


def target_line(parity: Mapping[str, Any]) -> str:
    """What a target's own runtime made of the graphs."""
    found = {"fp32": parity["fp32"], parity["precision"]: parity["artefact"] or parity["fp32"]}
    compared = [f"{name.upper()} {fidelity(each)}" for name, each in found.items() if each]
    within = ["within the budget"] if parity.get("budget") else []
    return f"{parity['runtime']}: {'; '.join([*compared, *within])}"


def fidelity(parity: Mapping[str, Any]) -> str:
    """How near to the reference: an FP32 stage's parity, or that of a coarser artefact."""
    if "sqnr_db" not in parity:
        return f"parity {max(parity['max_rel'].values()):.1e}"
    return agreed(parity)


def _latency(row: Mapping[str, Any]) -> str:
    return f"{row['label']} p50 {milliseconds(row['percentiles_ms']['p50'])}"


def milliseconds(percentile: Mapping[str, Any]) -> str:
    """A percentile with its unit; below its sample floor there is none."""
    value = percentile["value"]
    return "n too small" if value is None else f"{value:.3g} ms"
