"""Mutated files through the real loaders, for so many minutes; exits with 1 where one got through.

``python -m tests.reliability.fuzz --minutes 10 --seed 0 [--format onnx]``
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from tests.reliability.fuzz.campaign import campaign
from tests.reliability.fuzz.corpus import FORMATS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.fuzz")
    parser.add_argument("--minutes", type=float, default=5, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=FORMATS, help="this one alone")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="files go there")
    arguments = parser.parse_args()
    kinds = [arguments.format] if arguments.format else list(FORMATS)
    found = 0
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            until = time.monotonic() + arguments.minutes * 60 / len(kinds)
            tally = campaign(
                kind,
                Path(folder),
                seed=arguments.seed,
                goes_on=lambda tally, until=until: time.monotonic() < until,
            )
            print(f"{kind}: {tally}", flush=True)
            for path, why in tally.findings:
                arguments.keep.mkdir(exist_ok=True)
                print(f"  {shutil.move(path, arguments.keep / path.name)}\n    {why}")
            found += len(tally.findings)
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
