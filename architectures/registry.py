"""The zoo: every variant by its name, and the module that a name stands for."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import MappingProxyType

import torch
from torch import nn

from convexport.architectures.ensemble import EnsembleConfig, Member, ensemble
from convexport.architectures.families import (
    alexnet,
    bn_inception,
    densenet,
    efficientnet,
    googlenet,
    ilsvrc2016,
    inception_resnet,
    inception_v3,
    inception_v4,
    lenet,
    mobilenet,
    mobilenet_v2,
    mobilenet_v3,
    nin,
    preact_resnet,
    resnet,
    senet,
    shift,
    squeezenet,
    vgg,
    zfnet,
)
from convexport.architectures.layers import output_shape
from convexport.architectures.variant import Shape, Variant
from convexport.runtime.errors import ConvexportError, UsageError, did_you_mean

_FAMILIES = (
    lenet.VARIANTS,
    alexnet.VARIANTS,
    zfnet.VARIANTS,
    nin.VARIANTS,
    vgg.VARIANTS,
    googlenet.VARIANTS,
    bn_inception.VARIANTS,
    inception_v3.VARIANTS,
    resnet.VARIANTS,
    inception_v4.VARIANTS,
    inception_resnet.VARIANTS,
    preact_resnet.VARIANTS,
    densenet.VARIANTS,
    squeezenet.VARIANTS,
    senet.VARIANTS,
    mobilenet.VARIANTS,
    mobilenet_v2.VARIANTS,
    mobilenet_v3.VARIANTS,
    efficientnet.VARIANTS,
    ilsvrc2016.VARIANTS,
    shift.VARIANTS,
)


@cache
def variants() -> Mapping[str, Variant]:
    """Every variant by its name, family after family."""
    return by_name(variant for family in _FAMILIES for variant in family)


def by_name(rows: Iterable[Variant]) -> Mapping[str, Variant]:
    """The rows under their names.

    Raises:
        ConvexportError: E0120, two rows have the same name.
    """
    found: dict[str, Variant] = {}
    for row in rows:
        if row.name in found:
            raise ConvexportError("E0120", f"two variants are named {row.name}")
        found[row.name] = row
    return MappingProxyType(found)


def find(name: str) -> Variant:
    """The variant of that name; ``one+other*2`` is an ensemble of two, the second counting twice.

    Raises:
        UsageError: E0220, there is none; E0225, a weight is no positive number; E0226, the
            members differ in classes or channels.
    """
    if "+" in name:
        return _ensemble(name)
    known = variants()
    if name not in known:
        close = did_you_mean(name, known)
        raise UsageError(
            "E0220",
            f"no architecture is named {name[:80]!r}",
            hint=f"{close} convexport list shows all names".strip(),
        )
    return known[name]


def _ensemble(name: str) -> Variant:
    members = []
    for part in name.split("+"):
        variant, star, weight = part.partition("*")
        members.append(Member(find(variant), _weight(part, weight) if star else 1.0))
    for member in members:
        if isinstance(member.variant.net, EnsembleConfig) or not member.variant.num_classes:
            raise UsageError(
                "E0226",
                f"{member.variant.name} cannot be a member of an ensemble",
                hint="name single nets: convexport show names the members of an ensemble",
            )
    kinds = {(m.variant.num_classes, m.variant.input[0]): m.variant.name for m in members}
    if len(kinds) > 1:
        told = ", ".join(
            f"{member} has {classes} classes and {channels} channels"
            for (classes, channels), member in kinds.items()
        )
        raise UsageError("E0226", "the members of an ensemble must agree", where=told)
    weights = [member.weight for member in members]
    if min(weights) < 1e-6 * max(weights):
        raise UsageError("E0225", "a member weighs less than a millionth: leave it out")
    return ensemble(name, members)


def _weight(part: str, text: str) -> float:
    plain = re.fullmatch(r"[0-9]*\.?[0-9]+(e[-+]?[0-9]+)?", text, re.ASCII)
    weight = float(text) if plain else math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise UsageError(
            "E0225", f"{part[:80]!r} has no weight above 0", hint="as in resnet50*2: NAME*WEIGHT"
        )
    return weight


def create(name: str, *, num_classes: int | None = None, shape: Shape | None = None) -> nn.Module:
    """A module initialised as its family says, in training mode, with its auxiliary heads.

    Args:
        name: of the variant.
        num_classes: outputs; the variant's own by default.
        shape: channels, height, width of its images; the variant's own by default.

    Raises:
        UsageError: E0220, there is no such variant; E0221, a number is below 1; E0224, the
            net does not work at that size.
    """
    variant = find(name)
    classes = variant.num_classes if num_classes is None else num_classes
    if min(classes if variant.num_classes else 1, *(shape or variant.input)) < 1:
        raise UsageError(
            "E0221",
            f"{name} cannot have {classes} classes for images {_text(shape or variant.input)}",
            hint="all numbers must be 1 or more",
        )
    if shape is not None:
        require_size(variant, shape)
    return variant.net.module(classes, shape or variant.input)


def require_size(variant: Variant, shape: Shape) -> None:
    """Refuse images of a size for which the net does not work.

    Raises:
        UsageError: E0224, with the smallest size that works.
    """
    if shape[1:] == variant.input[1:] or _fits(variant, shape):
        return
    least = smallest_side(variant)
    why = "a layer would be left without a single pixel"
    if min(shape[1:]) >= least:
        why = "its layers fit together at some sizes only"
    raise UsageError(
        "E0224",
        f"{variant.name} does not take images {_text(shape)}",
        why=why,
        hint=f"the smallest square is {least}x{least}, its own size {_text(variant.input)}",
    )


def smallest_side(variant: Variant) -> int:
    """The side of the smallest square images that the net can take."""

    def fits(side: int) -> bool:
        return _fits(variant, (variant.input[0], side, side))

    least = _first(fits, 1, max(variant.input[1:]))
    # Some nets take only sides that can be halved so often, and not all above some size.
    for side in range(32, least, 32):
        if fits(side):
            return _first(fits, side - 31, side)
    return least


def _first(fits: Callable[[int], bool], low: int, high: int) -> int:
    """The first number up to ``high`` that fits, if all fit that are larger than one that does."""
    while low < high:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _fits(variant: Variant, shape: Shape) -> bool:
    """Whether the net has at least one pixel everywhere; nothing is computed."""
    try:
        with torch.device("meta"):
            module = variant.net.module(variant.num_classes, shape)
        output_shape(module.eval(), shape)
    except (RuntimeError, ValueError):
        return False
    return True


def _text(shape: Shape) -> str:
    return "x".join(str(size) for size in shape)
