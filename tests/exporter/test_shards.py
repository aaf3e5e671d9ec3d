"""``convexport verify`` in parts that are merged, and passes that go on where they stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from convexport.benchmarks.checkpoint import Checkpoint, read_sealed, write_sealed
from convexport.benchmarks.shards import load_shard
from convexport.benchmarks.verify import VerifyOptions, verify_shard
from convexport.calibration.images import folder
from convexport.runtime import ort_session
from convexport.runtime.ort_session import OrtSession
from tests.exporter.labelled import NAMES, logits, put, sealed

Refused = Callable[..., Any]

# Runs in a process that is killed: a small bundle, images, a block count after which it dies.
KILLED = """
import os, signal, sys
from pathlib import Path
from convexport.benchmarks.verify import VerifyOptions, verify
from convexport.calibration.images import folder
bundle, data, begun, blocks = sys.argv[1:]
seen = []
def progress(done, total):
    seen.append(done)
    print(done, flush=True)
    if len(seen) == int(blocks):
        os.kill(os.getpid(), signal.SIGKILL)
found = verify(Path(bundle), folder(Path(data)), VerifyOptions(checkpoint_seconds=0),
               progress=progress, partial=lambda key: Path(begun))
import json; print(json.dumps(found.to_dict()))
"""


def test_shards_merge_to_the_very_bytes_of_one_run(
    invoke: Any, tiny: Path, data: Path, home: Path
) -> None:
    whole = invoke("verify", tiny, "--data", data, "--json")
    files = [home / f"{i}.json" for i in (3, 1, 2)]
    for file in files:
        shard = f"{file.stem}/3"
        done = invoke("verify", tiny, "--data", data, "--shard", shard, "--save", file, "--json")
        assert done.json()["shard"] == shard and done.json()["of"] == 100
    assert invoke("merge", *files, "--json").out == whole.out
    facts = whole.json()
    assert facts["mcnemar"]["only_reference"] > 0 and facts["parity"]["n"] == 100
    assert invoke("verify", tiny, "--data", data, "--save", home / "one", "--json").out == whole.out
    assert invoke("merge", home / "one", "--json").out == whole.out


def test_what_is_told_of_changes_is_what_numpy_finds(invoke: Any, tiny: Path, data: Path) -> None:
    facts = invoke("verify", tiny, "--data", data, "--json").json()
    rows = []
    for path in sorted(data.rglob("*.png")):
        with Image.open(path) as image:
            rows.append((path.relative_to(data).as_posix(), *logits(np.asarray(image))))
    far = sorted(rows, key=lambda row: -np.abs(row[1] - row[2]).max())[:12]
    assert [each["image"] for each in facts["worst"]] == [row[0] for row in far]
    for each, (_, before, after) in zip(facts["worst"], far, strict=True):
        assert each["error"] == pytest.approx(np.abs(before - after).max(), rel=1e-5)
        assert (each["expected"], each["actual"]) == (NAMES[before.argmax()], NAMES[after.argmax()])
    moved = [(NAMES[a.argmax()], NAMES[b.argmax()]) for _, a, b in rows if a.argmax() != b.argmax()]
    found = {(each["from"], each["to"]): each["count"] for each in facts["changed"]}
    assert found == {pair: moved.count(pair) for pair in moved} and found
    right = [[side.argmax() == NAMES.index(name.split("/")[0]) for side in sides]
             for name, *sides in rows]  # fmt: skip
    b, c = right.count([True, False]), right.count([False, True])
    assert facts["mcnemar"]["only_reference"] == b and facts["mcnemar"]["only_model"] == c
    assert facts["mcnemar"]["p_value"] == pytest.approx(stats.binomtest(b, b + c).pvalue)
    assert facts["top5"] == "not measured"  # of three classes


def test_a_killed_run_goes_on_and_gives_the_same(
    tiny: Path, data: Path, home: Path, invoke: Any
) -> None:
    def call(blocks: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", KILLED, tiny, data, home / "cache/begun", str(blocks)],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    first, second, last = call(5), call(4), call(1000)
    assert first.returncode == second.returncode == -signal.SIGKILL
    # The block that was being counted when the kill came is the only one done twice.
    assert first.stdout.split() == ["8", "16", "24", "32", "40"]
    assert second.stdout.split() == ["40", "48", "56", "64"]
    assert last.stdout.split()[0] == "64", last.stderr
    want = invoke("verify", tiny, "--data", data, "--json").json()
    assert json.loads(last.stdout.splitlines()[-1]) == want
    assert not (home / "cache/begun").exists()


def test_the_command_keeps_its_place_in_the_cache(
    invoke: Any, tiny: Path, data: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def hasty(path: Path, seconds: float) -> Checkpoint:
        written.append(path)
        return Checkpoint(path, 0)

    monkeypatch.setattr("convexport.benchmarks.verify.Checkpoint", hasty)
    whole = invoke("verify", tiny, "--data", data, "--json").out
    (file,) = written
    stages = home / "home/.cache/convexport/stages"
    assert file.parent == stages and stages.is_dir() and not file.exists()
    stages.chmod(0o777)
    assert invoke("verify", tiny, "--data", data).failed_with(4, "E0480")
    stages.chmod(0o755)
    assert invoke("verify", tiny, "--data", data, "--json").out == whole


def shards(invoke: Any, bundle: Path, data: Path, home: Path, *options: str) -> list[Path]:
    files = [home / f"{len(list(home.glob('*s1')))}s{i}" for i in (1, 2)]
    for i, file in enumerate(files, 1):
        done = invoke("verify", bundle, "--data", data, "--shard", f"{i}/2", "--save", file,
                      *options)  # fmt: skip
        assert done.code == 0, done.err
    return files


def test_shards_that_do_not_belong_together(
    invoke: Any, refused: Refused, tiny: Path, data: Path, home: Path
) -> None:
    one, two = shards(invoke, tiny, data, home)
    refused(3, "E0373", "merge", one)
    assert "twice: 1/2" in refused(3, "E0373", "merge", one, two, one).err
    skipping = shards(invoke, tiny, data, home, "--bad-images", "skip")
    assert "bad_images" in refused(3, "E0372", "merge", one, skipping[1]).err
    third = home / "third"
    invoke("verify", tiny, "--data", data, "--shard", "2/3", "--save", third)
    refused(3, "E0372", "merge", one, third)
    put(data / "ant/new.png", 1000)
    more = shards(invoke, tiny, data, home)
    assert "images: 100 and 101" in refused(3, "E0372", "merge", one, more[1]).err
    (data / "ant/new.png").unlink()
    sealed(tiny, name="other")
    other = shards(invoke, tiny, data, home)
    assert "name: tiny and other" in refused(3, "E0372", "merge", one, other[1]).err


def test_files_that_are_no_shards(
    invoke: Any, refused: Refused, tiny: Path, data: Path, home: Path
) -> None:
    one, two = shards(invoke, tiny, data, home)
    whole = two.read_bytes()
    two.write_bytes(whole.replace(b'"read": 48', b'"read": 47').replace(b'"n": 48', b'"n": 47'))
    assert two.read_bytes() != whole
    refused(3, "E0374", "merge", one, two)
    two.write_bytes(whole[: len(whole) // 2])
    refused(3, "E0302", "merge", one, two)
    two.write_bytes((tiny / "manifest.json").read_bytes())
    refused(3, "E0374", "merge", one, two)
    two.unlink()
    refused(3, "E0302", "merge", one, two)
    assert load_shard(one).part == (1, 2)


def changed(**subject: Any) -> Callable[[Any], None]:
    return lambda data: data["subject"].update(subject)


FORGED: dict[str, Callable[[Any], Any]] = {
    "no subject": lambda data: data.update(subject=7),
    "a number for a name": changed(name=7),
    "no such precision": changed(precision="int9"),
    "labels that are numbers": changed(labels=[1, 2, 3]),
    "a part of too many": lambda data: data.update(part=[1, 10**18]),
    "a part of text": lambda data: data.update(part=["1", "1"]),
    "a class too many in what changed": lambda data: data["tally"]["parity"]["changed"].update(
        {"0>3": 1}
    ),
    "a class too many among the worst": lambda data: data["tally"]["parity"]["worst"][
        0
    ].__setitem__(3, 3),
    "rows that are none": lambda data: data["tally"]["images"].update(skipped_images=[[1]]),
    "a tally that is none": lambda data: data.update(tally=[]),
}


def test_shards_that_somebody_wrote_and_sealed(
    invoke: Any, refused: Refused, tiny: Path, data: Path, home: Path
) -> None:
    invoke("verify", tiny, "--data", data, "--save", "all")
    assert invoke("merge", "all").code == 0
    for how, forge in FORGED.items():
        forged = read_sealed(home / "all")
        forge(forged)
        write_sealed(home / "forged", forged)
        assert refused(3, "E0374", "merge", "forged"), how


@pytest.mark.parametrize("facts", ["[]", '{"contents": [[]]}', '{"contents": 7}'])
def test_a_calibration_that_no_build_writes(refused: Refused, tiny: Path, facts: str) -> None:
    (tiny / "calibration.json").write_text(facts)
    sealed(tiny)
    refused(3, "E0305", "verify", tiny)


def test_a_pass_is_known_by_all_that_the_manifest_says(
    refused: Refused, tiny: Path, data: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted on one provider, it must not go on as another's (which the CPU plays here)."""
    monkeypatch.setattr(ort_session, "OrtSession", lambda model, **_: OrtSession(model))
    keys: list[Any] = []
    for provider in ("CPUExecutionProvider", "AzureExecutionProvider"):
        sealed(tiny, provider=provider)

        def partial(key: Any) -> Path:
            keys.append(key)
            return home / "begun"

        verify_shard(tiny, folder(data), VerifyOptions(), home / provider, partial=partial)
    differ = {name for name in keys[0] if keys[0][name] != keys[1][name]}
    assert differ == {"provider", "sha256_of_manifest"}
    one, two = ({**read_sealed(home / key["provider"])} for key in keys)
    for part, shard in enumerate((one, two), 1):
        write_sealed(home / f"p{part}", {**shard, "part": [part, 2]})
    assert "provider: CPU" in refused(3, "E0372", "merge", home / "p1", home / "p2").err


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "1/0", "-1/2", "a/b", "1/2/3", ""])
def test_shards_that_are_none(refused: Refused, tiny: Path, data: Path, shard: str) -> None:
    refused(2, "E0274", "verify", tiny, "--data", data, "--shard", shard, "--save", "x")


def test_counts_go_where_nothing_stands(refused: Refused, tiny: Path, data: Path) -> None:
    refused(2, "E0293", "verify", tiny, "--data", data, "--shard", "1/2")
    refused(2, "E0276", "verify", tiny, "--data", data, "--save", tiny / "manifest.json")
    refused(2, "E0276", "verify", tiny, "--data", data, "--save", "no/where.json")


def test_more_shards_than_blocks(invoke: Any, tiny: Path, home: Path) -> None:
    for index in range(10):
        put(home / f"few/{'ant' if index % 2 else 'bee'}/{index}.png", index)
    files = [home / f"f{i}" for i in range(1, 5)]
    for i, file in enumerate(files, 1):
        counts = invoke("verify", tiny, "--data", "few", "--shard", f"{i}/4", "--save", file,
                        "--json").json()  # fmt: skip
        assert counts["images"] == (8, 2, 0, 0)[i - 1]
    merged = invoke("merge", *files, "--json").out
    assert merged == invoke("verify", tiny, "--data", "few", "--json").out
