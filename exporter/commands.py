"""The commands: parse, call one function of a room, print what it returns."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from convexport.exporter.trt_request import taken, trt_options
from convexport.runtime.errors import UsageError

JSON = click.option("--json", "as_json", is_flag=True, help="Print data alone, as JSON.")
_TARGETS = "cpu, openvino, cuda, tensorrt, jetson-jp5 to -jp7; auto: the fastest installed here."
BUNDLE = click.argument("bundle", type=click.Path(path_type=Path))


def shape(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """``3x224x224`` → (3, 224, 224)."""
    parts = [] if value is None else value.lower().split("x")
    if value is not None and (len(parts) != 3 or not all(part.isdecimal() for part in parts)):
        raise click.BadParameter(f"{value!r} is not of the form 3x224x224")
    return tuple(int(part) for part in parts) or None


def share(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """``0.5%`` or ``0.005`` → 0.005."""
    if value is None:
        return None
    number, percent, rest = value.partition("%")
    try:
        if rest.strip():
            raise ValueError
        return float(number) / (100 if percent else 1)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not of the form 0.5%") from None


@click.command("list")
@click.option("--family", help="Only this family.")
@JSON
def list_(family: str | None, as_json: bool) -> None:
    """The zoo: parameters, MACs, input, year, and weights that exist."""
    from convexport.exporter import zoo

    rows = zoo.listing(family)
    print_result(as_json, rows, lambda: zoo.listing_table(rows))


@click.command()
@click.argument("name")
@JSON
def show(name: str, as_json: bool) -> None:
    """One net: facts, paper, weights and its layer table."""
    from convexport.exporter import zoo

    facts = zoo.description(name)
    print_result(as_json, facts, lambda: zoo.description_table(facts))


@click.command()
@click.argument("model")
@click.option("--fp32", "precision", flag_value="fp32", help="32-bit floats (the default).")
@click.option("--bf16", "precision", flag_value="bf16", help="16-bit floats of 8 bits (openvino).")
@click.option("--fp16", "precision", flag_value="fp16", help="16-bit floats where they hold.")
@click.option("--int8", "precision", flag_value="int8", help="8-bit integers, calibrated.")
@click.option("--target", default="cpu", show_default=True, help=_TARGETS)
@click.option("--weights", help="pretrained, digits, random[:SEED], or a checkpoint's path.")
@click.option("--calib", type=click.Path(path_type=Path), help="Directory of calibration images.")
@click.option("--calib-images", type=int, help="Use at most so many.  [default: 128]")
@click.option("--method", help="auto, minmax, percentile, entropy or mse.  [default: auto]")
@click.option("--percentile", type=float, help="Of magnitudes to cover.  [default: 99.999]")
@click.option("--repair", help="equalization,bias or none.  [default: equalization,bias]")
@click.option("--max-drop", metavar="SHARE", callback=share, help="Accuracy budget, as 0.5%.")
@click.option("--keep-fp32", multiple=True, metavar="NODE", help="Not in FP16; * for any part.")
@click.option("--parity-images", type=int, help="Compare on so many.  [default: 64]")
@click.option("--classes", type=int, help="Number of classes, where it is not the net's own.")
@click.option(
    "--new-classifier", is_flag=True, help="Random classifier where the checkpoint's has others."
)
@click.option("--input-shape", metavar="CxHxW", callback=shape, help="Other than the net's own.")
@click.option("--preprocess", type=click.Path(path_type=Path), help="JSON, for a net of your own.")
@click.option("--labels", type=click.Path(path_type=Path), help="Text file, one label a line.")
@trt_options
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The bundle's directory.")
@click.option("--force", is_flag=True, help="Replace the bundle that stands there.")
@click.option("--offline", is_flag=True, help="Open no connection.")
@click.option("--bench-seconds", type=float, default=10.0, show_default=True, help="0: no latency.")
@click.option(
    "--lock-timeout", type=float, default=600.0, show_default=True, help="Seconds to wait."
)
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Where stage results are kept.")
@JSON
def build(model: str, as_json: bool, **arguments: Any) -> None:
    """Build a bundle: MODEL is a name of `convexport list`, several for an ensemble
    (resnet50+mobilenet_v1*2), package.module:factory of your own nn.Module, or an .onnx file."""
    from convexport.exporter import summary
    from convexport.exporter.console import ConsoleEvents
    from convexport.exporter.pipeline import build as build_bundle

    events = ConsoleEvents()
    try:
        result = build_bundle(model, _build_options(**arguments), events=events)
    finally:
        events.close()
    print_result(as_json, summary.as_json(result), lambda: summary.as_text(result))


@click.command()
@BUNDLE
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1), default=5, show_default=True)
@JSON
def run(bundle: Path, images: tuple[Path, ...], top: int, as_json: bool) -> None:
    """Classify images."""
    from convexport.exporter import summary
    from convexport.runtime.engine import load

    engine = load(bundle)
    rows = [
        {"image": str(image), "top": [{"label": label, "probability": p} for label, p in answer]}
        for image, answer in zip(images, engine.classify(images, top), strict=True)
    ]
    print_result(as_json, rows, lambda: summary.answers_text(rows, engine.manifest))


@click.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--target", help="And what its TensorRT would say to it: tensorrt, jetson-jp5, ...")
@JSON
def inspect(path: Path, target: str | None, as_json: bool) -> None:
    """What is inside a bundle or an ONNX file."""
    from convexport.exporter import inspection

    facts = inspection.inspect(path, target)
    print_result(as_json, facts, lambda: inspection.as_text(facts))
    if facts.get("lint", {}).get("errors"):
        sys.exit(6)


@click.command()
@BUNDLE
@click.option("--top", type=click.IntRange(1), default=20, show_default=True, help="Layers shown.")
@click.option("--times", is_flag=True, help="Also measure each layer's time in FP32 and INT8.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw all layers, as .svg or .png.")
@JSON
def diagnose(bundle: Path, top: int, times: bool, plot: Path | None, as_json: bool) -> None:
    """Which layers of an INT8 bundle lose how much, what was tried, and what to do."""
    from convexport.exporter import diagnosis

    facts = diagnosis.diagnose(bundle, times=times)
    if plot is not None:
        diagnosis.plot(facts, plot)
    print_result(as_json, facts, lambda: diagnosis.as_text(facts, top=top))


@click.command()
@click.option("--cache-dir", type=click.Path(path_type=Path), help="The cache to look at.")
@JSON
def doctor(cache_dir: Path | None, as_json: bool) -> None:
    """What this machine can do, what is missing, and the exact fix."""
    from convexport.exporter import doctor as room

    findings = room.examine(cache_dir)
    print_result(as_json, [each.to_dict() for each in findings], lambda: room.as_text(findings))
    if room.failed(findings):
        sys.exit(4)


def _build_options(*, precision: Any, cache_dir: Path | None, **rest: Any) -> Any:
    from convexport.calibration.thresholds import Method
    from convexport.exporter.options import BuildOptions

    any_precision = not precision and rest["target"] == "auto"
    if precision not in ("int8", "fp16") and not any_precision:
        observing = {name: rest[name] for name in ("calib", "calib_images")}
        _refuse_given(observing, "--int8 or --fp16", "nothing else observes images")
    if precision != "int8" and not any_precision:
        names = ("method", "percentile", "repair", "max_drop")
        _refuse_given({name: rest[name] for name in names}, "--int8", "nothing else quantizes")
    if precision != "fp16":
        kept = {"keep_fp32": rest["keep_fp32"] or None}
        _refuse_given(kept, "--fp16", "the rest is FP32 or INT8")
    if rest["method"] != "percentile":
        chosen = rest["method"] or "auto"
        _refuse_given(
            {"percentile": rest["percentile"]}, "--method percentile", f"{chosen} has none"
        )
    method = _given(name=rest.pop("method"), percentile=rest.pop("percentile"))
    repair = rest.pop("repair")
    if repair is not None:
        repair = () if repair == "none" else tuple(part.strip() for part in repair.split(","))
    return BuildOptions(
        precision=precision,
        method=Method(**method),
        tensorrt=taken(rest),
        **_given(
            cache_dir=cache_dir,
            repair=repair,
            calib_images=rest.pop("calib_images"),
            parity_images=rest.pop("parity_images"),
        ),
        **rest,
    )


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given; the others keep their defaults."""
    return {name: value for name, value in options.items() if value is not None}


def _refuse_given(options: dict[str, Any], needed: str, why: str) -> None:
    for name in _given(**options):
        flag = f"--{name.replace('_', '-')}"
        hint = f"add {needed}, or leave {flag} out"
        raise UsageError("E0284", f"{flag} is for {needed}", why=why, hint=hint)


def print_result(as_json: bool, data: Any, text: Any) -> None:
    """Data as JSON, or whatever ``text()`` gives to a person."""
    if as_json:
        rendered = json.dumps(data, indent=2, allow_nan=False) + "\n"
    else:
        from convexport.exporter.console import console

        terminal = console()
        with terminal.capture() as captured:
            terminal.print(text(), crop=False)
        rendered = captured.get()
    try:
        click.echo(rendered, nl=False)
    except BrokenPipeError:
        # The reader went away, as `head` does. Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
