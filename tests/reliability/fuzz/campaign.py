"""Mutated files by the batch, through the real loaders, and what became of them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.reliability.fuzz.corpus import FORMATS, bundle_of
from tests.reliability.fuzz.mutate import mutated

SUFFIX = {"image": ".png", "manifest": ".json", "entry": ".json", "ranges": ".npz"}
BATCH = 40


@dataclass
class Tally:
    """What became of the files of one format.

    Attributes:
        counts: outcome -> files.
        findings: files that were kept, with what happened.
    """

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[Path, str]] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ("refused", "accepted", "crashed", "hung", "finding")
        return f"{self.counts.total()} files: " + ", ".join(
            f"{self.counts[kind]} {kind}" for kind in kinds
        )


def campaign(
    kind: str, folder: Path, *, seed: int, goes_on: Callable[[Tally], bool], batch: int = BATCH
) -> Tally:
    """Batches of mutated files of a format for as long as ``goes_on`` says.

    Args:
        folder: empty; files that were no credit to us stay in ``kept`` there.
    """
    good, tally = FORMATS[kind](folder), Tally()
    suffix = SUFFIX.get(kind, f".{kind}")
    for index, data in enumerate(good):
        (folder / f"good{index}{suffix}").write_bytes(data)
    if kind == "manifest":
        bundle_of(folder)
    (folder / "kept").mkdir()
    noise = random.Random(f"{kind} {seed}")
    with reader(kind, folder) as read:
        while goes_on(tally):
            paths = [folder / f"bad{index}{suffix}" for index in range(batch)]
            for path in paths:
                path.write_bytes(mutated(kind, noise.choice(good), noise))
            for outcome in read(list(map(str, paths))):
                tally.counts[outcome["what"]] += 1
                if outcome["what"] not in ("refused", "accepted"):
                    number = len(tally.findings)
                    kept = folder / "kept" / f"{kind}-{seed}-{number}{suffix}"
                    shutil.copyfile(outcome["file"], kept)
                    tally.findings.append((kept, f"{outcome['what']}: {outcome['why']}"))
    return tally


@contextlib.contextmanager
def reader(kind: str, folder: Path) -> Iterator[Callable[[list[str]], list[dict[str, str]]]]:
    """A child process that reads files; see ``child``."""
    command = [sys.executable, "-m", "tests.reliability.fuzz.child", kind, str(folder)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(folder), "ORT_DISABLE_TELEMETRY": "1"}
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=root
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        stdin, stdout = child.stdin, child.stdout

        def read(names: list[str]) -> list[dict[str, str]]:
            stdin.write(json.dumps(names) + "\n")
            stdin.flush()
            outcomes: list[dict[str, str]] = json.loads(stdout.readline())
            return outcomes

        yield read
        stdin.close()
