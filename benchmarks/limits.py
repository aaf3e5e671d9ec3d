"""Where the time of a bundle goes, and how near each layer is to what this machine can do.

A layer cannot be faster than its operations at the rate of the fastest matrix product, nor than
its bytes at the rate of the fastest copy of as many (S. Williams et al., Roofline, CACM 52, 2009).
The longer of both is its roof; roof / measured time is the fraction of the possible that it
reaches. All four are measured or counted here, none is of a data sheet. A fraction above 1 means
that a roof was measured too low, and that is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from convexport.benchmarks.bandwidth import Bandwidth, measured_bandwidth
from convexport.benchmarks.executed import RUNS, WARM_UP, Kernel, kernels, pass_ms
from convexport.benchmarks.file_layers import FileLayers, Layer
from convexport.benchmarks.host import affinity, describe_host
from convexport.benchmarks.roofline import Peak, measured_peak
from convexport.runtime.bundle import Manifest, read_golden, read_manifest, verify_files
from convexport.runtime.errors import UnsupportedError, UsageError
from convexport.runtime.sessions import open_session

_CPU = {"onnxruntime": "CPUExecutionProvider", "openvino": "CPU"}


class Roof:
    """What this machine can do; each thing of it is measured when it is first asked for.

    Args:
        threads: of what measures it, and of the runtime; 0 takes as many as CPUs.
        seconds: for each thing that is measured.

    Raises:
        UsageError: E0277, that is no time to measure for.
    """

    def __init__(self, threads: int = 0, seconds: float = 1.0) -> None:
        if not (math.isfinite(seconds) and seconds > 0):
            raise UsageError("E0277", f"nothing can be measured for {seconds} seconds")
        self.threads, self._seconds = threads or affinity(), seconds
        self._peaks: dict[str, Peak] = {}

    def peak(self, precision: str) -> Peak:
        """The fastest matrix product in that precision; see ``measured_peak``."""
        if precision not in self._peaks:
            self._peaks[precision] = measured_peak(
                precision, threads=self.threads, seconds=self._seconds
            )
        return self._peaks[precision]

    @cached_property
    def bandwidth(self) -> Bandwidth:
        """The fastest copies."""
        return measured_bandwidth(threads=self.threads, seconds=self._seconds)


def layers(bundle: Path, roof: Roof) -> dict[str, Any]:
    """Run a bundle's model under its runtime's profile, and compare with the machine.

    Args:
        roof: of this machine; one for several bundles measures it once.

    Returns:
        JSON: ``fraction`` of the whole, ``layers``, the slowest first, what was measured of the
        machine (``peak_ops_per_s`` of the precision with most operations), ``conditions``, and
        ``notes`` on what does not add up.

    Raises:
        InputError: it is no bundle, or it is damaged.
        UnsupportedError: E0661, it is for another runtime than those of CPUs.
    """
    manifest = read_manifest(bundle)
    verify_files(bundle, manifest)
    require_cpu(manifest)
    threads = roof.threads
    sample, _ = read_golden(bundle, manifest)
    model = bundle / manifest.model
    file = FileLayers(model, len(sample))
    runtime, precision = manifest.runtime, manifest.precision
    executed = kernels(model, sample, runtime=runtime, precision=precision, threads=threads)
    rows = attributed(executed, file)
    session = open_session(
        model, runtime=runtime, provider=manifest.provider, precision=precision, threads=threads
    )
    whole = pass_ms(session, sample)
    kinds = sorted({row["precision"] for row in rows if row["ops"]})
    peaks = {kind: roof.peak(kind) for kind in kinds}
    return {
        "name": manifest.name,
        "model_sha256": manifest.files[manifest.model],
        **against_roof(rows, whole, file.operations, peaks, roof.bandwidth),
        "conditions": _conditions(manifest, session.runtime, len(sample), threads),
    }


def attributed(executed: Iterable[Kernel], file: FileLayers) -> list[dict[str, Any]]:
    """One row for each layer of the file that is executed, and for each kernel of no layer."""
    rows: dict[str, dict[str, Any]] = {}
    for kernel in executed:
        layer = file.of(kernel.originals, kernel.op)
        found = layer or Layer(kernel.name, (kernel.name,), "", kernel.op, 0, 0)
        key = found.name if layer else f"\0{kernel.name}"
        row = rows.setdefault(key, _row(found, kernel))
        row["ms"] += kernel.ms
        row["bytes"] += 0 if layer else kernel.bytes
    return list(rows.values())


def against_roof(
    rows: list[dict[str, Any]],
    whole: float,
    operations: int,
    peaks: Mapping[str, Peak],
    bandwidth: Bandwidth,
) -> dict[str, Any]:
    """The rows with their shares and fractions, and the whole.

    Args:
        rows: of ``attributed``.
        whole: milliseconds of a pass.
        operations: of the file; those that are in no row count for the whole alone.
        peaks: by precision.
    """
    total, roof = sum(row["ms"] for row in rows), 0.0
    for row in rows:
        compute = 1e3 * row["ops"] / peaks[row["precision"]].operations_per_s if row["ops"] else 0.0
        memory = 1e3 * bandwidth.seconds(row["bytes"])
        least = max(compute, memory)
        row["share"] = row["ms"] / total if total else 0.0
        row["bound"] = "compute" if compute > memory else "memory"
        # Below the profile's resolution a time of 0 says nothing.
        row["fraction"] = least / row["ms"] if row["ms"] else None
        roof += least
    lost = operations - sum(row["ops"] for row in rows)
    main = max(peaks.values(), key=lambda peak: _of(rows, peak.precision), default=None)
    if main is not None:
        roof += 1e3 * lost / main.operations_per_s
    rows.sort(key=lambda row: -row["ms"])
    return {
        "peak_ops_per_s": main.operations_per_s if main else None,
        "peak_bytes_per_s": bandwidth.memory,
        "peaks": [vars(peak) for peak in peaks.values()],
        "bandwidth": [{"bytes": n, "bytes_per_s": rate} for n, rate in bandwidth.rates.items()],
        "ms": whole,
        "operations": operations,
        "roof_ms": roof,
        "fraction": roof / whole,
        "layers": rows,
        "notes": list(_notes(rows, roof / whole, lost, operations)),
    }


def require_cpu(manifest: Manifest) -> None:
    """A bundle whose runtime tells the times of its layers here.

    Raises:
        UnsupportedError: E0661, it is for another runtime than those of CPUs.
    """
    if _CPU.get(manifest.runtime) != manifest.provider:
        raise UnsupportedError(
            "E0661",
            f"layers of {manifest.runtime} on {manifest.provider} are not measured",
            why="neither their times nor the roof of that device are taken yet",
            hint="measure a bundle for cpu or openvino",
        )


def _row(layer: Layer, kernel: Kernel) -> dict[str, Any]:
    return {
        "name": layer.name,
        "module": layer.module,
        "op": layer.op,
        "ms": 0.0,
        "ops": layer.operations,
        "bytes": layer.bytes,
        "precision": kernel.precision,
    }


def _of(rows: Iterable[Mapping[str, Any]], precision: str) -> int:
    return sum(row["ops"] for row in rows if row["precision"] == precision)


def _notes(
    rows: list[dict[str, Any]], fraction: float, lost: int, operations: int
) -> Iterator[str]:
    above = [row for row in rows if row["fraction"] is not None and row["fraction"] > 1]
    if above or fraction > 1:
        worst = max(above, key=lambda row: float(row["fraction"]), default=None)
        named = f", {worst['name']} is at {worst['fraction']:.2f}" if worst else ""
        yield (
            f"the roof was measured too low: {len(above)} of {len(rows)} rows are above it{named}; "
            "something else ran beside it, or a kernel skips work that is counted"
        )
    if lost:
        yield f"{lost / operations:.1%} of the operations are of no row: the runtime renamed them"


def _conditions(manifest: Manifest, runtime: str, batch: int, threads: int) -> dict[str, Any]:
    return {
        "runtime": runtime,
        "precision": manifest.precision,
        "batch": batch,
        "threads": threads,
        "warm_up": WARM_UP,
        "runs": RUNS,
        "statistic": "median ms a pass: layers by the runtime's profile, the whole without it",
        "peak": "the fastest of at least ten chains of matrix products",
        "bandwidth": "the fastest of at least three copies, bytes read and written",
        "host": describe_host(),
    }
