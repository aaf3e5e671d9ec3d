"""A stranger's model is read by a child first: what kills that one only becomes an error here.

The libraries that parse ONNX are native code. A child with a limit on time and memory does all
of it once; this process reads the file only when that went well.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convexport.runtime.children import answer, run_child
from convexport.runtime.errors import InputError, MachineError, rebuilt

TIMEOUT_S = 120.0
# Of address space: the libraries themselves, and copies of the weights while they are checked.
_MEMORY, _COPIES = 4 << 30, 8


def read_in_a_child(path: Path, *, run: bool) -> None:
    """Do all that ``onnx_file.check`` does, elsewhere.

    Args:
        run: whether ONNX Runtime is to load it as well.

    Raises:
        ConvexportError: what the child found.
        InputError: E0394, a library crashed on the file, ended its process, or took too much time
            or memory.
    """
    request = json.dumps({"path": str(path), "run": run}).encode()
    command = (sys.executable, "-m", "convexport.exporter.onnx_child")
    try:
        stdout, _ = run_child(
            command, request, timeout_s=TIMEOUT_S, env=os.environ, purpose="reading"
        )
    except MachineError as error:
        last = error.why.strip().splitlines()[-1:]
        raise _fatal(path, ": ".join([error.what, *last])) from error
    try:
        told = json.loads(stdout)
        found = None if told is None else rebuilt(told["error"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _fatal(path, "it ended without an answer") from error
    if found is not None:
        raise found


def main() -> None:
    """Answer one request on stdin with JSON on stdout: an error, or null."""
    answer(_read)


def _read(request: Mapping[str, Any]) -> None:
    path = Path(request["path"])
    _limit(_memory_for(path))
    from convexport.exporter.onnx_file import check

    check(path)
    if request["run"]:
        from convexport.runtime.ort_session import OrtSession

        OrtSession(path, threads=1, optimize=False)


def _fatal(path: Path, why: str) -> InputError:
    return InputError(
        "E0394",
        f"the libraries that read ONNX do not survive {path.name}",
        where=str(path),
        why=why[:300],
        hint="it is corrupt, made to harm, or needs more memory than there is: export it again",
    )


def _memory_for(path: Path) -> int:
    """Bytes of address space; data beside the model may belong to it, as far as it is on a disk."""
    content = path.stat().st_size
    with contextlib.suppress(OSError):  # a folder that may be entered and not listed
        beside = [each.lstat() for each in path.parent.iterdir() if each.name != path.name]
        plain = [each for each in beside if stat.S_ISREG(each.st_mode)]
        content += sum(min(each.st_size, 512 * each.st_blocks) for each in plain)
    everything = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(_MEMORY + _COPIES * content, max(_MEMORY, everything))


def _limit(memory: int) -> None:
    import resource  # POSIX alone has it

    _, most = resource.getrlimit(resource.RLIMIT_AS)
    allowed = memory if most == resource.RLIM_INFINITY else min(memory, most)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
