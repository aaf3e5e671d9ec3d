"""What a build for TensorRT ends with: an engine for this machine, or all that the device needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convexport.benchmarks.report.document import REPORT
from convexport.exporter.bundle_writer import write_bundle
from convexport.exporter.device_bundle import SCRIPT, device_facts
from convexport.exporter.flavours import flavour_of, versions_of
from convexport.exporter.measure import Entrant
from convexport.exporter.options import BuildOptions
from convexport.exporter.results import BuildResult, Made
from convexport.exporter.targets import TENSORRT_GRAPHS, Target
from convexport.exporter.trt_request import TrtRequest
from convexport.runtime.batches import fixed_batch
from convexport.runtime.errors import ConvexportError, UsageError
from convexport.runtime.files import read_json
from convexport.runtime.sessions import require_runtime
from convexport.runtime.trt_config import TrtOptions, require_options
from convexport.runtime.trt_layers import require_int8
from convexport.runtime.trt_versions import generations

if TYPE_CHECKING:
    from convexport.exporter.pipeline import Build


def require_delivery(target: Target, options: BuildOptions) -> None:
    """Refuse what could not be finished, before the work is done.

    Raises:
        MachineError: E0401 or E0404, TensorRT or a GPU is not on this machine, where it is needed.
        UnsupportedError: E0690, its version is not known; E0602, no version that the target has
            knows an option.
        UsageError: E0204, what is asked of the engine makes no sense.
    """
    if not target.device:
        require_runtime(target.runtime, target.provider)
    asked = _options(options, target, options.precision or "fp32", ())
    require_options(asked, generations(versions_of(target)))


def deliver(build: Build, made: Made, output: Path, key: str) -> BuildResult:
    """From the ONNX of a TensorRT target to what is handed over.

    Args:
        made: its entrant's model is the ONNX; ``made.facts["flavour"]`` says which layers an FP16
            engine has to hold to FP32.
        output: where the bundle goes.
        key: the hash of everything that was asked for.

    Raises:
        UsageError: E0291, the graph does not take the batches that were asked for.
        ConvexportError: as ``runtime.trt_child.build_engine``; what the engine gives is not near
            enough to the reference; E0502, it is to be INT8 and is not.
    """
    held = tuple(made.facts["flavour"]["fp32_layers"])
    options = _options(build.options, build.target, build.precision, held)
    onnx, engine = made.entrant.model, None
    options = _with_batch(options, build.options.tensorrt, fixed_batch(made.entrant.open()))
    about = device_facts(options, versions_of(build.target))
    if build.target.device:
        if only := require_options(options, generations(build.target.tensorrt)):
            build.events.note(only)
        board = build.target.device.partition(":")[0]
        build.events.note(
            f"no engine is built here: copy the bundle to {board}, run {SCRIPT} there"
        )
    else:
        made, engine = _with_engine(build, made, options)
        about["tensorrt"]["engine"] = {
            key: value for key, value in made.facts["engine"].items() if key != "options"
        }
    parts = build.parts(replace(made, entrant=replace(made.entrant, model=onnx)), key)
    parts = replace(parts, engine=engine, facts={**parts.facts, **about})
    manifest = write_bundle(
        output, parts, build.source, build.target, build.precision, TENSORRT_GRAPHS
    )
    return BuildResult(output, manifest, read_json(output / REPORT), made.done)


def _with_engine(build: Build, made: Made, options: TrtOptions) -> tuple[Made, Path]:
    """The same with an engine of this machine, compared with the reference and measured."""
    from convexport.exporter.trt_build import PLAN, engine_inputs, engine_stage

    onnx, reference = made.entrant.model, made.done[0]

    def produce(out: Path) -> Mapping[str, Any]:
        asked = build.options
        return engine_stage(onnx, options, asked.cache_dir, out, lock_timeout=asked.lock_timeout)

    engine = build.stage("engine", engine_inputs(onnx, options), produce)
    if build.precision == "int8":
        graph = made.facts["flavour"]["precisions"]
        build.events.note(require_int8(engine.facts["engine"], graph))
    entrant = Entrant(engine.directory / PLAN, build.target, build.precision)
    checked = build.check(entrant, made.fp32, reference, alone=True)
    # The engine's own accuracy replaces the graph's.
    done = [each for each in made.done if each.name != "accuracy"]
    made = Made((*done, engine, *checked), entrant, made.fp32)
    if build.options.bench_seconds:
        made = build.latency({build.precision: entrant}, made)
    return made, engine.directory


def _with_batch(options: TrtOptions, asked: TrtRequest | None, fixed: int | None) -> TrtOptions:
    """The same for the batch that a graph insists on; a free one has to begin at 1.

    Raises:
        UsageError: E0291, another one was asked for.
    """
    only = (fixed or 1,) * 3
    if fixed and (asked is None or asked.batch in (only, TrtRequest().batch)):
        return replace(options, batch=only)
    if fixed or options.batch[0] != 1:
        raise UsageError(
            "E0291",
            f"no engine can take batches of {':'.join(map(str, options.batch))}",
            why=f"the graph's batch is {fixed}"
            if fixed
            else "golden samples and single images are batches of 1",
            hint=f"leave --batch out: it is {fixed}" if fixed else "begin at 1: --batch 1:8:32",
        )
    return options


def machine_of(target: Target) -> list[str]:
    """What an engine that is built here is for; nothing where none is."""
    if not target.tensorrt or target.device:
        return []
    from convexport.runtime.cuda import cuda
    from convexport.runtime.trt_engine import import_tensorrt

    gpu = cuda().gpu
    version = import_tensorrt("building an engine").__version__
    return [version, gpu.name, gpu.compute_capability, gpu.driver]


def engine_stands(target: Target, model: Path) -> bool:
    """Whether a bundle's engine is there and intact, where it has to have one."""
    if not machine_of(target):
        return True
    from convexport.runtime.trt_plan import find_plan, read_facts

    try:
        read_facts(find_plan(model), model)
    except ConvexportError:
        return False
    return True


def _options(
    options: BuildOptions, target: Target, precision: str, held: tuple[str, ...]
) -> TrtOptions:
    asked = options.tensorrt or TrtRequest()
    return asked.options(precision, typed=flavour_of(target).typed, fp32_layers=held)
