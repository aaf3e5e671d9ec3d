"""PyTorch as the baseline: the net of a bundle, with the very weights that it was built from.

The net is made anew from its name in the zoo and its weights are had again; what a manifest names
beyond that is never imported. Its logits are compared with the bundle's FP32 reference, in a
process of their own, before anything is timed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from convexport.benchmarks.parity import PARITY_IMAGES, Parity, compare, require_parity
from convexport.benchmarks.recording import Subject
from convexport.benchmarks.torch_session import TorchSession, require_torch
from convexport.benchmarks.workers import CPUS
from convexport.calibration.photographs import photographs
from convexport.runtime.batches import run_in_batches
from convexport.runtime.bundle import Manifest
from convexport.runtime.errors import UnsupportedError
from convexport.runtime.files import sha256_of
from convexport.runtime.sessions import open_session


def torch_subject(manifest: Manifest, runtime: str, *, cache_dir: Path, scratch: Path) -> Subject:
    """The bundle's net as a subject for PyTorch; its weights are written into ``scratch``.

    Args:
        runtime: ``torch`` or ``torch.compile``.
        cache_dir: where published weights are kept; none are fetched.

    Raises:
        UnsupportedError: E0660, the net or its weights cannot be had again.
        MachineError: E0401 or E0463, PyTorch or a compiler is not there; E0420 to E0425, the
            weights are not in the cache.
    """
    torch = require_torch(runtime)
    name, request = manifest.name, _weights_request(manifest)
    from convexport.architectures import registry, weights

    variant = registry.find(name)
    resolved = weights.resolve(
        variant, request, offline=True, cache_dir=cache_dir, report=lambda text: None
    )
    if resolved.sha256 != manifest.data["weights"]["sha256"]:
        raise _refused(name, f"the weights that go by {request!r} today are others")
    shape = tuple(int(dim) for dim in manifest.input.shape[1:])
    net = {"name": name, "classes": manifest.classes, "shape": list(shape)}
    module, _ = weights.load_module(
        variant, resolved, num_classes=manifest.classes, shape=(shape[0], shape[1], shape[2])
    )
    path = scratch / f"{runtime}.pt"
    torch.save(module.state_dict(), path)
    return Subject(
        label=runtime,
        model=path,
        provider=TorchSession.provider,
        input_name="input",
        input_shape=shape,
        sha256=sha256_of(path),
        runtime=runtime,
        net=net,
    )


def torch_parity(subject: Subject, bundle: Path, manifest: Manifest, threads: int) -> Parity:
    """How far PyTorch's logits are from those of the bundle's reference.

    Raises:
        GateError: E0561 to E0563, too far: this is not the net that the bundle was built from.
    """
    session = TorchSession(
        subject.model, subject.net or {}, runtime=subject.runtime, threads=threads
    )
    reference = open_session(
        bundle / manifest.reference, runtime="onnxruntime", provider="CPUExecutionProvider"
    )
    images = photographs("parity", PARITY_IMAGES)
    batches = [each.array for each in images.batches(manifest.preprocess, 8, on_bad="fail")]
    expected, actual = (
        np.concatenate([run_in_batches(runner, batch) for batch in batches])
        for runner in (reference, session)
    )
    parity = compare(expected, actual)
    require_parity(parity, subject.label)
    return parity


def _weights_request(manifest: Manifest) -> str:
    """What to ask of the zoo for the weights that the manifest names."""
    facts: dict[str, Any] = manifest.data["weights"]
    if manifest.provider not in CPUS:
        raise _refused(manifest.name, f"PyTorch runs on the CPU here, this on {manifest.provider}")
    if manifest.data["source"] != "zoo" or "+" in manifest.name:
        raise _refused(manifest.name, "it is no single net of the zoo")
    if "classifier" in facts:
        raise _refused(manifest.name, "its classifier was drawn at random when it was built")
    if facts["kind"] == "random":
        return f"random:{facts['source'].rpartition(' ')[2]}"
    if facts["kind"] not in ("digits", "pretrained"):
        raise _refused(manifest.name, f"its weights were a file of your own, {facts['source']}")
    return str(facts["kind"])


def _refused(name: str, why: str) -> UnsupportedError:
    return UnsupportedError(
        "E0660",
        f"{name} cannot be made again in PyTorch",
        why=why,
        hint="leave --against out: the baseline is then the bundle's own FP32 reference",
    )
