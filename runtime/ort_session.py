"""ONNX Runtime behind the Runner protocol."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

import numpy as np

from convexport.runtime.cpu import cpu_flags, overflows
from convexport.runtime.errors import InputError, MachineError
from convexport.runtime.optional import require
from convexport.runtime.specs import TensorSpec, require_fitting

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}

# Where the same file must give the same numbers: TF32 would cut FP32 products to 10 bits.
_PROVIDER_OPTIONS: Dict[str, Dict[str, str]] = {"CUDAExecutionProvider": {"use_tf32": "0"}}

# What ONNX Runtime says when a node found no place but the CPU: a provider whose libraries are
# missing is listed as available and takes none.
_NO_FALLBACK = "fallback to CPU EP has been explicitly disabled"


class OrtSession:
    """A model loaded into ONNX Runtime on one provider, without silent fallback.

    One session may be shared by threads: ``run`` keeps no state.

    Args:
        model: the ``.onnx`` file. It is loaded by path, so that external data stays confined
            to the file's own directory.
        provider: the execution provider that must run it.
        threads: intra-op threads; 0 lets ONNX Runtime choose.
        optimize: False runs the graph as written, node by node.
        spin: whether idle threads spin between runs: faster alone, slower among others.
        early: whether nodes run as soon as they can, not when what follows needs them: for graphs
            with outputs from all over, which need less memory so.
        profile: begin of the name of a file with every node's time, which ``end_profile`` writes.

    Raises:
        MachineError: E0401 or E0402, ONNX Runtime or the provider is not there, or the provider
            would leave a part of the model to the CPU.
        InputError: E0303, ONNX Runtime cannot load the file.
    """

    def __init__(
        self,
        model: Path,
        *,
        provider: str = "CPUExecutionProvider",
        threads: int = 0,
        optimize: bool = True,
        spin: bool = True,
        early: bool = False,
        profile: Optional[Path] = None,
    ) -> None:
        ort = require_provider(provider)
        options = _options(ort, provider)
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        if early:
            options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        providers = [(provider, _PROVIDER_OPTIONS.get(provider, {}))]
        try:
            self._session = ort.InferenceSession(str(model), options, providers=providers)
        except Exception as error:  # ONNX Runtime raises classes of its own for each status
            if _NO_FALLBACK in str(error):
                raise _missing_provider(provider, ort.get_available_providers()) from error
            raise InputError(
                "E0303",
                "ONNX Runtime cannot load the model",
                where=str(model),
                why=str(error)[:500],
            ) from error
        if self._session.get_providers()[0] != provider:
            raise _missing_provider(provider, self._session.get_providers())
        self._model = model
        self.runtime = f"onnxruntime {ort.__version__}"
        self.provider = provider
        self.inputs = tuple(_spec(value) for value in self._session.get_inputs())
        self.outputs = tuple(_spec(value) for value in self._session.get_outputs())
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, feed: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """One forward pass.

        Raises:
            UsageError: E0201, a name, dtype or shape is not what the model takes.
            InputError: E0303, an operator cannot do what the model asks of it.
        """
        require_fitting(self.inputs, feed)
        names = [spec.name for spec in self.outputs]
        try:
            return dict(zip(names, self._session.run(names, dict(feed))))
        except Exception as error:
            raise InputError(
                "E0303",
                "ONNX Runtime cannot run the model",
                where=str(self._model),
                why=str(error)[:500],
            ) from error

    def end_profile(self) -> Path:
        """Write the profile, and say where."""
        return Path(self._session.end_profiling())


def providers() -> Tuple[str, ...]:
    """The execution providers of the ONNX Runtime installed here.

    Raises:
        MachineError: E0401, ONNX Runtime is not there.
    """
    return tuple(_onnxruntime("listing providers").get_available_providers())


def _options(ort: Any, provider: str) -> Any:
    """What holds for every session on a provider."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if overflows(cpu_flags()):
        # Kernels that do not overflow; where there is VNNI they would be three times as slow.
        options.add_session_config_entry("session.x64quantprecision", "1")
    if provider != "CPUExecutionProvider":
        # A node that quietly ran on the CPU would be measured as if it had not.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def require_provider(provider: str) -> Any:
    """ONNX Runtime's module, if it has that provider.

    Raises:
        MachineError: E0401 or E0402, ONNX Runtime or the provider is not there.
    """
    ort = _onnxruntime("running a model")
    available = ort.get_available_providers()
    if provider not in available:
        raise _missing_provider(provider, available)
    return ort


def _onnxruntime(purpose: str) -> Any:
    # Official builds since 1.31 write a device id into the home and report to their maker from
    # Linux too, unless this is said before the import. Who wants it may set 0.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return require("onnxruntime", extra="cpu", purpose=purpose)


def _missing_provider(provider: str, available: Sequence[str]) -> MachineError:
    return MachineError(
        "E0402",
        f"ONNX Runtime has no {provider} here that works and takes the whole model",
        where=f"available: {', '.join(available)}",
        why="running on another provider would give other numbers under this one's name",
        hint="convexport doctor tells what this machine can run",
    )


def _spec(value: Any) -> TensorSpec:
    # An unnamed free dimension comes as None; it is given the name of its place.
    shape = tuple(
        dim if isinstance(dim, (int, str)) else f"dim{axis}" for axis, dim in enumerate(value.shape)
    )
    return TensorSpec(value.name, shape, _DTYPES.get(value.type, value.type))
