"""Trained weights that others publish: where they lie, their hash, what they are said to reach.

Source: torchvision 0.28, BSD-3-Clause. Only the first eight digits of a hash are published, in
the file's name; the full ones are quoted from public records of the same files.
"""

from __future__ import annotations

from convexport.architectures.variant import PublishedWeights

# Variant: SHA-256, top-1 and top-5 of the weights IMAGENET1K_V1.
_IMAGENET1K_V1 = {
    "resnet18": (
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
        69.758,
        89.078,
    ),
    "resnet34": ("b627a593", 73.314, 91.420),
    "resnet50": (
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        76.130,
        92.862,
    ),
    "resnet101": (
        "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
        77.374,
        93.546,
    ),
    "resnet152": ("394f9c45", 78.312, 94.046),
    "resnext50_32x4d": ("7cdf4587", 77.618, 93.698),
    "resnext101_32x8d": ("8ba56ff5", 79.312, 94.526),
    "resnext101_64x4d": ("173b62eb", 83.246, 96.454),
    "wide_resnet50_2": ("95faca4d", 78.468, 94.086),
    "wide_resnet101_2": ("32ee1156", 78.848, 94.284),
}


def torchvision_weights(variant: str) -> tuple[PublishedWeights, ...]:
    """What torchvision publishes for the variant; empty where it publishes nothing."""
    if variant not in _IMAGENET1K_V1:
        return ()
    sha256, top1, top5 = _IMAGENET1K_V1[variant]
    return (
        PublishedWeights(
            name="IMAGENET1K_V1",
            url=f"https://download.pytorch.org/models/{variant}-{sha256[:8]}.pth",
            sha256=sha256,
            licence="BSD-3-Clause",
            top1=top1,
            top5=top5,
            source="torchvision",
        ),
    )
