"""An interpreter of a board's age: JetPack 5 brings Python 3.8 with numpy."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

VERSION = "3.8"
_NUMPY = "numpy<1.25"  # the last that runs there


def old_python(cache: Path) -> tuple[str, str]:
    """A Python 3.8 with numpy, or why there is none.

    One without numpy gets an environment with it below ``cache``, where PyPI can be reached.

    Returns:
        Its path, and a reason where that is empty.
    """
    here = [each for each in _candidates() if _runs(each, f"assert {_OF_VERSION}")]
    if not here:
        return "", f"no Python {VERSION} here; CONVEXPORT_OLD_PYTHON may name one"
    ready = next((each for each in here if _runs(each, "import numpy")), "")
    if ready:
        return ready, ""
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "lock"):
        made = cache / "environment"
        python = str(made / "bin/python")
        if not _runs(python, "import numpy"):
            why = _make(here[0], made)
            if why:
                shutil.rmtree(made, ignore_errors=True)
                return "", f"Python {VERSION} is here without numpy: {why}"
    return python, ""


_OF_VERSION = f"sys.version.startswith({VERSION + '.'!r})"


def _candidates() -> Iterator[str]:
    named = (os.environ.get("CONVEXPORT_OLD_PYTHON"), shutil.which(f"python{VERSION}"))
    yield from filter(None, named)
    # pyenv's own python3.8 only runs where that version was made the current one.
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)  # tests have a HOME of their own
    root = Path(os.environ.get("PYENV_ROOT", home / ".pyenv"))
    yield from map(str, sorted(root.glob(f"versions/{VERSION}.*/bin/python")))


def _runs(python: str, code: str) -> bool:
    try:
        command = [python, "-c", f"import sys; {code}"]
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _make(python: str, folder: Path) -> str:
    """Make the environment; why it could not be made."""
    pip = [str(folder / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install"]
    install = [*pip, "-q", "--only-binary=:all:", "--retries=0", "--timeout=10", _NUMPY]
    for command in ([python, "-m", "venv", "--clear", str(folder)], install):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        except (OSError, subprocess.SubprocessError) as error:
            return str(error)
        if done.returncode:
            return (done.stderr.strip() or "pip said nothing").splitlines()[-1]
    return ""


if __name__ == "__main__":
    print(*old_python(Path(sys.argv[1])))
