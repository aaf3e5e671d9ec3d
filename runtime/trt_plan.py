"""A plan and the file beside it: what it was built from, on and for.

A plan is code for one GPU and one version of TensorRT, and is run as such: nothing of it is given
to TensorRT before the file beside it says that it is ours, whole, and for this machine.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Dict, List, Optional

from convexport.runtime.cuda import Gpu
from convexport.runtime.errors import InputError, MachineError
from convexport.runtime.files import json_bytes, read_json, sha256_of
from convexport.runtime.trt_config import TrtOptions
from convexport.runtime.trt_versions import generation, parse_version

ENGINE = Path("engine/model.plan")  # where a device puts what it built, inside the bundle

_AMPERE = 8


@dataclass(frozen=True)
class PlanFacts:
    """What is known of a plan.

    Attributes:
        sha256: of the plan.
        onnx_sha256: of the graph that it was built from.
        tensorrt: the version that built it, with all its parts.
        gpu: its name.
        compute_capability: such as ``8.7``.
        platform: such as ``linux-aarch64``.
        driver: the newest CUDA of the driver that it was built with; told, not compared.
        options: what it was built with.
    """

    sha256: str
    onnx_sha256: str
    tensorrt: str
    gpu: str
    compute_capability: str
    platform: str
    driver: str
    options: TrtOptions

    def write(self, plan: Path) -> None:
        """Write the file beside the plan."""
        facts_file(plan).write_bytes(json_bytes(asdict(self)))

    def mismatch(self, tensorrt: str, gpu: Gpu) -> Optional[str]:
        """What of this machine it does not run on, both sides named; None if it does."""
        both: List[Any] = [("platform", self.platform, this_platform())]
        if not self._runs_on_version(tensorrt):
            both.append(("TensorRT", self.tensorrt, tensorrt))
        if not self._runs_on_gpu(gpu):
            was = f"{self.gpu} ({self.compute_capability})"
            both.append(("GPU", was, f"{gpu.name} ({gpu.compute_capability})"))
        odd = [f"built for {what} {was}, here is {now}" for what, was, now in both if was != now]
        return "; ".join(odd) or None

    def _runs_on_version(self, version: str) -> bool:
        if self.tensorrt == version:
            return True
        was, now = parse_version(self.tensorrt), parse_version(version)
        return (
            self.options.version_compatible
            and now >= was
            and was[0] in generation(version).runs_plans_of
        )

    def _runs_on_gpu(self, gpu: Gpu) -> bool:
        if self.options.hardware == "ampere_plus":
            return int(gpu.compute_capability.split(".")[0]) >= _AMPERE
        same = self.compute_capability == gpu.compute_capability
        if self.options.hardware == "same_compute_capability":
            return same
        return same and self.gpu == gpu.name


def facts_file(plan: Path) -> Path:
    """The file beside a plan."""
    return plan.with_name(f"{plan.name}.json")


def this_platform() -> str:
    """System and processor, such as ``linux-x86_64``."""
    return f"{sys.platform}-{platform.machine()}"


def find_plan(model: Path) -> Path:
    """The plan of a bundle's model: the file itself, or what this device built from the ONNX.

    Raises:
        MachineError: E0409, no engine was built here yet.
    """
    plan = model.parent / ENGINE if model.suffix == ".onnx" else model
    if not plan.is_file():
        raise MachineError(
            "E0409",
            "the bundle has no TensorRT engine yet",
            where=str(plan),
            why="an engine is built by the machine that runs it",
            hint=f"on that machine: python3 {model.parent / 'build_on_device.py'}",
        )
    return plan


def read_facts(plan: Path, model: Optional[Path] = None) -> PlanFacts:
    """The facts beside a plan, held against its bytes.

    Args:
        model: the ONNX file that it should have been built from, if that is there.

    Raises:
        InputError: E0317, they are missing or no such facts; E0316, the plan is another one.
    """
    path = facts_file(plan)
    if not path.is_file():
        raise InputError(
            "E0317",
            f"nothing says where {plan.name} comes from",
            where=str(path),
            why=f"a plan is code: {_kind(plan)}",
            hint="build it with convexport, from its ONNX file",
        )
    facts = _parsed(path)
    if sha256_of(plan) != facts.sha256:
        raise InputError(
            "E0316",
            f"{plan.name} is not the plan that {path.name} tells of",
            where=str(plan),
            why=f"it was cut, changed or exchanged: {_kind(plan)}",
            hint="build it again",
        )
    if model is not None and model != plan and sha256_of(model) != facts.onnx_sha256:
        raise InputError(
            "E0316",
            f"{plan.name} was built from another file than {model.name}",
            where=str(model),
            hint="build it again",
        )
    return facts


def read_plan(plan: Path, facts: PlanFacts) -> bytes:
    """The bytes that the facts are about, even if the file is exchanged meanwhile.

    Raises:
        InputError: E0316, it was.
    """
    data = plan.read_bytes()
    if hashlib.sha256(data).hexdigest() != facts.sha256:
        raise InputError("E0316", f"{plan.name} changed while it was read", where=str(plan))
    return data


def _parsed(path: Path) -> PlanFacts:
    try:
        data = read_json(path)
        options = TrtOptions.from_dict(data["options"])
        values: Dict[str, Any] = {each.name: data[each.name] for each in fields(PlanFacts)}
        if not all(isinstance(v, str) for k, v in values.items() if k != "options"):
            raise ValueError("a field is no text")
        return PlanFacts(**{**values, "options": options})
    except (KeyError, TypeError, ValueError) as error:
        why = f"{type(error).__name__}: {error}"
        raise InputError(
            "E0317", f"{path.name} is no plan's facts", where=str(path), why=why
        ) from error


def require_fitting_plan(facts: PlanFacts, tensorrt: str, gpu: Gpu) -> None:
    """Let no plan pass that was built for another machine.

    Raises:
        MachineError: E0407, with both sides.
    """
    odd = facts.mismatch(tensorrt, gpu)
    if odd:
        raise MachineError(
            "E0407",
            "the engine was built for another machine",
            where=odd,
            why="a plan holds code for one GPU and one version of TensorRT",
            hint="build it again here: build_on_device.py, or convexport build",
        )


def _kind(plan: Path) -> str:
    """What a file that calls itself a plan begins like."""
    with plan.open("rb") as file:
        head = file.read(1 << 16)
    length = int.from_bytes(head[:4], "little")
    if head[4:5] == b"{" and 1 < length < 1 << 20:
        try:
            about = json.loads(head[4 : 4 + length].decode())
        except (ValueError, RecursionError):
            about = None
        if isinstance(about, dict):
            author = about.get("author")
            who = author[:40] if isinstance(author, str) else "another tool"
            return f"{length + 4} bytes of metadata by {who} stand before the plan"
    if not head:
        return "the file is empty"
    return f"it has {plan.stat().st_size} bytes"
