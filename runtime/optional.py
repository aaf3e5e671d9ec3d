"""Heavy or optional packages are imported where they are needed, and through here alone."""

from __future__ import annotations

import importlib
from typing import Any

from convexport.runtime.errors import MachineError

_NAMES = {"PIL": "pillow"}  # what pip calls a package that is imported under another name


def require(module: str, *, purpose: str, extra: str = "") -> Any:
    """Import ``module``, or say which extra brings it; without one it is a package by itself.

    Raises:
        MachineError: E0401, it is not installed or does not load.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # the latter: a library that it loads is not there
        package = module.split(".")[0]
        wanted = f"'convexport[{extra}]'" if extra else _NAMES.get(package, package)
        raise MachineError(
            "E0401",
            f"{purpose} needs the package {package}, which does not import here",
            why=str(error),
            hint=f"pip install {wanted}",
        ) from error
