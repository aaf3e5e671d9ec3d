"""Writes ``surface.json``: the names that TensorRT's Python bindings have, version by version.

They are read from the bindings' own sources (a clone of github.com/NVIDIA/TensorRT, whose release
branches hold them) and, where a wheel of the same version is given, looked up in its binary too.

    python tests/trt/make_surface.py CLONE [--wheel 10.16=tensorrt_cu12_bindings-….whl]…
    python tests/trt/make_surface.py          # hold the table against the tensorrt installed here
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import zipfile
from pathlib import Path

SURFACE = Path(__file__).with_name("surface.json")
VERSIONS = ("8.5", "8.6", "10.3", "10.16", "11.1")
FOLDERS = ("python/src/infer", "python/src/parsers/pyOnnx.cpp")
CLASSES = """
    Builder EngineInspector IBuilderConfig ICudaEngine IExecutionContext IHostMemory ILayer ILogger
    INetworkDefinition IOptimizationProfile ITensor ITimingCache Logger OnnxParser ParserError
    Runtime
"""
ENUMS = """
    BuilderFlag DataType DeviceType HardwareCompatibilityLevel LayerInformationFormat
    MemoryPoolType NetworkDefinitionCreationFlag OnnxParserFlag PreviewFeature
    ProfilingVerbosity Severity TacticSource TensorIOMode TensorLocation
"""
KEPT = {*CLASSES.split(), *ENUMS.split()}
# Layers are added by the parser, never by us.
LEFT_OUT = re.compile(r"__|add_(?!optimization_profile)")

_COMMENT = re.compile(r"//[^\n]*")
_LEFT_OUT_BY_NVIDIA = re.compile(r"#if ENABLE_INETWORK_SERIALIZE.*?#endif", re.DOTALL)
_START = re.compile(r"py::(class|enum)_<")
_NAME = re.compile(r'[({]\s*\w+\s*,\s*"(\w+)"')
_FUNCTION = re.compile(r'\bm\.def\(\s*"(\w+)"')
_ADDED = {"name", "value", "itemsize"}
_MEMBER = re.compile(r'\.(?:def\w*|value)\(\s*"(\w+)"')


def main() -> None:
    """Read the arguments, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clone", type=Path, nargs="?")
    parser.add_argument("--wheel", action="append", default=[], metavar="VERSION=FILE")
    arguments = parser.parse_args()
    if arguments.clone is None:
        table = json.loads(SURFACE.read_text())
        check_installed(table)
    else:
        table = {version: read(arguments.clone, version) for version in VERSIONS}
    for version, wheel in (each.split("=", 1) for each in arguments.wheel):
        check(table[version]["names"], Path(wheel))
        table[version]["also_in"] = Path(wheel).name
    text = json.dumps(table, indent=1, sort_keys=True)
    # A list a line: the table stays readable and short.
    SURFACE.write_text(re.sub(r"\[[^\]]*\]", lambda m: " ".join(m[0].split()), text) + "\n")


def read(clone: Path, version: str) -> dict[str, object]:
    """The names of one release branch, and where they come from."""
    branch = f"release/{version}"
    files = git(clone, "ls-tree", "-r", "--name-only", branch, *FOLDERS).split()
    names: dict[str, list[str]] = {}
    functions: set[str] = set()
    for file in files:
        if file.endswith(".cpp"):
            source = git(clone, "show", f"{branch}:{file}")
            names.update(declared(source))
            functions.update(_FUNCTION.findall(source))
    names["module"] = sorted(functions)
    return {
        "version": git(clone, "show", f"{branch}:VERSION").strip(),
        "source": f"NVIDIA/TensorRT {git(clone, 'rev-parse', branch).strip()} python/src",
        "names": names,
    }


def declared(source: str) -> dict[str, list[str]]:
    """Class or enumeration -> its members, from statements of pybind11."""
    source, found = _COMMENT.sub("", _LEFT_OUT_BY_NVIDIA.sub("", source)), {}
    for start in _START.finditer(source):
        statement = source[start.start() : end_of(source, start.end())]
        name = _NAME.search(statement)
        if name and name[1] in KEPT:
            members = set(_MEMBER.findall(statement))
            found[name[1]] = sorted(m for m in members if not LEFT_OUT.match(m))
    return found


def end_of(source: str, start: int) -> int:
    """Where the statement ends: at a semicolon outside of all brackets."""
    depth = 0
    for index in range(start, len(source)):
        depth += (source[index] in "({[") - (source[index] in ")}]")
        if source[index] == ";" and depth == 0:
            return index
    raise ValueError("a statement does not end")


def check(names: dict[str, list[str]], wheel: Path) -> None:
    """Every name must occur in the binary that people install."""
    with zipfile.ZipFile(wheel) as archive:
        binary = archive.read("tensorrt_bindings/tensorrt.so")
    # Ends included: linkers let "mark_output" be the end of "unmark_output".
    missing = [
        f"{k}.{m}" for k, ms in names.items() for m in ms if m.encode() + b"\0" not in binary
    ]
    if missing:
        raise SystemExit(f"not in {wheel.name}: {missing}")


def check_installed(table: dict[str, dict[str, object]]) -> None:
    """The table's names must be just those of the module, but for what pybind11 and enums add."""
    import tensorrt as trt

    row = table[".".join(trt.__version__.split(".")[:2])]
    for name, members in row["names"].items():
        if name == "module":
            missing, more = set(members) - set(dir(trt)), set()
        else:
            kind = getattr(trt, name, None) or getattr(trt.ILogger, name)
            have = {each for each in dir(kind) if not LEFT_OUT.match(each)}
            missing = set(members) - have
            more = have - set(members) - _ADDED - set(dir(trt.ILogger))
        if missing or more:
            raise SystemExit(f"{name} of {trt.__version__}: missing {missing}, more {more}")
    row["also_in"] = f"tensorrt {trt.__version__}, imported"


def git(clone: Path, *arguments: str) -> str:
    """What git says."""
    command = ["git", "-C", str(clone), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
