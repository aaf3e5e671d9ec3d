"""``--target auto``: the fastest of what is installed here, among those that pass their gates.

Candidates are the targets below in each precision that may be built. Each is taken through its
stages, most of which they share; those left are measured side by side in one benchmark. Where the
precision is not the user's own choice, speed alone does not make INT8 win: labels must show that it
keeps accuracy, or without any the logits, or a budget that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from convexport.benchmarks.report.document import REPORT
from convexport.benchmarks.statistics import Ratio, ratio_of_medians
from convexport.benchmarks.verify import LOW_SQNR_DB
from convexport.exporter.bundle_writer import existing_bundle
from convexport.exporter.cache import StageCache, StageResult, stage_key
from convexport.exporter.data import choose_images
from convexport.exporter.events import Events
from convexport.exporter.findings import version_of
from convexport.exporter.measure import measuring_conditions
from convexport.exporter.options import BuildOptions, Precision
from convexport.exporter.pipeline import Build, common_request
from convexport.exporter.results import BuildResult, Made
from convexport.exporter.sources import find_source
from convexport.exporter.targets import TARGETS, Target, require_precision
from convexport.runtime.errors import (
    ConvexportError,
    GateError,
    MachineError,
    UnsupportedError,
)
from convexport.runtime.files import read_json
from convexport.runtime.sessions import require_runtime

# In the order in which they are preferred where neither is shown to be faster: the more precise
# first, and of equals the one that needs no further package.
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
CANDIDATES = ("cpu", "openvino")
# No candidates: their engines and graphs are made for a GPU. Named where their runtime is here.
_ON_GPUS = ("cuda", "tensorrt")
BASELINE = "cpu fp32"


def build_auto(model: str, options: BuildOptions, events: Events) -> BuildResult:
    """Build all candidates, measure them, and write the bundle of the one that is chosen.

    Raises:
        ConvexportError: as ``pipeline.build``; where no candidate is left, what stopped one.
    """
    precisions = (options.precision,) if options.precision else PRECISIONS
    if options.max_drop is not None:
        # The budget is proven for INT8 alone; FP32 is what it is compared with.
        precisions = tuple(each for each in precisions if each != "bf16")
    some = replace(options, precision="int8" if "int8" in precisions else precisions[0])
    source = find_source(model, options, events.note)
    images = choose_images(source, some)
    for note in (*source.notes, *images.notes, *_not_tried()):
        events.note(note)
    rows = [(TARGETS[name], precision) for precision in precisions for name in CANDIDATES]
    request = common_request(source, images, options)
    request["candidates"] = [[asdict(target), version_of(target.runtime), p] for target, p in rows]
    request["conditions"] = measuring_conditions(options.bench_seconds)
    key = stage_key("auto", request)
    standing = options.output and _standing(options.output, key, options)
    if standing:
        return standing
    cache, once = StageCache(options.cache_dir, options.lock_timeout, events.note), _Once(events)
    fp32 = Build(
        source, replace(images, calibration=None), TARGETS["cpu"], "fp32", options, cache, once
    )
    once.begin(BASELINE)
    race = Race(fp32.make(), {}, {})
    for target, precision in rows:
        fitting = images if precision == "int8" else fp32.images
        race.enter(replace(fp32, images=fitting, target=target, precision=precision))
    winner, made = race.run()
    name = Path(f"{source.name}-{winner.precision}-{winner.target.name}")
    output = options.output or name
    standing = _standing(output, key, options)
    if standing:
        return standing
    result = winner.write(made, output, key, candidates=race.outcomes(made))
    return replace(result, stages=tuple(once.told))


def choose(medians: Mapping[str, Sequence[float]]) -> str:
    """The first that no other is shown to be faster than.

    Args:
        medians: label → latencies, one a process, in the same order for all; preferred ones first.
    """
    for label, mine in medians.items():
        if not any(ratio_of_medians(mine, others).claim == "faster" for others in medians.values()):
            return label
    raise AssertionError("the fastest on average is beaten by none")


@dataclass(frozen=True)
class Race:
    """The candidates.

    Attributes:
        baseline: FP32 on the CPU, measured beside them whether it is one of them or not.
        made: label → what was built, of those that passed.
        lost: label → why it was not measured.
    """

    baseline: Made
    made: dict[str, tuple[Build, Made]]
    lost: dict[str, ConvexportError]

    def enter(self, build: Build) -> None:
        """Build a candidate, or note why it cannot take part."""
        label = _label(build.target, build.precision)
        try:
            require_precision(build.target, build.precision)
            require_runtime(build.target.runtime, build.target.provider)
        except (MachineError, UnsupportedError) as error:
            self.lost[label] = error
            return
        build.events.begin(label)
        try:
            made = build.make()
            asked = build.options.precision or build.options.max_drop
            if build.precision == "int8" and not asked:
                require_sound(made)
            self.made[label] = build, made
        except (GateError, UnsupportedError) as error:
            self.lost[label] = error
            build.events.note(f"{label} is out: {error.what}; {error.hint}")

    def run(self) -> tuple[Build, Made]:
        """Measure them side by side with the FP32 baseline; the chosen one, with all latencies.

        Raises:
            ConvexportError: none is left. What failed its gate is raised before what is missing.
        """
        if not self.made:
            kinds = (GateError, MachineError, UnsupportedError)
            raise min(self.lost.values(), key=lambda error: kinds.index(type(error)))
        entrants = {BASELINE: self.baseline.entrant}
        entrants |= {label: made.entrant for label, (_, made) in self.made.items()}
        build, made = next(iter(self.made.values()))
        latency = build.latency(entrants, made).done[-1]
        medians = _medians(latency)
        build, made = self.made[choose({label: medians[label] for label in self.made})]
        return build, replace(made, done=(*made.done, latency))

    def outcomes(self, chosen: Made) -> list[dict[str, Any]]:
        """What became of each candidate, as JSON."""
        best = _label(chosen.entrant.target, chosen.entrant.precision)
        medians = _medians(chosen.done[-1])
        rows = []
        for label, (build, made) in self.made.items():
            ratio = ratio_of_medians(medians[label], medians[best])
            outcome, why = ("chosen", "") if label == best else _beaten(ratio)
            rows.append(
                {
                    "candidate": label,
                    "outcome": outcome,
                    "why": why,
                    "against_chosen": ratio.to_dict(),
                    "parity": _parity(made, build.precision),
                    "accuracy": made.facts.get("accuracy"),
                }
            )
        return rows + [_out(label, error) for label, error in self.lost.items()]


def require_sound(made: Made) -> None:
    """Let no INT8 win by speed that nobody asked for, and that may have lost the task.

    Raises:
        GateError: E0587, labels do not show that accuracy is kept; without any, noise is high.
    """
    accuracy, noise = made.facts.get("accuracy"), _parity(made, "int8")["sqnr_db"]
    if accuracy is not None and not accuracy["non_inferior"]:
        lost = f"top-1 may have dropped by {accuracy['high_pp']:.2f} points"
        limit = f"{accuracy['margin_pp']:g} is the margin"
    elif accuracy is None and noise is not None and noise < LOW_SQNR_DB:
        lost = f"only {noise:.1f} dB of signal to noise are kept"
        limit = f"{LOW_SQNR_DB:g} are wanted where no labels tell"
    else:
        return
    raise GateError(
        "E0587",
        f"{lost}, {limit}",
        why="INT8 is chosen for its speed only where it is shown to keep the task",
        hint="give --max-drop, or --int8 to take it as it is",
    )


def _not_tried() -> Iterator[str]:
    for name in _ON_GPUS:
        try:
            require_runtime(TARGETS[name].runtime, TARGETS[name].provider)
        except (MachineError, UnsupportedError):
            continue
        yield (
            f"--target auto tries {' and '.join(CANDIDATES)} alone: the runtime of {name} is "
            f"installed here too, build it with --target {name} and measure both"
        )


class _Once(Events):
    """Passes on each candidate, stage and note once: candidates share stages."""

    def __init__(self, events: Events) -> None:
        self.told: list[StageResult] = []
        self._events = events
        self._seen: set[str] = set()

    def begin(self, what: str) -> None:
        if what not in self._seen:
            self._seen.add(what)
            self._events.begin(what)

    def start(self, stage: str) -> None:
        self._events.start(stage)

    def advance(self, done: int, total: int) -> None:
        self._events.advance(done, total)

    def detail(self, text: str) -> None:
        self._events.detail(text)

    def finish(self, result: StageResult) -> None:
        if result.key not in self._seen:
            self._seen.add(result.key)
            self.told.append(result)
            self._events.finish(result)

    def note(self, text: str) -> None:
        if text not in self._seen:
            self._seen.add(text)
            self._events.note(text)


def _standing(output: Path, key: str, options: BuildOptions) -> BuildResult | None:
    manifest = existing_bundle(output, key, force=options.force)
    if manifest is None:
        return None
    return BuildResult(output, manifest, read_json(output / REPORT))


def _label(target: Target, precision: Precision) -> str:
    return f"{target.name} {precision}"


def _medians(latency: StageResult) -> dict[str, list[float]]:
    return {row["label"]: row["process_medians_ms"] for row in latency.facts["subjects"]}


def _beaten(ratio: Ratio) -> tuple[str, str]:
    took = f"{ratio.value:.2f} times as long ({ratio.low:.2f} to {ratio.high:.2f})"
    if ratio.claim == "faster":
        return "slower", took
    return "not shown to be faster", f"{took}; the chosen one is as precise or more so"


def _out(label: str, error: ConvexportError) -> dict[str, Any]:
    outcome, why = "failed", error.what
    if isinstance(error, MachineError):
        outcome, why = "missing", f"{error.what}: {error.hint}"
    elif isinstance(error, UnsupportedError):
        outcome, why = "refused", error.why or error.what
    return {
        "candidate": label,
        "outcome": outcome,
        "why": why,
        "error": error.to_dict(),
        "against_chosen": "not measured",
    }


def _parity(made: Made, precision: Precision) -> dict[str, Any]:
    """Of the artefact with the reference, run by its own target."""
    facts = made.facts
    if "target" in facts:
        found = facts["target"]["parity"]
        return dict(found["artefact"] or found["fp32"])
    return dict(facts["quantize" if precision == "int8" else "simplify"]["parity"])
