"""From what was asked for (pretrained, digits, random, a file) to a net with those weights.

Two steps: ``resolve`` finds out what the weights are, with their hash and licence, without
building the net; ``load_module`` builds it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from convexport.architectures.checkpoint import read_checkpoint, require_file
from convexport.architectures.digits_weights import digits_facts, digits_file
from convexport.architectures.download import obtain
from convexport.architectures.ensemble import EnsembleConfig
from convexport.architectures.random_weights import random_module
from convexport.architectures.registry import create
from convexport.architectures.resolved import (
    SEED_DIGITS,
    ResolvedWeights,
    combined,
    preprocesses,
    requests_of,
)
from convexport.architectures.state import State, load_state, split_members
from convexport.architectures.variant import Shape, Variant
from convexport.runtime.errors import MachineError, UsageError, did_you_mean
from convexport.runtime.files import sha256_of

_WORDS = ("pretrained", "digits", "random")
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


def resolve(
    variant: Variant,
    request: str | None,
    *,
    offline: bool,
    cache_dir: Path,
    report: Callable[[str], None],
) -> ResolvedWeights:
    """Find the weights that were asked for, fetching them where that is needed.

    Args:
        variant: of which net.
        request: ``pretrained``, ``digits``, ``random``, ``random:SEED`` or a path. None takes
            the published ones, or random ones with a note that says why.
        offline: never open a socket.
        cache_dir: where downloads are kept.
        report: told what is being fetched.

    Raises:
        UsageError: E0222, the request is none of these; E0223, there are no digits weights for
            the variant.
        InputError: E0320, E0321, a path that leads to no file or to an empty one.
        MachineError: E0420 to E0425, pretrained weights were asked for and cannot be had.
        BusyError, StorageError: as ``download.obtain``.
    """
    if isinstance(variant.net, EnsembleConfig) and _is_word(request):
        seed = _seed(request) if request and request.startswith("random") else 0
        parts = [
            resolve(member.variant, wanted, offline=offline, cache_dir=cache_dir, report=report)
            for member, wanted in zip(
                variant.net.members, requests_of(variant.net, request, seed), strict=True
            )
        ]
        return combined(variant.net, parts)
    if request is None:
        return _default(variant, offline, cache_dir, report)
    if request == "pretrained":
        return _pretrained(variant, offline, cache_dir, report)
    if request == "digits":
        return _digits(variant)
    if _is_word(request):
        return _random(_seed(request))
    return _file(request)


def _is_word(request: str | None) -> bool:
    return request is None or request in _WORDS or request.startswith("random:")


def load_module(
    variant: Variant,
    resolved: ResolvedWeights,
    *,
    num_classes: int | None = None,
    shape: Shape | None = None,
    new_classifier: bool = False,
) -> tuple[nn.Module, tuple[str, ...]]:
    """The net with those weights in float32, in evaluation mode, without gradients.

    Args:
        variant: the one that the weights were resolved for.
        resolved: what ``resolve`` returned.
        num_classes: outputs; by default those of the weights, else of the variant.
        shape: channels, height, width of the input; by default likewise.
        new_classifier: where the file has other classes, take a random classifier instead.

    Returns:
        The module, and notes on what was unwrapped, stripped or converted.

    Raises:
        InputError: E0320 to E0332, the file cannot be used, or not for this net.
        UsageError: E0221, a number is below 1.
    """
    classes = resolved.num_classes if num_classes is None else num_classes
    shape = shape or resolved.input
    if isinstance(variant.net, EnsembleConfig):
        shape = shape or variant.input
        return _load_ensemble(variant, variant.net, resolved, classes, shape, new_classifier)
    if resolved.path is None:
        seed = resolved.seed or 0
        module = random_module(variant, seed, num_classes=classes, shape=shape)
        return module.requires_grad_(False), ()
    state, notes = read_checkpoint(resolved.path, expected_bytes=4 * variant.counts.params)
    module, more = _filled(variant, state, resolved.path.name, classes, shape, new_classifier)
    return module, notes + more


def _filled(
    variant: Variant,
    state: State,
    name: str,
    classes: int | None,
    shape: Shape | None,
    new_classifier: bool,
) -> tuple[nn.Module, tuple[str, ...]]:
    # On the meta device first: initialising what is overwritten takes seconds in a large net.
    with torch.device("meta"):
        module = create(variant.name, num_classes=classes, shape=shape)
    module = module.to_empty(device="cpu")
    classes = variant.num_classes if classes is None else classes
    notes = load_state(module, state, name=name, classes=classes, new_classifier=new_classifier)
    return module.eval().requires_grad_(False), notes


def _load_ensemble(
    variant: Variant,
    config: EnsembleConfig,
    resolved: ResolvedWeights,
    classes: int | None,
    shape: Shape,
    new_classifier: bool,
) -> tuple[nn.Module, tuple[str, ...]]:
    members = [member.variant for member in config.members]
    shapes = [(shape[0], *member.input[1:]) for member in members]
    told: tuple[str, ...] = ()
    if resolved.path is None:
        loaded = [
            load_module(
                member,
                part,
                num_classes=classes,
                shape=(shape[0], *(part.input or own)[1:]),
                new_classifier=new_classifier,
            )
            for member, part, own in zip(members, resolved.parts, shapes, strict=True)
        ]
        specs = preprocesses(config, resolved.parts)
    else:
        state, told = read_checkpoint(resolved.path, expected_bytes=4 * variant.counts.params)
        states = split_members(state, len(members), resolved.path.name)
        loaded = [
            _filled(member, part, resolved.path.name, classes, own, new_classifier)
            for member, part, own in zip(members, states, shapes, strict=True)
        ]
        specs = [member.preprocess for member in members]
    module = config.assemble([each for each, _ in loaded], specs, shape)
    notes = [
        f"{member.name}: {note}"
        for member, (_, each) in zip(members, loaded, strict=True)
        for note in each
    ]
    return module.eval().requires_grad_(False), (*told, *notes)


def _default(
    variant: Variant, offline: bool, cache_dir: Path, report: Callable[[str], None]
) -> ResolvedWeights:
    try:
        return _pretrained(variant, offline, cache_dir, report)
    except MachineError as error:
        note = f"RANDOM WEIGHTS: {error.what}; the outputs mean nothing, only speed and size do"
        return replace(_random(0), notes=(note,))


def _pretrained(
    variant: Variant, offline: bool, cache_dir: Path, report: Callable[[str], None]
) -> ResolvedWeights:
    if not variant.published:
        raise MachineError(
            "E0424",
            f"nobody publishes weights for {variant.name} that are known here",
            hint="--weights FILE with your own, or --weights random",
        )
    weights = variant.published[0]
    path, sha256 = obtain(weights, cache_dir=cache_dir, offline=offline, report=report)
    return ResolvedWeights(
        kind="pretrained",
        source=f"{weights.source} {weights.name}, {weights.url}",
        path=path,
        seed=None,
        sha256=sha256,
        licence=weights.licence,
    )


def _digits(variant: Variant) -> ResolvedWeights:
    path = digits_file(variant)
    facts = digits_facts(path)
    return ResolvedWeights(
        kind="digits",
        source=f"convexport digits/{path.name}",
        path=path,
        seed=None,
        sha256=sha256_of(path),
        licence=facts.licence,
        notes=(facts.note,),
        num_classes=len(facts.labels),
        input=facts.preprocess.shape,
        preprocess=facts.preprocess,
        labels=facts.labels,
    )


def _random(seed: int) -> ResolvedWeights:
    return ResolvedWeights(
        kind="random",
        source=f"random weights, seed {seed}",
        path=None,
        seed=seed,
        sha256=hashlib.sha256(f"random:{seed}".encode()).hexdigest(),
        licence="",
    )


def _seed(request: str) -> int:
    digits = request.removeprefix("random").removeprefix(":") if ":" in request else "0"
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= SEED_DIGITS):
        raise UsageError(
            "E0222",
            f"{request[:80]!r} has no seed that is a whole number of up to {SEED_DIGITS} digits",
            hint="random or random:SEED",
        )
    return int(digits)


def _file(request: str) -> ResolvedWeights:
    path = Path(request)
    if not ("/" in request or path.suffix in _SUFFIXES or _exists(path)):
        raise UsageError(
            "E0222",
            f"--weights {request[:80]!r} is neither a known word nor a file",
            hint=did_you_mean(request, _WORDS, otherwise=f"{', '.join(_WORDS)}, or a path"),
        )
    require_file(path)
    return ResolvedWeights(
        kind="file",
        source=path.name,
        path=path,
        seed=None,
        sha256=sha256_of(path),
        licence="",
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long for a file
        return False
