"""The stage of a target that runs another's graphs: what its own runtime makes of them."""

from __future__ import annotations

from pathlib import Path

from convexport.benchmarks.verify import require_signal
from convexport.exporter.measure import Entrant
from convexport.exporter.stages import Facts, compare_with_reference, fp32_parity


def target_stage(entrant: Entrant, fp32: Path, reference: Path) -> Facts:
    """Compare the FP32 graph and the artefact with the reference, both run by the target.

    Raises:
        GateError: E0561 to E0564, as in the stages that made them; BF16 keeps less than 20 dB.
    """
    target, precision = entrant.target, entrant.precision
    parity: Facts = {
        "runtime": target.open(fp32).runtime,
        "precision": precision,
        "fp32": fp32_parity(fp32, reference, target, f"fp32 on {target.name}"),
        "artefact": None,
    }
    if precision != "fp32":
        found = compare_with_reference(entrant.model, reference, target, precision)
        require_signal(found, f"{precision} on {target.name}", precision)
        parity["artefact"] = found.to_dict()
    return {"parity": parity}
