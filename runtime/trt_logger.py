"""What TensorRT says while it works: kept, so that an error can be told in its words."""

from __future__ import annotations

import functools
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


def fresh_logger(trt: Any) -> Any:
    """The process's logger for TensorRT, its lists ``errors`` and ``warnings`` empty: they keep the
    last of each.

    TensorRT keeps a bare pointer to the first logger that it is given: there is one, for good. It
    passes everything on to Python's ``logging``, below ``convexport.tensorrt``.
    """
    logger = _logger(trt)
    logger.errors, logger.warnings = [], []
    return logger


@functools.lru_cache(maxsize=None)
def _logger(trt: Any) -> Any:

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
