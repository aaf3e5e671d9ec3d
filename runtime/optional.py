"""Heavy or optional packages are imported where they are needed, and through here alone."""

from __future__ import annotations

import importlib
from typing import Any

from convexport.runtime.errors import MachineError


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Import ``module``, or say which extra brings it.

    Raises:
        MachineError: E0401, it is not installed or does not load.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # the latter: a library that it loads is not there
        raise MachineError(
            "E0401",
            f"{purpose} needs the package {module.split('.')[0]}, which does not import here",
            why=str(error),
            hint=f"pip install 'convexport[{extra}]'",
        ) from error
