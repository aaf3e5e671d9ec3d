"""Putting the tensors of a checkpoint into a net: all of them, or none with a reason."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from convexport.architectures.layers import last_linear
from convexport.runtime.errors import InputError

State = dict[str, torch.Tensor]

_CONVERTIBLE = (torch.float16, torch.bfloat16, torch.float64)
# A counter that inference never reads and that files from before 2018 do not have.
_COUNTER = "num_batches_tracked"


def load_state(module: nn.Module, state: State, *, name: str) -> tuple[str, ...]:
    """Load a state dict strictly, as float32.

    Args:
        module: filled in place; its tensors must be real, their values may be anything.
        state: tensors by the names of the module's own.
        name: of the file, for messages.

    Returns:
        Notes on what was converted or filled in.

    Raises:
        InputError: E0328, keys are missing or unknown; E0329, another number of classes; E0330,
            other shapes; E0331, a dtype that cannot be meant; E0332, NaN or infinity.
    """
    own = module.state_dict()
    state, filled = _with_counters(state, own)
    _check_keys(state, own, name)
    _check_classes(module, state, name)
    _check_shapes(state, own, name)
    _check_dtypes(state, own, name)
    converted = {key: value.to(own[key].dtype) for key, value in state.items()}
    _check_finite(converted, name)
    module.load_state_dict(converted, strict=True)
    narrowed = sorted({str(v.dtype) for v in state.values() if v.dtype in _CONVERTIBLE})
    notes = [f"converted {', '.join(narrowed)} to torch.float32"] if narrowed else []
    if filled:
        notes.append(f"{filled} missing {_COUNTER} set to 0; inference does not read them")
    return tuple(notes)


def _with_counters(state: State, own: State) -> tuple[State, int]:
    missing = {k: torch.zeros_like(v) for k, v in own.items() if k.endswith(_COUNTER)}
    missing = {key: value for key, value in missing.items() if key not in state}
    return {**state, **missing}, len(missing)


def _check_keys(state: State, own: State, name: str) -> None:
    missing = [key for key in own if key not in state]
    extra = [key for key in state if key not in own]
    if missing or extra:
        raise InputError(
            "E0328",
            f"{name} is for another net: {len(missing)} tensors missing, {len(extra)} unknown",
            where=f"missing: {_first(missing)}; unknown: {_first(extra)}",
            why=f"the net has {len(own)} tensors, the file {len(state)}",
            hint="check the architecture's name; names must be those of torchvision or timm",
        )


def _check_classes(module: nn.Module, state: State, name: str) -> None:
    path, classifier = last_linear(module)
    weight = state[f"{path}.weight"]
    want = classifier.out_features
    if weight.dim() == 2 and weight.shape[1] == classifier.in_features and len(weight) != want:
        raise InputError(
            "E0329",
            f"{name} has {len(weight)} classes, the net was to have {want}",
            where=f"{path}.weight",
            hint=f"--classes {len(weight)}",
        )


def _check_shapes(state: State, own: State, name: str) -> None:
    odd = [key for key in own if state[key].shape != own[key].shape]
    if odd:
        pairs = [f"{key} {_size(state[key])} for {_size(own[key])}" for key in odd]
        raise InputError(
            "E0330",
            f"{name} is for another net: {len(odd)} tensors have another shape",
            where=_first(pairs),
            hint="check the architecture's name and the number of input channels",
        )


def _check_dtypes(state: State, own: State, name: str) -> None:
    odd = [key for key in own if not _fits(state[key], own[key])]
    if odd:
        pairs = [f"{key} {state[key].dtype} {state[key].layout}" for key in odd]
        raise InputError(
            "E0331",
            f"{name} holds {len(odd)} tensors whose dtype is not one of trained weights",
            where=_first(pairs),
            why="quantized or sparse weights have lost what a conversion starts from",
            hint="give the float32, float16, bfloat16 or float64 weights",
        )


def _fits(value: torch.Tensor, own: torch.Tensor) -> bool:
    if value.layout != torch.strided or value.is_quantized:
        return False
    if own.is_floating_point():
        return value.dtype in (torch.float32, *_CONVERTIBLE)
    return value.dtype in (torch.int64, torch.int32)


def _check_finite(state: State, name: str) -> None:
    bad = {
        key: value.numel() - int(value.isfinite().sum())
        for key, value in state.items()
        if value.is_floating_point()
    }
    bad = {key: count for key, count in bad.items() if count}
    if bad:
        raise InputError(
            "E0332",
            f"{name} holds NaN or infinity in {len(bad)} tensors, {sum(bad.values())} values",
            where=_first([f"{key} ({count})" for key, count in bad.items()]),
            why="every output of the net would be NaN; in float64, values may exceed float32",
        )


def _first(names: Sequence[str], count: int = 5) -> str:
    shown = ", ".join(ascii(name)[1:-1][:100] for name in names[:count])
    return shown + (", ..." if len(names) > count else "") if names else "none"


def _size(tensor: torch.Tensor) -> str:
    return "x".join(str(dim) for dim in tensor.shape) or "scalar"
