"""The three most probable labels of an image; then a batch of two, by hand."""

import sys
from pathlib import Path

import numpy as np

import convexport
from convexport.runtime.errors import ConvexportError
from convexport.runtime.preprocess import preprocess


def main() -> int:
    """Print both, or what is wrong; the exit code."""
    if len(sys.argv) != 3:
        print("usage: classify.py BUNDLE IMAGE", file=sys.stderr)
        return 2
    bundle, image = map(Path, sys.argv[1:])
    try:
        engine = convexport.load(bundle)
        for label, probability in engine.classify([image], top=3)[0]:
            print(f"{label} {probability:.4f}")
        # The same by hand: an image as a CxHxW array, and two of them as one batch.
        pixels = preprocess(image, engine.manifest.preprocess)
        logits = engine(np.stack([pixels, pixels]))
        print("logits", "x".join(map(str, logits.shape)))
    except ConvexportError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


sys.exit(main())
