"""The winner of ILSVRC 2016 as far as it was published: see ``architectures.ensemble``."""

from __future__ import annotations

from convexport.architectures.ensemble import Member, ensemble
from convexport.architectures.families import (
    inception_resnet,
    inception_v3,
    inception_v4,
    preact_resnet,
    resnet,
)
from convexport.architectures.variant import Paper

_MEMBERS = (
    "inception_v3",
    "inception_v4",
    "inception_resnet_v2",
    "preact_resnet200",
    "wide_resnet50_2",
)
_ROWS = {
    row.name: row
    for family in (inception_v3, inception_v4, inception_resnet, preact_resnet, resnet)
    for row in family.VARIANTS
}

_PAPER = Paper(
    2016,
    "Good Practices for Deep Feature Fusion (Trimps-Soushen at ILSVRC 2016)",
    "https://image-net.org/challenges/LSVRC/2016/results",
)

VARIANTS = (
    ensemble(
        "ensemble_ilsvrc2016",
        [Member(_ROWS[name]) for name in _MEMBERS],
        paper=_PAPER,
        notes="wide_resnet50_2 stands for the Wide ResNet-68 that was never published, and equal "
        "weights for theirs, among which Inception-ResNet-v2 counted more; ",
    ),
)
