"""convexport: put convnets onto edge and server runtimes, with numbers that can be trusted."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convexport.exporter.options import BuildOptions as BuildOptions
    from convexport.exporter.pipeline import build as build
    from convexport.runtime.engine import load as load

__version__ = "0.1.0"
__all__ = ["BuildOptions", "__version__", "build", "load"]

# Public name -> the module that holds it: nothing heavy is imported before it is used.
_LAZY = {
    "BuildOptions": "convexport.exporter.options",
    "build": "convexport.exporter.pipeline",
    "load": "convexport.runtime.engine",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'convexport' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
