"""``convexport verify`` over folders of any size and kind: parts, interruptions, odd labels."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image
from scipy import stats

from convexport.benchmarks.checkpoint import Checkpoint, read_sealed, write_sealed
from convexport.benchmarks.shards import load_shard
from convexport.benchmarks.verify import VerifyOptions, verify_shard
from convexport.calibration.digits import digits
from convexport.calibration.images import folder
from convexport.runtime import ort_session
from convexport.runtime.ort_session import OrtSession
from tests.tiny import MANIFEST, seal, write_bundle

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


REFERENCE = np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32)
MODEL = REFERENCE + 0.3 * np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)
NAMES = ("ant", "bee", "cat")


@pytest.fixture
def tiny(home: Path) -> Path:
    """A bundle whose model multiplies by other numbers than its reference does."""
    folder = write_bundle(home / "tiny")
    model = onnx.load(folder / "model.onnx")
    for name, weights in (("reference", REFERENCE), ("model", MODEL)):
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w"))
        onnx.save(model, folder / f"{name}.onnx")
    sample = np.load(folder / "sample/input.npy")
    np.save(folder / "sample/expected.npy", sample.reshape(1, -1) @ MODEL.T)
    return sealed(folder)


def sealed(folder: Path, **changes: Any) -> Path:
    (folder / "manifest.json").unlink()
    preprocess = {**MANIFEST["preprocess"], "mean": [0.5], "std": [0.25]}
    facts = {"precision": "int8", "reference": "reference.onnx", "preprocess": preprocess}
    return seal(folder, lambda data: data.update({**facts, **changes}))


def pixels(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (2, 2), np.uint8)


def logits(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the reference and of the model."""
    x = (image.astype(np.float32).reshape(-1) / 255 - 0.5) / 0.25
    return REFERENCE @ x, MODEL @ x


def answer(index: int) -> str:
    """The class that the reference gives such an image."""
    return NAMES[int(logits(pixels(index))[0].argmax())]


def put(path: Path, index: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(index)).save(path, format="PNG")
    return path


@pytest.fixture
def data(home: Path) -> Path:
    """Labelled as the reference answers, but for every ninth."""
    for index in range(100):
        put(home / f"data/{answer(index) if index % 9 else 'bee'}/{index:03}.png", index)
    return home / "data"


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


def test_the_margin_is_a_gate(invoke: Any, refused: Refused, tiny: Path, data: Path) -> None:
    facts = invoke("verify", tiny, "--data", data, "--json").json()["accuracy"]
    assert facts["high_pp"] > 1
    done = invoke("verify", tiny, "--data", data, "--margin", "1%")
    assert done.failed_with(5, "E0567") and "top-1" in done.out
    wide = f"{facts['high_pp'] + 0.01}%"
    assert invoke("verify", tiny, "--data", data, "--margin", wide).code == 0
    invoke("verify", tiny, "--data", data, "--save", "all")
    assert invoke("merge", "all", "--margin", "1%").failed_with(5, "E0567")
    assert invoke("merge", "all", "--margin", wide).code == 0
    refused(2, "E0266", "verify", tiny, "--data", data, "--margin", "0%")
    refused(2, "E0268", "verify", tiny, "--margin", "1%")


def test_bad_images_are_counted_and_named(
    invoke: Any, refused: Refused, tiny: Path, data: Path
) -> None:
    (data / "ant/broken.png").write_bytes(b"no image")
    (data / "bee/gone.png").symlink_to("nowhere")
    done = refused(3, "E0342", "verify", tiny, "--data", data)
    assert "ant/broken.png" in done.err and "at least 2 of 102" in done.err
    facts = invoke("verify", tiny, "--data", data, "--bad-images", "skip", "--json").json()
    assert (facts["skipped"]["count"], facts["skipped"]["of"]) == (2, 102)
    assert [row["image"] for row in facts["skipped"]["images"]] == [
        "ant/broken.png",
        "bee/gone.png",
    ]
    assert facts["parity"]["n"] == facts["accuracy"]["actual"]["n"] == 100
    assert "2 of 102 images were skipped" in facts["warnings"]
    text = invoke("verify", tiny, "--data", data, "--bad-images", "skip").out
    assert "skipped 2/102" in text and "gone.png" in text


def test_nothing_but_bad_images(refused: Refused, tiny: Path, home: Path) -> None:
    (home / "bad").mkdir()
    (home / "bad/a.png").write_bytes(b"")
    refused(3, "E0378", "verify", tiny, "--data", "bad", "--bad-images", "skip")


def test_one_colour_shows_nothing(refused: Refused, tiny: Path, home: Path) -> None:
    (home / "grey").mkdir()
    for level in (3, 90):
        Image.new("L", (2, 2), level).save(home / f"grey/{level}.png")
    refused(3, "E0344", "verify", tiny, "--data", "grey")


def test_labels_that_are_off_by_one_are_named(invoke: Any, int8_bundle: Path, home: Path) -> None:
    for item in digits("test").sample(60).items:
        image = item.content()
        assert isinstance(image, Image.Image) and item.label is not None
        path = home / f"off/{(item.label + 1) % 10}/{item.name.replace('/', '-')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    facts = invoke("verify", int8_bundle, "--data", "off", "--json").json()
    (warning,) = facts["warnings"]
    assert warning == facts["accuracy"]["hint"] and "off by one" in warning
    assert "permuted" not in warning


def test_folders_numbered_from_one_are_refused(refused: Refused, tiny: Path, home: Path) -> None:
    for index in range(3):
        put(home / f"one/{index + 1}/a.png", index)
    assert "start at 1" in refused(3, "E0368", "verify", tiny, "--data", "one").err
    (tiny / "labels.txt").unlink()
    sealed(tiny)  # without labels, too, where names in order would do
    assert "start at 1" in refused(3, "E0368", "verify", tiny, "--data", "one").err


def test_wordnet_ids_are_taken_in_their_order_and_that_is_said(
    invoke: Any, tiny: Path, home: Path
) -> None:
    ordered = dict(zip(NAMES, ("n02121808", "n02206856", "n02219486"), strict=True))
    for index in range(60):
        put(home / f"ids/{ordered[answer(index)]}/{index}.png", index)
    facts = invoke("verify", tiny, "--data", "ids", "--json").json()
    right = facts["accuracy"]["reference"]
    assert right["k"] == right["n"] == 60
    assert any("WordNet" in text for text in facts["warnings"])


def test_a_label_that_two_classes_have_is_ambiguous(
    refused: Refused, tiny: Path, data: Path
) -> None:
    (tiny / "labels.txt").write_text("ant\nbee\nbee\n")
    sealed(tiny)
    for path in (data / "cat").iterdir():
        path.unlink()
    (data / "cat").rmdir()
    assert "bee" in refused(3, "E0368", "verify", tiny, "--data", data).err


def test_missing_classes_are_said(invoke: Any, tiny: Path, home: Path) -> None:
    for index in range(12):
        put(home / f"two/{'ant' if index % 2 else 'cat'}/{index}.png", index)
    facts = invoke("verify", tiny, "--data", "two", "--json").json()
    assert any(text.startswith("the data has 2 of the net's 3") for text in facts["warnings"])


def test_images_that_set_the_ranges_are_noticed(invoke: Any, quick: Any, home: Path) -> None:
    for item in digits("calibration").sample(40).items:
        image = item.content()
        assert isinstance(image, Image.Image)
        path = home / f"all/{item.label}/{item.name.replace('/', '-')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    built = invoke("build", "lenet5", "--weights", "digits", "--int8", "--calib", "all",
                   "--calib-images", "8", "--method", "minmax", *quick, "-o", "b")  # fmt: skip
    assert built.code == 0, built.err
    facts = invoke("verify", "b", "--data", "all", "--json").json()
    (warning,) = (text for text in facts["warnings"] if "calibrated with" in text)
    # Those that calibrated: 8 of 40, less the fifth of them that may be held out to try on.
    count = len(json.loads((home / "b/calibration.json").read_text())["contents"])
    assert warning.startswith(f"{count} of 40 images") and count in range(4, 9)


def test_names_and_trees_of_strangers(invoke: Any, tiny: Path, home: Path) -> None:
    deep = "/".join(["d" * 20] * 60)
    odd = [
        "a\nb",
        "-rf",
        "tab\there",
        "ünï",
        "x" * 240,
        "\x1b[31mred",
        "'quote\"",
        os.fsdecode(b"\xff"),
    ]
    for index, name in enumerate(odd):
        put(home / "odd/ant" / f"{name}.png", index)
    put(home / "odd/bee" / deep / "deep.png", 20)
    put(home / "odd/cat/.hidden.png", 21)
    put(home / "odd/cat/ok.png", 22)
    for clutter in ("Thumbs.db", "desktop.ini"):
        (home / "odd/cat" / clutter).write_bytes(b"\0")
    (home / "odd/cat/again").symlink_to("..")
    facts = invoke("verify", tiny, "--data", "odd", "--json").json()
    assert facts["parity"]["n"] == len(odd) + 2
    assert facts["passed_over"]["hidden or clutter"] == 3
    text = invoke("verify", tiny, "--data", "odd").out
    assert "\x1b" not in text
    invoke("verify", tiny, "--data", "odd", "--save", "saved")
    assert invoke("merge", "saved", "--json").json() == facts


def test_a_class_with_a_newline_in_its_name(invoke: Any, tiny: Path, home: Path) -> None:
    for index in range(4):
        put(home / "nl" / ("ant" if index % 2 else "b\nee") / f"{index}.png", index)
    done = invoke("verify", tiny, "--data", "nl")
    assert done.failed_with(3, "E0368") and len(done.err.splitlines()) < 24


@pytest.mark.slow
def test_ten_thousand_files_take_no_more_memory_than_a_thousand(tiny: Path, home: Path) -> None:
    for index in range(10_000):
        label = ("ant", "bee", "cat")[index % 3]
        for size in (1000, 10_000):
            if index < size:
                folder = home / f"d{size}/{label}"
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels(index)).save(folder / f"{index:05}.png")
    program = """
import sys, resource
from pathlib import Path
from convexport.benchmarks.verify import verify
from convexport.calibration.images import folder
n = verify(Path(sys.argv[1]), folder(Path(sys.argv[2]))).parity.n
print(n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = {}
    for size in (1000, 10_000):
        out = subprocess.run([sys.executable, "-c", program, tiny, home / f"d{size}"],
                             capture_output=True, text=True, check=True).stdout  # fmt: skip
        n, peaks[size] = map(int, out.split())
        assert n == size
    # A name is a hundred bytes or so; the logits and hashes of all would be more than that.
    assert peaks[10_000] - peaks[1000] < 4 * 1024, peaks
