"""Files that are no good weights: each is refused with what it is, and nothing is executed."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from convexport.architectures.registry import create, find
from convexport.architectures.weights import ResolvedWeights, load_module, resolve
from convexport.runtime.errors import ConvexportError, InputError

LENET = find("lenet5")
Make = Callable[[Path], object]


def loaded(path: Path, **options: int) -> tuple[nn.Module, tuple[str, ...]]:
    return load_module(LENET, resolved(path), **options)


def resolved(path: Path) -> ResolvedWeights:
    return resolve(
        LENET, str(path), offline=True, cache_dir=path.parent / "cache", report=lambda _: None
    )


def state(num_classes: int = 10) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return create("lenet5", num_classes=num_classes).state_dict()


class Payload:
    """Unpickled, it would create a file; the refusal must leave none."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.witness}'",)


def payload(path: Path) -> Payload:
    return Payload(path.with_name("executed"))


def as_zip(path: Path, entries: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def half(path: Path, make: Make) -> None:
    make(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def bomb(path: Path) -> None:
    """Half a gigabyte of zeros in half a megabyte, told by the listing alone."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a/data.pkl", "w") as entry,
    ):
        for _ in range(64):
            entry.write(bytes(1 << 20))


def lying_safetensors(path: Path) -> None:
    header = json.dumps({"c1.weight": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}})
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())


def torchscript(path: Path) -> None:
    as_zip(path, {"m/data.pkl": b"", "m/constants.pkl": b"", "m/version": b"3\n"})


def zero_protocol(path: Path) -> None:
    path.write_bytes(pickle.dumps(payload(path), protocol=0))


LEGACY = {"_use_new_zipfile_serialization": False}
DEEP = {"args": argparse.Namespace(lr=0.1), "state_dict": {}}

# Name of the file, how it is made, code, and what the message must say.
BAD: dict[str, tuple[str, Make, str, str]] = {
    "empty": ("w.pth", lambda p: p.write_bytes(b""), "E0321", "empty"),
    "empty safetensors": ("w.safetensors", lambda p: p.touch(), "E0321", "empty"),
    "web page": (
        "w.pth",
        lambda p: p.write_text("\n <!DOCTYPE html><title>404</title>"),
        "E0322",
        "an HTML page",
    ),
    "text": ("w.pt", lambda p: p.write_text("weights go here"), "E0322", "a text file"),
    "index of shards": (
        "model.safetensors.index.json",
        lambda p: p.write_text('{"weight_map": {}}'),
        "E0322",
        "a JSON file",
    ),
    "image": ("w.pth", lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n"), "E0322", "PNG"),
    "git lfs pointer": (
        "w.safetensors",
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "E0322",
        "Git LFS",
    ),
    "random bytes": (
        "w.pth",
        lambda p: p.write_bytes(bytes(range(128, 256)) * 9),
        "E0322",
        "no format",
    ),
    "other zip": ("w.pth", lambda p: as_zip(p, {"a.txt": b"hi"}), "E0322", "torch.save did not"),
    "torchscript": ("w.pt", torchscript, "E0322", "TorchScript"),
    "cut zip": ("w.pth", lambda p: half(p, lambda q: torch.save(state(), q)), "E0323", "bytes"),
    "cut legacy": (
        "w.pth",
        lambda p: half(p, lambda q: torch.save(state(), q, **LEGACY)),
        "E0323",
        "cut or corrupt",
    ),
    "cut legacy header": (
        "w.pth",
        lambda p: p.write_bytes(b"\x80\x02\x8a\x0a"),
        "E0323",
        "ends too early",
    ),
    "cut safetensors": (
        "w.safetensors",
        lambda p: half(p, lambda q: save_file(state(), q)),
        "E0323",
        "cut or corrupt",
    ),
    "four bytes of safetensors": (
        "w.safetensors",
        lambda p: p.write_bytes(b"\x10\x00\x00\x00"),
        "E0323",
        "4 bytes",
    ),
    "lying safetensors": ("w.safetensors", lying_safetensors, "E0323", "cut or corrupt"),
    "code": ("w.pth", lambda p: torch.save(payload(p), p), "E0324", "posix.system"),
    "code beside weights": (
        "w.pth",
        lambda p: torch.save({"state_dict": state(), "x": payload(p)}, p),
        "E0324",
        "posix.system",
    ),
    "code in the legacy format": (
        "w.pth",
        lambda p: torch.save(payload(p), p, **LEGACY),
        "E0324",
        "posix.system",
    ),
    "code in a new protocol": (
        "w.pth",
        lambda p: torch.save(payload(p), p, pickle_protocol=4),
        "E0324",
        "posix.system",
    ),
    "code in a bare pickle": (
        "w.pth",
        lambda p: p.write_bytes(pickle.dumps(payload(p), protocol=5)),
        "E0324",
        "posix.system",
    ),
    "code in the oldest protocol": ("w.pth", zero_protocol, "E0322", "not a checkpoint"),
    "whole module": (
        "w.pth",
        lambda p: torch.save(create("lenet5"), p),
        "E0324",
        "convexport.architectures.families.lenet.LeNet",
    ),
    "torch's own module": (
        "w.pth",
        lambda p: torch.save(nn.Sequential(nn.Linear(2, 2)), p),
        "E0324",
        "torch.nn.modules.container.Sequential",
    ),
    "namespace": ("w.pth", lambda p: torch.save(DEEP, p), "E0324", "argparse.Namespace"),
    "bomb": ("w.pth", bomb, "E0325", "67 MB"),
    "traversal": (
        "w.pth",
        lambda p: as_zip(p, {"a/data.pkl": b"", "a/../../evil": b""}),
        "E0325",
        "points out",
    ),
    "absolute entry": (
        "w.pth",
        lambda p: as_zip(p, {"a/data.pkl": b"", "/etc/evil": b""}),
        "E0325",
        "points out",
    ),
    "a list": ("w.pth", lambda p: torch.save([torch.ones(2)], p), "E0326", "a list"),
    "no tensors": ("w.pth", lambda p: torch.save({"epoch": 3}, p), "E0326", "epoch"),
    "unreadable protocol": (
        "w.pth",
        lambda p: torch.save(state(), p, pickle_protocol=4),
        "E0327",
        "safe loader",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_what_it_is(case: str, tmp_path: Path) -> None:
    name, make, code, says = BAD[case]
    path = tmp_path / name
    make(path)
    before = path.read_bytes()
    with pytest.raises(InputError) as caught:
        loaded(path)
    assert caught.value.code == code
    assert says in str(caught.value)
    assert caught.value.exit_code == 3
    assert len(str(caught.value).splitlines()) <= 4
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [name], "something was executed"


@pytest.mark.parametrize("case", ["code", "whole module", "namespace"])
def test_a_file_with_code_is_answered_with_how_to_resave_it(case: str, tmp_path: Path) -> None:
    name, make, _, _ = BAD[case]
    make(tmp_path / name)
    with pytest.raises(InputError) as caught:
        loaded(tmp_path / name)
    assert "safetensors" in caught.value.hint
    assert "weights_only" not in str(caught.value), "must not teach the unsafe switch"


@pytest.mark.parametrize("end", [".safetensors", ".pth", "/"])
def test_a_path_that_leads_to_no_file(end: str, tmp_path: Path) -> None:
    path = str(tmp_path) + (end if end == "/" else f"/none{end}")
    with pytest.raises(InputError) as caught:
        resolve(LENET, path, offline=True, cache_dir=tmp_path, report=lambda _: None)
    assert caught.value.code == "E0320"
    assert str(tmp_path) in caught.value.where


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(InputError) as caught:
        loaded(tmp_path / "w.pth")
    assert caught.value.code == "E0320"


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_every_cut_of_a_good_file_is_refused(kind: str, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut.pth"
    save: dict[str, Callable[[], None]] = {
        "zip": lambda: torch.save(state(), whole),
        "legacy": lambda: torch.save(state(), whole, **LEGACY),
        "safetensors": lambda: save_file(state(), whole),
    }
    save[kind]()
    data = whole.read_bytes()
    for length in range(1, len(data), len(data) // 23):
        cut.write_bytes(data[:length])
        with pytest.raises(InputError):
            loaded(cut)


def test_flipped_bytes_raise_nothing_but_our_errors(tmp_path: Path) -> None:
    whole, bad = tmp_path / "whole", tmp_path / "bad.pth"
    torch.save(state(), whole)
    data = whole.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        places = torch.randint(len(data), (40,), generator=generator).tolist()
        spoilt = bytearray(data)
        for place in places:
            spoilt[place] ^= 0xFF
        bad.write_bytes(spoilt)
        try:
            loaded(bad)
        except ConvexportError as error:
            assert error.exit_code == 3
