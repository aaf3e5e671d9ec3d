"""What is asked of TensorRT's builder, and how each version is told.

Names are looked for, numbers never used. What a version has no name for is refused, not left out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from convexport.runtime.errors import InputError, MachineError, UnsupportedError, UsageError
from convexport.runtime.trt_versions import Generation, bits, generation

# What TensorRT calls a tensor that the parser gave no name.
_UNNAMED = "(Unnamed Layer*"
HARDWARE = ("same", "same_compute_capability", "ampere_plus")


@dataclass(frozen=True)
class TrtOptions:
    """What decides about a plan, next to the graph.

    Attributes:
        typed: layers compute in the types that the graph says; else the builder chooses among
            FP32 and what ``fp16`` and ``int8`` allow.
        fp16: the builder may take FP16; only where it chooses.
        int8: the graph has Q/DQ and the builder is to follow it; only where it chooses.
        batch: smallest, usual and largest batch of a graph whose batch is free.
        workspace_mib: most memory that a layer may use for its work; None: TensorRT's own limit.
        level: how long to search, 0 to 5; None: TensorRT's own choice.
        tf32: FP32 products may be cut to 10 bits.
        own_kernels: leave cuBLAS and cuDNN out.
        hardware: which other GPUs the plan runs on; one of HARDWARE.
        version_compatible: the plan runs on later versions too, and carries code of the host.
        refit: weights may be replaced later.
        dla: the number of the DLA core to run on; what it cannot run stays on the GPU.
        fp32_layers: nodes of the graph that FP16 cannot hold; only where the builder chooses.
    """

    typed: bool
    fp16: bool = False
    int8: bool = False
    batch: Tuple[int, int, int] = (1, 1, 1)
    workspace_mib: Optional[int] = None
    level: Optional[int] = None
    tf32: bool = False
    own_kernels: bool = False
    hardware: str = "same"
    version_compatible: bool = False
    refit: bool = False
    dla: Optional[int] = None
    fp32_layers: Tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sizes = self.batch
        if len(sizes) != 3 or not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
            raise _bad("batch", sizes, "MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX")
        if self.level is not None and not 0 <= self.level <= 5:
            raise _bad("level", self.level, "0 to 5")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise _bad("workspace_mib", self.workspace_mib, "at least 1")
        if self.hardware not in HARDWARE:
            raise _bad("hardware", self.hardware, f"one of {', '.join(HARDWARE)}")
        if self.dla is not None and self.dla < 0:
            raise _bad("dla", self.dla, "the number of a core")
        if self.dla is not None and len(set(sizes)) != 1:
            raise _bad("batch", sizes, "MIN = OPT = MAX on a DLA")
        if self.dla is not None and not self.typed and (self.int8 or not self.fp16):
            raise _bad("dla", self.dla, "--fp16 beside it: a DLA runs neither FP32 nor Q/DQ")
        if self.typed and (self.fp16 or self.int8 or self.fp32_layers):
            raise _bad("typed", True, "no precision beside the graph's own")

    @classmethod
    def of_graph(cls, precision: str, typed: bool, **more: Any) -> TrtOptions:
        """What a graph of that precision is built with, whether it carries its types or not."""
        half, int8 = precision in ("fp16", "int8"), precision == "int8"
        return cls(typed, fp16=half and not typed, int8=int8 and not typed, **more)

    def to_dict(self) -> Dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrtOptions:
        """The inverse of ``to_dict``.

        Raises:
            InputError: E0318, a field is missing or unknown.
            UsageError: E0204, a value makes no sense.
        """
        try:
            if set(data) != {field.name for field in fields(cls)}:
                raise ValueError("fields are missing or unknown")
            lists = {name: tuple(data[name]) for name in ("batch", "fp32_layers")}
            return cls(**{**data, **lists})
        except (TypeError, ValueError) as error:
            raise InputError(
                "E0318",
                f"these are no options for TensorRT: {error}",
                where=str(data)[:200],
                hint="build the bundle again",
            ) from error


def require_options(options: TrtOptions, rows: Sequence[Generation]) -> str:
    """Refuse what no version among these can be asked for.

    Returns:
        What some of them cannot; empty where all can do all.

    Raises:
        UnsupportedError: E0602, with the names of the options.
    """
    lacking = [(row, _lacking(options, row)) for row in rows]
    if all(names for _, names in lacking):
        raise UnsupportedError(
            "E0602",
            f"TensorRT {_since(rows)} does not know {', '.join(lacking[0][1])}",
            where="the versions that the target may have",
            hint="leave it out, or choose another target",
        )
    able = [row for row, names in lacking if not names]
    odd = ", ".join(dict.fromkeys(name for _, names in lacking for name in names))
    return f"{odd}: known from TensorRT {_since(able)} on, not by older ones" if odd else ""


def _since(rows: Sequence[Generation]) -> str:
    return ", ".join(".".join(map(str, row.since)) for row in rows)


def _lacking(options: TrtOptions, row: Generation) -> List[str]:
    asked = {
        "--level": options.level is None or row.levels,
        f"--hardware {options.hardware}": options.hardware in ("same", *row.hardware),
        "--version-compatible": not options.version_compatible or bool(row.runs_plans_of),
        "--dla": options.dla is None or row.dla,
    }
    return [name for name, possible in asked.items() if not possible]


def create_network(trt: Any, builder: Any, options: TrtOptions) -> Any:
    """An empty network, in which the graph or the builder chooses the types.

    Raises:
        UnsupportedError: E0602, this version does not let the asked one choose.
    """
    types = generation(trt.__version__).types
    if types not in ("either", "graph" if options.typed else "builder"):
        raise UnsupportedError(
            "E0602",
            f"in TensorRT {trt.__version__} the {types} chooses the types of all layers",
            where=f"asked for: the {'graph' if options.typed else 'builder'}",
            hint="build from the ONNX flavour that is for this version",
        )
    # From 10 on batches are always explicit; the flag is deprecated, then gone.
    names = ["EXPLICIT_BATCH"] if types == "builder" else []
    if options.typed:
        names.append("STRONGLY_TYPED")
    return builder.create_network(bits(trt, "NetworkDefinitionCreationFlag", *names))


def configure(trt: Any, builder: Any, options: TrtOptions) -> Any:
    """A builder's configuration that says all of ``options`` but the profile.

    Raises:
        UnsupportedError: E0602, this version has no name for something that was asked for.
        MachineError: E0402, there is no such DLA core.
    """
    config = builder.create_builder_config()
    wanted = {
        "FP16": options.fp16,
        "INT8": options.int8,
        "TF32": options.tf32,
        "REFIT": options.refit,
        "VERSION_COMPATIBLE": options.version_compatible,
        "GPU_FALLBACK": options.dla is not None,
    }
    for name, on in wanted.items():
        if on:
            config.set_flag(_member(trt, "BuilderFlag", name))
    if not options.tf32:  # it is on unless told otherwise
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.level is not None:
        if not hasattr(config, "builder_optimization_level"):
            raise _missing(trt, "no optimization levels", "leave the level out")
        config.builder_optimization_level = options.level
    if options.hardware != "same":
        level = _member(trt, "HardwareCompatibilityLevel", options.hardware.upper())
        config.hardware_compatibility_level = level
    if options.own_kernels:
        _own_kernels(trt, config)
    if options.dla is not None:
        _use_dla(trt, builder, config, options.dla)
    # Layers are named in the plan, with their precisions, for the report.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    return config


def hold_layers(trt: Any, network: Any, config: Any, names: Tuple[str, ...]) -> None:
    """Keep the layers of some nodes in FP32, what they give too.

    Parsers name one layer of a node after it and leave others without a name, such as the addition
    of a Gemm's bias: from the named one on all are held, up to the tensor that the file names.

    Raises:
        UnsupportedError: E0606, the parser made no layer of that name.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    wanted = {name: [each for each in layers if each.name == name] for name in names}
    missing = [name for name, found in wanted.items() if not found]
    if missing:
        raise UnsupportedError(
            "E0606",
            "layers cannot be held to FP32: TensorRT's parser made none of that name",
            where=", ".join(missing),
            hint="--fp32, or a TensorRT that takes types from the graph",
        )
    inside: Set[str] = set()  # tensors between the layers of one node
    named = {layer.name for found in wanted.values() for layer in found}
    for layer in layers:
        given = {layer.get_input(index).name for index in _present(layer)}
        out = [layer.get_output(index) for index in range(layer.num_outputs)]
        if layer.name not in named and (not given & inside or not _floats(trt, out)):
            continue
        inside |= {tensor.name for tensor in out if tensor.name.startswith(_UNNAMED)}
        layer.precision = trt.DataType.FLOAT
        for index in range(layer.num_outputs):
            layer.set_output_type(index, trt.DataType.FLOAT)
    if names:
        config.set_flag(_member(trt, "BuilderFlag", "OBEY_PRECISION_CONSTRAINTS"))


def _present(layer: Any) -> List[int]:
    return [index for index in range(layer.num_inputs) if layer.get_input(index) is not None]


def _floats(trt: Any, tensors: Sequence[Any]) -> bool:
    return all(tensor.dtype in (trt.DataType.FLOAT, trt.DataType.HALF) for tensor in tensors)


def _own_kernels(trt: Any, config: Any) -> None:
    names = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
    config.set_tactic_sources(bits(trt, "TacticSource", *names))
    # 8.5's core opens cuBLAS and cuDNN all the same, unless this is said.
    feature = getattr(trt.PreviewFeature, "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805", None)
    if feature is not None:
        config.set_preview_feature(feature, True)


def _use_dla(trt: Any, builder: Any, config: Any, core: int) -> None:
    if not generation(trt.__version__).dla:
        raise _missing(trt, "no DLA", "10.7 was the last 10.x with one")
    if core >= builder.num_DLA_cores:
        raise MachineError(
            "E0402", f"there is no DLA core {core}: {builder.num_DLA_cores} are here"
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core


def _member(trt: Any, enumeration: str, name: str) -> Any:
    kinds = getattr(trt, enumeration, None)
    if not hasattr(kinds, name):
        raise _missing(trt, f"no {enumeration}.{name}", "leave it out, or use another version")
    return getattr(kinds, name)


def _missing(trt: Any, what: str, hint: str) -> UnsupportedError:
    return UnsupportedError("E0602", f"TensorRT {trt.__version__} has {what}", hint=hint)


def _bad(field: str, value: Any, expected: str) -> UsageError:
    return UsageError(
        "E0204", f"{field} cannot be {value} for TensorRT", hint=f"expected {expected}"
    )
