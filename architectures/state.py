"""Putting the tensors of a checkpoint into a net: all of them, or none with a reason."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from convexport.architectures.layers import auxiliary_heads, classifier, drop_auxiliary_heads
from convexport.runtime.errors import InputError

State = dict[str, torch.Tensor]

_CONVERTIBLE = (torch.float16, torch.bfloat16, torch.float64)
# A counter that inference never reads and that files from before 2018 do not have.
_COUNTER = "num_batches_tracked"


def load_state(
    module: nn.Module,
    state: State,
    *,
    name: str,
    classes: int | None = None,
    new_classifier: bool = False,
) -> tuple[str, ...]:
    """Load a state dict strictly, as float32, for inference: auxiliary heads are left out.

    Args:
        module: filled in place; its tensors must be real, their values may be anything. It may
            say in ``legacy_keys`` which names (regular expressions) older files have instead.
        state: tensors by the names of the module's own.
        name: of the file, for messages.
        classes: outputs of the net; by default those of its last layer.
        new_classifier: a classifier for another number of classes is replaced by a random one.

    Returns:
        Notes on what was left out, converted or filled in.

    Raises:
        InputError: E0328, keys are missing or unknown; E0329, another number of classes; E0330,
            other shapes; E0331, a dtype that cannot be meant; E0332, NaN or infinity; E0333, a
            new classifier for the same classes.
    """
    state, notes = _without_auxiliary(module, state)
    state = _renamed(state, getattr(module, "legacy_keys", ()))
    own = module.state_dict()
    state, filled = _with_counters(state, own)
    _check_keys(state, own, name)
    notes += _fitted_classes(module, state, name, classes, new_classifier)
    _check_shapes(state, own, name)
    _check_dtypes(state, own, name)
    converted = {key: value.to(own[key].dtype) for key, value in state.items()}
    _check_finite(converted, name)
    module.load_state_dict(converted, strict=True)
    narrowed = sorted({str(v.dtype) for v in state.values() if v.dtype in _CONVERTIBLE})
    if narrowed:
        notes.append(f"converted {', '.join(narrowed)} to torch.float32")
    if filled:
        notes.append(f"{filled} missing {_COUNTER} set to 0; inference does not read them")
    return tuple(notes)


def _without_auxiliary(module: nn.Module, state: State) -> tuple[State, list[str]]:
    """The state without the heads that only training uses; they are removed from the module."""
    heads = auxiliary_heads(module)
    drop_auxiliary_heads(module)
    prefixes = tuple(f"{head}." for head in heads)
    kept = {key: value for key, value in state.items() if not key.startswith(prefixes)}
    if len(kept) == len(state):
        return state, []
    return kept, [f"left out {', '.join(heads)}, which only training uses"]


def _renamed(state: State, legacy_keys: Sequence[tuple[str, str]]) -> State:
    for pattern, replacement in legacy_keys:
        state = {re.sub(pattern, replacement, key): value for key, value in state.items()}
    return state


def _with_counters(state: State, own: State) -> tuple[State, int]:
    missing = {k: torch.zeros_like(v) for k, v in own.items() if k.endswith(_COUNTER)}
    missing = {key: value for key, value in missing.items() if key not in state}
    return {**state, **missing}, len(missing)


def split_members(state: State, count: int, name: str) -> list[State]:
    """The state dicts of an ensemble's members, stored under ``members.0.`` and so on.

    Raises:
        InputError: E0328, a name is under none of them.
    """
    parts: list[State] = [{} for _ in range(count)]
    strangers = []
    for key, value in state.items():
        word, _, rest = key.partition(".")
        number, _, inner = rest.partition(".")
        if word == "members" and number.isdecimal() and int(number) < count:
            parts[int(number)][inner] = value
        else:
            strangers.append(key)
    if strangers:
        raise InputError(
            "E0328",
            f"{name} is for another net: {len(strangers)} tensors are of no member",
            where=_first(strangers),
            hint=f"names begin with members.0. to members.{count - 1}.",
        )
    return parts


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


def _fitted_classes(
    module: nn.Module, state: State, name: str, classes: int | None, new_classifier: bool
) -> list[str]:
    """Replace the classifier if that was asked for; notes on it."""
    ours = classes or len(classifier(module)[1].weight)
    wrong = _OtherClasses.of(module, state, ours)
    if wrong is None and new_classifier:
        raise InputError(
            "E0333",
            f"{name} is for {ours} classes already: there is no classifier to replace",
            hint="leave --new-classifier out, or give the other number with --classes",
        )
    if wrong is None:
        return []
    if not (new_classifier and wrong.replaceable):
        raise wrong.error(name, new_classifier)
    return [_replace_classifier(module, state, wrong.theirs)]


@dataclass(frozen=True)
class _OtherClasses:
    """A file for another number of classes.

    Attributes:
        ours: classes that the net was to have.
        theirs: classes of the file.
        tensors: the names of those that differ.
        replaceable: only the last layer depends on the classes.
    """

    ours: int
    theirs: int
    tensors: list[str]
    replaceable: bool

    @classmethod
    def of(cls, module: nn.Module, state: State, ours: int) -> _OtherClasses | None:
        """Where all that differs is the classes: nothing but a dimension of that size."""
        own = module.state_dict()
        odd = [key for key in own if own[key].shape != state[key].shape]
        pairs = {
            pair
            for key in odd
            for pair in itertools.zip_longest(own[key].shape, state[key].shape)
            if pair[0] != pair[1]
        }
        # A bias alone is no classifier.
        if len(pairs) != 1 or all(own[key].dim() == 1 for key in odd):
            return None
        ((mine, theirs),) = pairs
        if mine != ours or theirs is None:
            return None
        path, _ = classifier(module)
        return cls(ours, theirs, odd, set(odd) <= {f"{path}.weight", f"{path}.bias"})

    def error(self, name: str, new_classifier: bool) -> InputError:
        """What to tell, with ``--new-classifier`` where that would help."""
        hint = f"--classes {self.theirs}"
        if self.replaceable:
            hint += ", or --new-classifier for a random one that is yet to be trained"
        return InputError(
            "E0329",
            f"{name} has {self.theirs} classes, the net was to have {self.ours}",
            where=_first(self.tensors),
            why="several layers depend on that, not only the last" if new_classifier else "",
            hint=hint,
        )


def _replace_classifier(module: nn.Module, state: State, classes: int) -> str:
    """Put random values (variance 1 / fan-in, seed 0) where the file's classifier was."""
    path, layer = classifier(module)
    generator = torch.Generator().manual_seed(0)
    fan_in = math.prod(layer.weight.shape[1:])
    state[f"{path}.weight"] = torch.randn(layer.weight.shape, generator=generator) / fan_in**0.5
    if layer.bias is not None:
        state[f"{path}.bias"] = torch.zeros(len(layer.weight))
    return (
        f"RANDOM CLASSIFIER: {path} of the file has {classes} classes, so a random one with "
        f"{len(layer.weight)} took its place; the answers mean nothing until it is trained"
    )


def _check_shapes(state: State, own: State, name: str) -> None:
    odd = [key for key in own if state[key].shape != own[key].shape]
    if odd:
        pairs = [f"{key} {_size(state[key])} for {_size(own[key])}" for key in odd]
        raise InputError(
            "E0330",
            f"{name} is for another net: {len(odd)} tensors have another shape",
            where=_first(pairs),
            hint="check the architecture's name, --input-shape and the number of channels",
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
