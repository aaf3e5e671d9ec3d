"""The names of ImageNet's thousand classes.

``imagenet_classes.txt`` has one name a line in the order of the classifier's outputs (that of the
sorted WordNet synset ids of ILSVRC 2012). Source: the metadata of torchvision 0.28, BSD-3-Clause;
the names are lemmas of WordNet synsets.
"""

from __future__ import annotations

from pathlib import Path

from convexport.architectures.variant import Variant

_CLASSES = 1000


def labels_of(variant: Variant, num_classes: int) -> tuple[str, ...]:
    """The class names of a net for ImageNet; empty where the classes are anything else."""
    if variant.num_classes != _CLASSES or num_classes != _CLASSES:
        return ()
    text = Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
