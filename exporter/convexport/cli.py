"""The command line: a table of commands, imported when they are called, and errors → exit codes."""

from __future__ import annotations

import importlib
import io
import json
import signal
import sys
import traceback
import warnings
from typing import Any

import click

import convexport
from convexport.runtime.errors import ConvexportError, did_you_mean

# Command -> where it lives and its line in --help, so that help imports none of them.
COMMANDS = {
    "list": ("convexport.exporter.commands:list_", "The zoo: parameters, MACs, input, weights."),
    "show": ("convexport.exporter.commands:show", "One net: facts, layer table, weights."),
    "build": ("convexport.exporter.commands:build", "Build a bundle for a model and a target."),
    "verify": (
        "convexport.exporter.verify_command:verify",
        "Parity and accuracy of a bundle, here.",
    ),
    "merge": ("convexport.exporter.verify_command:merge", "Parts of a verification to a whole."),
    "bench": ("convexport.exporter.bench_commands:bench", "Latency of bundles, side by side."),
    "run": ("convexport.exporter.commands:run", "Classify images with a bundle."),
    "report": (
        "convexport.exporter.report_commands:report",
        "A page of what bundles measured, and its check.",
    ),
    "inspect": ("convexport.exporter.commands:inspect", "What is inside a bundle or an ONNX file."),
    "diagnose": ("convexport.exporter.commands:diagnose", "Which layers INT8 hurts, how much."),
    "limits": (
        "convexport.exporter.limits_command:limits",
        "Where the time goes, and how near to the machine's limit.",
    ),
    "doctor": (
        "convexport.exporter.commands:doctor",
        "What this machine can do, and what is missing.",
    ),
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order in which a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the closest names where there is none."""
        if args and args[0] not in COMMANDS:
            hint = did_you_mean(args[0], COMMANDS)
            ctx.fail(f"No such command {args[0]!r}." + (f" {hint.capitalize()}" if hint else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table above, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(convexport.__version__, prog_name="convexport")
def cli() -> None:
    """Put convnets onto edge and server runtimes, with numbers that can be trusted.

    \b
    convexport build resnet50 --int8          from PyTorch to a checked INT8 bundle
    convexport bench resnet50-int8-cpu        how fast it is on this machine
    convexport run resnet50-int8-cpu cat.jpg  use it

    Exit codes: 0 ok, 1 a bug of ours, 2 usage, 3 bad input, 4 this machine lacks something,
    5 a gate failed, 6 not supported, 7 busy, 8 disk, 130 interrupted.
    """


def main() -> None:
    """Run the command line and exit with one of the fixed codes."""
    # A plain kill ends like Ctrl-C does: temporary files are removed on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a poor terminal shows what it can
    # For a user, and without what a bundle's name might do to the terminal.
    warnings.formatwarning = lambda message, *_: printable(f"warning: {message}\n")
    sys.exit(_run())


def _run() -> int:
    try:
        result = cli.main(standalone_mode=False)
        return result if isinstance(result, int) else 0
    except ConvexportError as error:
        return _fail(error)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; nothing half-written was left", err=True)
        return 130
    except Exception:
        traceback.print_exc()
        click.echo(
            "this is a bug of ours: please report it with convexport doctor --json", err=True
        )
        return 1


def _fail(error: ConvexportError) -> int:
    if "--json" in sys.argv[1:]:
        click.echo(json.dumps({"error": error.to_dict()}), err=True)
    else:
        click.echo(printable(f"error: {error}"), err=True)
    return error.exit_code


def printable(text: Any) -> str:
    """Text of strangers, without the control characters that would steer a terminal."""
    return "".join(
        char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}"
        for char in str(text)
    )
