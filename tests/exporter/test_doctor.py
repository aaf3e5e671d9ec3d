"""Each thing that can be wrong with a machine is found, with the fix; by doubles of machines."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from convexport.exporter import doctor, doctor_packages
from convexport.exporter.doctor_packages import Finding, clashes, cuda_libraries, packages

ROOT = Path(__file__).parents[2]
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make it look as if another version of a package were installed."""
    site = tmp_path / "site"

    def write(name: str, version: str, *needs: str) -> None:
        folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir(parents=True)
        lines = [f"Requires-Dist: {need}" for need in needs]
        head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        (folder / "METADATA").write_text("\n".join([*head, *lines, ""]))

    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    return write


def only(findings: Any, what: str) -> Finding:
    (found,) = (each for each in findings if each.what == what)
    return found


@pytest.mark.parametrize(
    ("name", "version", "hole"),
    [
        ("torch", "2.9.1", "CVE-2026-24747"),
        ("onnx", "1.20.1", "CVE-2026-27489"),
        ("pillow", "10.2.0", "CVE-"),
    ],
)
def test_a_version_with_a_known_hole(install: Install, name: str, version: str, hole: str) -> None:
    install(name, version)
    found = only(packages(), name)
    assert found.state == "problem" and hole in found.detail
    least = re.search(r"older than ([\d.]+)", found.detail)
    assert least is not None and found.fix == f"pip install '{name}>={least[1]}'"


def test_a_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_packages, "_PACKAGES", {"no-such-one": ("1", "building")})
    found = only(packages(), "no-such-one")
    assert found.state == "problem" and found.fix == "pip install 'no-such-one>=1'"


def test_the_least_versions_are_those_that_are_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *project["optional-dependencies"]["export"]]
    floors = {each.name: str(each.specifier) for each in map(Requirement, texts)}
    for name, (least, _) in doctor_packages._PACKAGES.items():
        assert floors[name] == f">={least}"


@pytest.mark.parametrize(
    ("name", "version", "need", "other"),
    [
        ("torch", "2.11.0", "numpy<2", "numpy"),
        ("onnx", "1.22.0", "protobuf<5", "protobuf"),
        ("onnxruntime", "1.20.0", "numpy>=99", "numpy"),
    ],
)
def test_packages_that_do_not_fit_each_other(
    install: Install, name: str, version: str, need: str, other: str
) -> None:
    install(name, version, need, "nothing-such>=1; extra == 'more'", "also-gone>=2")
    found = only(clashes(), f"{name}, {other}")
    assert found.state == "problem" and f"{name} {version} needs {need}, not " in found.detail
    assert found.fix == f"pip install '{need}'"


def test_this_environment_has_no_clash() -> None:
    assert list(clashes()) == []


def test_both_onnxruntimes(install: Install) -> None:
    install("onnxruntime-gpu", "1.31.1")
    found = only(doctor_packages.onnxruntime(), "onnxruntime")
    assert found.state == "problem" and "pip uninstall onnxruntime onnxruntime-gpu" in found.fix


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_cuda_libraries_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider like that of onnxruntime-gpu, linked to a library that is gone."""
    capi = tmp_path / "onnxruntime/capi"
    capi.mkdir(parents=True)
    (tmp_path / "onnxruntime/__init__.py").touch()
    (tmp_path / "a.c").write_text("int cublas(void) { return 0; }")
    (tmp_path / "b.c").write_text("int cublas(void); int provider(void) { return cublas(); }")
    for arguments in (
        ("a.c", "-o", "libcublasLt.so.12", "-Wl,-soname,libcublasLt.so.12"),
        ("b.c", "-o", str(capi / "libonnxruntime_providers_cuda.so"), "./libcublasLt.so.12"),
    ):
        subprocess.run(["cc", "-shared", "-fPIC", *arguments], cwd=tmp_path, check=True)
    (tmp_path / "libcublasLt.so.12").unlink()
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    assert cuda_libraries() == ""
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "libcublasLt.so.12: cannot open shared object file" in cuda_libraries()


@pytest.mark.parametrize("gpu", [True, False])
def test_missing_cuda_libraries_matter_where_there_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpu: bool
) -> None:
    class Driver:
        class gpu:  # noqa: N801
            name, compute_capability, driver = "Orin", "8.7", "12.6"

        def memory(self) -> tuple[int, int]:
            return 1 << 30, 1 << 31

    if gpu:
        monkeypatch.setattr(doctor, "cuda", Driver)
    monkeypatch.setattr(doctor, "cuda_libraries", lambda: "no libcudnn.so.9")
    found = only(doctor.examine(tmp_path), "CUDA libraries")
    assert found.state == ("problem" if gpu else "missing")
    assert "onnxruntime-gpu[cuda,cudnn]" in found.fix


def test_too_little_disk_and_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_NEEDED_MB", 10**9)
    findings = doctor.examine(tmp_path)
    for what in ("disk", "memory"):
        found = only(findings, what)
        assert found.state == "problem" and "a build wants" in found.detail and found.fix


def test_no_compiler(invoke: Any, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("PATH", str(home))
    done = invoke("doctor", "--json", "--cache-dir", home / "cache")
    found = only([Finding(**each) for each in done.json()], "C++")
    assert found.state == "missing" and "no cmake, no c++" in found.detail
    assert found.fix.startswith("apt-get install cmake")


def test_a_gpu_target_never_falls_to_the_cpu(invoke: Any, home: Path) -> None:
    done = invoke("doctor", "--json", "--cache-dir", home / "cache")
    found = only([Finding(**each) for each in done.json()], "target cuda")
    if found.state == "ok":
        pytest.skip("this machine has CUDA")
    assert "CUDAExecutionProvider" in found.detail and "onnxruntime-gpu" in found.fix
