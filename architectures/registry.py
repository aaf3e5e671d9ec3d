"""The zoo: every variant by its name, and the module that a name stands for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType

from torch import nn

from convexport.architectures import lenet, mobilenet, resnet
from convexport.architectures.variant import PublishedWeights as PublishedWeights
from convexport.architectures.variant import Variant as Variant
from convexport.runtime.errors import ConvexportError, UsageError, did_you_mean

_FAMILIES = (lenet.VARIANTS, resnet.VARIANTS, mobilenet.VARIANTS)


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
    """The variant of that name.

    Raises:
        UsageError: E0220, there is none.
    """
    known = variants()
    if name not in known:
        close = did_you_mean(name, known)
        raise UsageError(
            "E0220",
            f"no architecture is named {name[:80]!r}",
            hint=f"{close} convexport list shows all names".strip(),
        )
    return known[name]


def create(
    name: str, *, num_classes: int | None = None, in_channels: int | None = None
) -> nn.Module:
    """A module initialised as in its paper, in training mode.

    Args:
        name: of the variant.
        num_classes: outputs; the variant's own by default.
        in_channels: channels of the input; the variant's own by default.

    Raises:
        UsageError: E0220, there is no such variant; E0221, a number is below 1.
    """
    variant = find(name)
    classes = variant.num_classes if num_classes is None else num_classes
    channels = variant.input[0] if in_channels is None else in_channels
    if min(classes, channels) < 1:
        raise UsageError(
            "E0221",
            f"{name} cannot have {classes} classes and {channels} input channels",
            hint="both must be 1 or more",
        )
    return variant.net.module(classes, channels)
