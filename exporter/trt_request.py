"""What a user may ask of a TensorRT engine, and the options that say so on the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import click

from convexport.runtime.trt_config import HARDWARE, TrtOptions


@dataclass(frozen=True, kw_only=True)
class TrtRequest:
    """Of an engine, next to its precision; checked when it becomes ``TrtOptions``, where each is
    described.

    Attributes:
        batch: smallest, usual and largest batch.
    """

    batch: tuple[int, int, int] = (1, 1, 8)
    workspace_mib: int | None = None
    level: int | None = None
    dla: int | None = None
    hardware: str = HARDWARE[0]
    version_compatible: bool = False
    refit: bool = False
    own_kernels: bool = False

    def options(
        self, precision: str, *, typed: bool, fp32_layers: tuple[str, ...] = ()
    ) -> TrtOptions:
        """For a graph of that precision.

        Args:
            typed: whether the graph carries its types.
            fp32_layers: nodes that FP16 cannot hold; a typed graph says so itself.

        Raises:
            UsageError: E0204, a value makes no sense.
        """
        kept = () if typed else fp32_layers
        return TrtOptions.of_graph(precision, typed, fp32_layers=kept, **asdict(self))


def sizes(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """``1:8:32`` → (1, 8, 32); ``8`` → (1, 8, 8)."""
    if value is None:
        return None
    parts = value.split(":")
    if len(parts) not in (1, 3) or not all(part.isdecimal() for part in parts):
        raise click.BadParameter(f"{value!r} is not of the form MIN:OPT:MAX")
    numbers = [int(part) for part in parts]
    return tuple(numbers) if len(numbers) == 3 else (1, numbers[0], numbers[0])


_OPTIONS = (
    click.option("--batch", metavar="MIN:OPT:MAX", callback=sizes, help="Of an engine. [1:1:8]"),
    click.option("--workspace-mib", type=int, help="Most memory that an engine's layer works in."),
    click.option("--level", type=int, help="How long TensorRT searches, 0 to 5."),
    click.option("--dla", type=int, metavar="CORE", help="Run on this DLA; the rest on the GPU."),
    click.option("--hardware", type=click.Choice(HARDWARE), help="Other GPUs an engine runs on."),
    click.option("--version-compatible", is_flag=True, default=None, help="Later TensorRTs too."),
    click.option("--refit", is_flag=True, default=None, help="Weights may be replaced later."),
    click.option("--own-kernels", is_flag=True, default=None, help="No cuBLAS, no cuDNN."),
)


def trt_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def taken(arguments: dict[str, Any]) -> TrtRequest | None:
    """Take the options out of a command's arguments; None where none was given."""
    found = {field.name: arguments.pop(field.name) for field in fields(TrtRequest)}
    given = {name: value for name, value in found.items() if value is not None}
    return TrtRequest(**given) if given else None
