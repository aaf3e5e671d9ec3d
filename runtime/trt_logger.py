"""What TensorRT says while it works: kept, so that an error can be told in its words."""

from __future__ import annotations

import logging
from typing import Any, List

_LOG = logging.getLogger("convexport.tensorrt")
_LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.INFO,
    "VERBOSE": logging.DEBUG,
}
_KEPT = 20


def new_logger(trt: Any) -> Any:
    """A logger for TensorRT with the lists ``errors`` and ``warnings``: the last of each.

    It passes everything on to Python's ``logging``, below ``convexport.tensorrt``.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]  # the class is only known once it is imported
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: List[str] = []
            self.warnings: List[str] = []

        def log(self, severity: Any, msg: str) -> None:
            name = getattr(severity, "name", "INFO")
            if name.endswith("ERROR"):
                self.errors = [*self.errors, msg][-_KEPT:]
            elif name == "WARNING":
                self.warnings = [*self.warnings, msg][-_KEPT:]
            _LOG.log(_LEVELS.get(name, logging.INFO), "%s", msg)

    return Logger()
