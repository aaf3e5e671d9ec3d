"""The command line in a process of its own for each case, without the seconds of starting one.

One process imports what commands need, then forks for every request and runs the entry point of
the command line in the fork, with files for its streams and with its own limits.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LIMIT_S = 120
Limits = Mapping[str, int]


class Forks:
    """Asks the process that forks; one request at a time."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder = process, folder

    def run(self, arguments: list[str], env: Mapping[str, str], limits: Limits) -> list[Any]:
        """Exit code (negative: the signal), stdout and stderr of a command in this directory."""
        streams = [str(self._folder / name) for name in ("out", "err")]
        request = [arguments, str(Path.cwd()), dict(env), dict(limits), *streams]
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        code = int(self._process.stdout.readline())
        return [code, *(Path(each).read_text(errors="surrogateescape") for each in streams)]


@contextmanager
def forks() -> Iterator[Forks]:
    """The process, started now and ended with the block."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"},
        )
        with process:
            yield Forks(process, Path(folder))
            assert process.stdin is not None
            process.stdin.close()


def main() -> None:
    """Fork for each line on stdin; answer with the exit code."""
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import torch  # noqa: F401

    import convexport.benchmarks.verify
    import convexport.exporter.pipeline  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _run(*json.loads(line))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(code, file=answers, flush=True)


def _run(
    arguments: list[str], cwd: str, env: dict[str, str], limits: dict[str, int], out: str, err: str
) -> None:
    from convexport import cli

    signal.alarm(LIMIT_S)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, name in ((0, os.devnull), (1, out), (2, err)):
        os.dup2(
            os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            number,
        )
    os.umask(limits.pop("umask", 0o022))
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))
    sys.argv = ["convexport", *arguments]
    code: Any = 70
    try:
        cli.main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


if __name__ == "__main__":
    main()
