"""What a version of TensorRT cannot parse of an ONNX file, or reads as something else, unasked.

Nothing is loaded but the file: neither TensorRT nor a GPU is needed. A rule is a row of
``trt_lint_graph`` or ``trt_lint_qdq``. That all pass says that no known stone lies in the way, not
that an engine builds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from convexport.exporter.targets import TARGETS, Target
from convexport.exporter.trt_lint_graph import GRAPH_RULES
from convexport.exporter.trt_lint_qdq import QDQ_RULES
from convexport.exporter.trt_lint_rules import Rule, Severity
from convexport.exporter.trt_parsers import Parser, parsers_of
from convexport.runtime.errors import UnsupportedError, UsageError

RULES: Mapping[str, Rule] = {rule.id: rule for rule in (*GRAPH_RULES, *QDQ_RULES)}
# That the terminal shows of one rule; JSON has all.
_MOST_PLACES = 5


@dataclass(frozen=True)
class Finding:
    """One place in a graph that a rule is about.

    Attributes:
        where: the node or tensor.
        versions: of TensorRT for which it holds, of those that were asked about.
    """

    rule: str
    severity: Severity
    where: str
    what: str
    versions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with the rule's reason, remedy and source."""
        rule = RULES[self.rule]
        return {**asdict(self), "why": rule.why, "fix": rule.fix, "source": rule.source}


def lint(model: ir.Model, parsers: Sequence[Parser]) -> list[Finding]:
    """Apply every rule for every version; in the order of the rules."""
    _infer(model)
    found: dict[tuple[str, str, str], list[str]] = {}
    for rule in RULES.values():
        for parser in parsers:
            for where, what in rule.check(model, parser) if rule.holds(parser) else ():
                found.setdefault((rule.id, where, what), []).append(str(parser.version))
    return [
        Finding(rule, RULES[rule].severity, where, what, tuple(versions))
        for (rule, where, what), versions in found.items()
    ]


def _infer(model: ir.Model) -> None:
    """Give what is computed its type. Of a graph that contradicts itself the pass logs a traceback;
    its types stay as they were, and the rules see what is there."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        ShapeInferencePass()(model)
    finally:
        logger.setLevel(level)


def lint_file(path: Path, target: Target) -> dict[str, Any]:
    """The findings on a file that was read and checked before, as JSON.

    Raises:
        UsageError: E0290, the target has no TensorRT.
        UnsupportedError: E0690, the TensorRT that is here is not known.
    """
    if not target.tensorrt:
        others = ", ".join(each.name for each in TARGETS.values() if each.tensorrt)
        raise UsageError(
            "E0290",
            f"there are no rules for the target {target.name}",
            why="its runtime says itself what it cannot load",
            hint=f"take one of {others}, or build for {target.name}",
        )
    parsers = parsers_of(target)
    findings = lint(ir.load(path), parsers)
    return {
        "target": target.name,
        "tensorrt": [str(each.version) for each in parsers],
        "rules": sum(any(rule.holds(each) for each in parsers) for rule in RULES.values()),
        "errors": sum(each.severity == "error" for each in findings),
        "warnings": sum(each.severity == "warning" for each in findings),
        "findings": [each.to_dict() for each in findings],
    }


def require_no_errors(name: str, report: Mapping[str, Any]) -> None:
    """Let nothing pass that the target's TensorRT cannot read, or misreads.

    Raises:
        UnsupportedError: E0693, there are errors among the findings.
    """
    wrong = [each for each in report["findings"] if each["severity"] == "error"]
    if wrong:
        first = wrong[0]
        raise UnsupportedError(
            "E0693",
            f"{name} is not for the target {report['target']}: {len(wrong)} errors",
            where=f"first {first['where']}: {first['what']}",
            why=first["why"],
            hint=first["fix"],
        )


def as_lines(report: Mapping[str, Any]) -> list[str]:
    """The findings for a terminal: what of a rule is the same is said once."""
    asked = report["tensorrt"]
    lines = [
        f"{report['target']}, TensorRT {', '.join(asked)}: {report['rules']} rules, "
        f"errors: {report['errors']}, warnings: {report['warnings']}"
    ]
    for _, group in groupby(report["findings"], key=lambda each: each["rule"]):
        rows = list(group)
        rule, versions = rows[0], [v for v in asked if any(v in row["versions"] for row in rows)]
        only = "" if len(versions) == len(asked) else f" (TensorRT {', '.join(versions)})"
        lines.append(f"{rule['severity']} {rule['rule']}{only}: {rule['why']}")
        lines += [f"  {row['where']}: {row['what']}" for row in rows[:_MOST_PLACES]]
        if len(rows) > _MOST_PLACES:
            lines.append(f"  and {len(rows) - _MOST_PLACES} more: see --json")
        lines.append(f"  fix: {rule['fix']}")
    return lines
