"""The stage of a target that runs another's graphs: what its own runtime makes of them."""

from __future__ import annotations

from pathlib import Path

from convexport.benchmarks.verify import require_faithful
from convexport.exporter.budget import Loss, require_within
from convexport.exporter.measure import Entrant
from convexport.exporter.stages import Facts, compare_with_reference, fp32_parity
from convexport.runtime.errors import InputError, UnsupportedError


def target_stage(
    entrant: Entrant, fp32: Path | None, reference: Path, budget: tuple[float, Loss] | None = None
) -> Facts:
    """Compare the FP32 graph and the artefact with the reference, both run by the target.

    Args:
        fp32: None where the target runs nothing but the artefact, such as an engine.
        budget: the largest drop, and what it is counted in.

    Raises:
        UnsupportedError: E0686, its runtime cannot load the net.
        GateError: E0561 to E0564, as in the stages that made them; BF16 keeps less than 20 dB.
        GateError: E0586, the budget does not hold there.
    """
    target, precision = entrant.target, entrant.precision
    if fp32 is None and precision == "fp32":
        fp32 = entrant.model
    try:
        runtime = (target.open(fp32) if fp32 else entrant.open()).runtime
    except InputError as error:
        raise UnsupportedError(
            "E0686", f"{error.what} for the target {target.name}", why=error.why
        ) from error
    parity: Facts = {
        "runtime": runtime,
        "precision": precision,
        "fp32": fp32 and fp32_parity(fp32, reference, target, f"fp32 on {target.name}"),
        "artefact": None,
        "budget": None,
    }
    if precision != "fp32":
        found = compare_with_reference(entrant.model, reference, target, precision)
        require_faithful(found, f"{precision} on {target.name}", precision)
        parity["artefact"] = found.to_dict()
    if budget is not None:
        parity["budget"] = require_within(budget[0], entrant, budget[1])
    return {"parity": parity}
