"""A net of the zoo run by PyTorch itself, in FP32 and evaluation mode: a baseline, not a target."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convexport.runtime.errors import InputError, MachineError
from convexport.runtime.optional import require
from convexport.runtime.specs import TensorSpec, require_fitting

TORCH, COMPILED = "torch", "torch.compile"
_COMPILERS = ("g++", "c++", "clang++")


class TorchSession:
    """A net whose weights lie in a file, loaded into PyTorch on the CPU.

    Args:
        weights: a state_dict as ``torch.save`` writes it; nothing but tensors is read.
        net: ``name``, ``classes`` and ``shape`` of the architecture.
        runtime: ``torch``, or ``torch.compile`` with PyTorch's default settings.
        threads: intra-op threads, of the whole process.

    Raises:
        InputError: E0370, these are not the net's weights.
        MachineError: E0401, PyTorch is not there; E0463, there is no compiler.
    """

    provider = "CPU"

    def __init__(
        self, weights: Path, net: Mapping[str, Any], *, runtime: str, threads: int
    ) -> None:
        torch = require_torch(runtime)
        from convexport.architectures.layers import drop_auxiliary_heads
        from convexport.architectures.registry import create

        torch.set_num_threads(threads)
        channels, height, width = net["shape"]
        shape = (channels, height, width)
        with torch.device("meta"):
            module = create(net["name"], num_classes=net["classes"], shape=shape)
        module = drop_auxiliary_heads(module)  # as the weights, which are those of evaluation
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            module.load_state_dict(state, strict=True, assign=True)
        except Exception as error:  # PyTorch raises whatever its unpickler met
            what = f"these are not the weights of {net['name']}"
            raise InputError("E0370", what, where=str(weights), why=str(error)[:500]) from error
        module = module.eval().requires_grad_(False)
        self._torch = torch
        self._module = torch.compile(module) if runtime == COMPILED else module
        self.runtime = f"{runtime} {torch.__version__}"
        self.inputs = (TensorSpec("input", ("batch", *shape)),)
        self.outputs = (TensorSpec("logits", ("batch", int(net["classes"]))),)

    def run(self, feed: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """One forward pass.

        Raises:
            UsageError: E0201, a name, dtype or shape is not what the net takes.
        """
        require_fitting(self.inputs, feed)
        with self._torch.inference_mode():
            logits = self._module(self._torch.from_numpy(np.asarray(feed["input"])))
        array: npt.NDArray[Any] = logits.numpy()
        return {"logits": array}


def require_torch(runtime: str) -> Any:
    """PyTorch, and what ``torch.compile`` needs beside it.

    Raises:
        MachineError: E0401, PyTorch is not there; E0463, there is no compiler.
    """
    compilers = (os.environ.get("CXX", ""), *_COMPILERS)
    if runtime == COMPILED and not any(map(shutil.which, compilers)):
        raise MachineError(
            "E0463",
            "torch.compile finds no C++ compiler",
            where=f"tried $CXX, {', '.join(_COMPILERS)}",
            why="it writes C++ and compiles it here",
            hint="apt install g++, or --against torch",
        )
    return require("torch", extra="export", purpose="running the net in PyTorch")
