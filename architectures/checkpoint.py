"""Reading the tensors of a checkpoint from a file that nobody vouches for."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from convexport.architectures.archive import check_archive
from convexport.architectures.pickled import RESAVE, forbidden
from convexport.architectures.sniff import broken, kind_of, not_a_checkpoint, read_head
from convexport.architectures.state import State
from convexport.runtime.errors import InputError

# Where training scripts keep the weights among other things, in the order in which we look.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "ema")
# What DataParallel and torch.compile put before every name.
_PREFIXES = ("module.", "_orig_mod.")
_MAX_NESTING = 4


def read_checkpoint(path: Path, *, expected_bytes: int) -> tuple[State, tuple[str, ...]]:
    """The tensors of a .safetensors, .pth or .pt file by name, whatever it is called.

    Nothing that a file contains is executed.

    Args:
        path: of the file.
        expected_bytes: size in float32 of the net that it is meant for.

    Returns:
        The tensors as they are stored, and notes on what was unwrapped or stripped.

    Raises:
        InputError: E0320, there is no such file; E0321, it is empty; E0322, it is something
            else; E0323, it is cut or corrupt; E0324, it contains code or objects; E0325, it is
            an archive made to harm; E0326, it holds no state dict.
    """
    data = _load(path, require_file(path), expected_bytes)
    return _unwrap(path, data)


def require_file(path: Path) -> str:
    """What the file is, by its first bytes.

    Raises:
        InputError: E0320 or E0321.
    """
    try:
        if not path.is_file():
            raise FileNotFoundError(2, "not a file" if path.exists() else "no such file")
        head = read_head(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError("E0320", f"cannot read the weights: {reason}", where=str(path)) from error
    if not head:
        raise InputError("E0321", f"{path.name} is empty", where=f"{path}, 0 bytes")
    kind = kind_of(head)
    # Too short or too broken to be recognised, but its name says what it should have been.
    return "safetensors" if path.suffix == ".safetensors" and kind.startswith("in no") else kind


def _load(path: Path, kind: str, expected_bytes: int) -> Any:
    if kind == "safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError, KeyError, OverflowError) as error:
            raise broken(path, str(error)) from error
    if kind == "zip":
        stored = check_archive(path, expected_bytes=expected_bytes)
        return _load_pickle(path, kind, mmap=stored)
    if kind == "pickle":
        return _load_pickle(path, kind, mmap=False)
    raise not_a_checkpoint(path, kind)


def _load_pickle(path: Path, kind: str, *, mmap: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said to the developer who calls torch.load
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise forbidden(path, kind, str(error)) or _not_safe(path, str(error)) from error
    except Exception as error:  # a broken pickle can make the unpickler raise nearly anything
        raise forbidden(path, kind, "") or broken(path, str(error)) from error


def _unwrap(path: Path, data: Any) -> tuple[State, tuple[str, ...]]:
    notes: list[str] = []
    for _ in range(_MAX_NESTING):
        found = [key for key in _WRAPPERS if isinstance(data, dict) and _is_dict(data.get(key))]
        if not found:
            break
        others = f" (and left its {', '.join(found[1:])})" if found[1:] else ""
        notes.append(f"took the weights from {found[0]!r} of the checkpoint{others}")
        data = data[found[0]]
    if not _is_dict(data) or not all(isinstance(value, torch.Tensor) for value in data.values()):
        raise _no_state(path, data)
    state = {str(key): value.detach() for key, value in data.items()}
    for prefix in _PREFIXES * 2:
        if all(key.startswith(prefix) for key in state):
            notes.append(f"stripped {prefix!r} from every name")
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state, tuple(notes)


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict) and bool(value)


def _no_state(path: Path, data: Any) -> InputError:
    found = f"a {type(data).__name__}"
    if isinstance(data, dict):
        found += f" with {', '.join(ascii(str(key))[1:-1][:40] for key in list(data)[:5])}"
    return InputError(
        "E0326",
        f"{path.name} holds no state dict",
        where=f"it holds {found}",
        why="every value must be a tensor under the name of a parameter",
        hint="torch.save(model.state_dict(), ...)",
    )


def _not_safe(path: Path, reason: str) -> InputError:
    return InputError(
        "E0327",
        f"torch's safe loader does not read {path.name}",
        where=str(path),
        why=ascii(reason.split("WeightsUnpickler error:")[-1].strip())[1:-1][:300],
        hint=RESAVE,
    )
