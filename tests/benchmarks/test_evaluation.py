"""Parts of a pass against the whole, and the whole against numpy, with a net that is a matrix."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convexport.benchmarks.accuracy import paired_accuracy
from convexport.benchmarks.checkpoint import Checkpoint
from convexport.benchmarks.evaluation import Evaluation, PassTally
from convexport.benchmarks.parity import compare, parity_of
from convexport.benchmarks.parity_tally import EDGES, ParityTally, tallied
from convexport.benchmarks.tally import exact, nearest
from convexport.calibration.images import ImageItem, ImageSet, folder
from convexport.runtime.errors import InputError
from convexport.runtime.preprocess import preprocess
from convexport.runtime.specs import Preprocess, TensorSpec

SPEC = Preprocess(crop=(4, 4), resize=(4, 4), channels="L", mean=(0.5,), std=(0.5,))
CLASSES = 7
WEIGHTS = np.random.default_rng(0).standard_normal((16, CLASSES)).astype(np.float32)


class Net:
    """Logits of flattened pixels, rounded to steps."""

    inputs = (TensorSpec("x", ("batch", 1, 4, 4)),)
    outputs = (TensorSpec("y", ("batch", CLASSES)),)

    def __init__(self, step: float = 0.0) -> None:
        self.step = step

    def run(self, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        y = feed["x"].reshape(len(feed["x"]), -1) @ WEIGHTS
        return {"y": np.round(y / self.step) * np.float32(self.step) if self.step else y}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    for index in range(53):
        path = tmp_path / f"data/{index % 5}/{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (4, 4), np.uint8)).save(path)
    return tmp_path / "data"


def a_pass(data: Path, **options: object) -> Evaluation:
    images = folder(data)
    return Evaluation(Net(), Net(0.8), SPEC, images, indices=range(5), **options)  # type: ignore[arg-type]


def counted(evaluation: Evaluation, part: tuple[int, int] = (1, 1)) -> PassTally:
    return evaluation.run(part, Checkpoint(None), lambda done, total: None)


def whole_logits(data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    paths = sorted(data.rglob("*.png"))
    x = np.stack([preprocess(path, SPEC) for path in paths])
    labels = np.array([int(path.parent.name) for path in paths])
    return Net().run({"x": x})["y"], Net(0.8).run({"x": x})["y"], labels


def test_a_pass_counts_what_numpy_counts(data: Path) -> None:
    tally = counted(a_pass(data))
    expected, actual, labels = whole_logits(data)
    assert (tally.images.read, tally.images.skipped) == (53, 0)
    found, want = parity_of(tally.parity), compare(expected, actual)
    assert (found.top1, found.top5, found.worst) == (want.top1, want.top5, want.worst)
    assert found.sqnr_db == pytest.approx(want.sqnr_db, rel=1e-6)
    assert 0 < found.top1.k < 53
    picks = zip(expected.argmax(axis=1), actual.argmax(axis=1), strict=True)
    assert tally.parity.changed == Counter(f"{a}>{b}" for a, b in picks if a != b)
    accuracy = paired_accuracy(expected, actual, labels)
    assert tally.top1.result() == accuracy
    five = np.argsort(-actual, axis=1, kind="stable")[:, :5]
    among = [label in row for row, label in zip(five, labels, strict=True)]
    assert tally.top5.actual == sum(among)


def test_the_histogram_is_of_shares_of_each_images_largest_logit(data: Path) -> None:
    expected, actual, _ = whole_logits(data)
    found = counted(a_pass(data)).parity.histogram()
    shares = np.abs(actual.astype(float) - expected) / np.abs(expected).max(axis=1, keepdims=True)
    want, _ = np.histogram(shares, found["edges"])
    assert found["counts"] == want.tolist()
    assert sum(found["counts"]) == 53 * CLASSES and len(found["edges"]) == len(want) + 1


def test_what_the_histogram_cannot_place_is_at_its_ends() -> None:
    reference = np.array([[0.0, 0.0], [1.0, 2.0], [np.nan, 1.0]])
    actual = np.array([[0.0, 3.0], [1.0, 1e9], [1.0, 1.0]])
    counts = tallied(reference, actual).histogram()["counts"]
    assert (counts[0], counts[-1], sum(counts)) == (2, 2, 4)
    assert list(EDGES) == sorted(set(EDGES))


@pytest.mark.parametrize("count", [2, 3, 7, 20])
def test_parts_add_up_to_the_whole_in_any_order(data: Path, count: int) -> None:
    (data / "2" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    evaluation = a_pass(data, skip=True)
    parts = [counted(evaluation, (i, count)) for i in range(1, count + 1)]
    assert sum(part.images.read for part in parts) == 53
    for order in (parts, parts[::-1]):
        whole = PassTally()
        for part in order:
            # By way of a file, as shards come.
            whole.absorb(PassTally.from_dict(json.loads(json.dumps(part.to_dict()))))
        assert whole.to_dict() == counted(evaluation).to_dict()
    assert [row[:2] for row in whole.images.skipped_images] == [[33, "2/cut.png"]]


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_an_interrupted_pass_goes_on_where_it_was(data: Path, tmp_path: Path, stop: int) -> None:
    evaluation, file = a_pass(data), tmp_path / "cache/begun"
    seen: list[int] = []

    def until(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluation.run((1, 1), Checkpoint(file, 0), until)
    again: list[int] = []
    tally = evaluation.run((1, 1), Checkpoint(file, 0), lambda done, total: again.append(done))
    assert tally.to_dict() == counted(evaluation).to_dict()
    # The block that was not kept is the only one that is seen twice.
    assert again[0] == seen[-1] and again[-1] == 53


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"data": {}, "sha256": "0"}', b"\xff" * 40])
def test_a_damaged_checkpoint_starts_anew(data: Path, tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "begun"
    file.write_bytes(damage)
    evaluation = a_pass(data)
    tally = evaluation.run((1, 1), Checkpoint(file, 0), lambda done, total: None)
    assert tally.images.read == 53


def test_a_pass_that_cannot_be_kept_goes_on(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    checkpoint = Checkpoint(tmp_path / "file/under/it", 0)
    tally = a_pass(data).run((1, 1), checkpoint, lambda done, total: None)
    checkpoint.done()
    assert tally.images.read == 53 and (tmp_path / "file").read_bytes() == b""


def test_bad_images_end_a_pass_unless_they_may_be_skipped(data: Path) -> None:
    for name in ("0/x.png", "4/y.png"):
        (data / name).write_bytes(b"no image")
    with pytest.raises(InputError, match="E0342 at least 2 of 55") as caught:
        counted(a_pass(data))
    assert "0/x.png" in caught.value.where and "4/y.png" in caught.value.where
    tally = counted(a_pass(data, skip=True))
    assert (tally.images.read, tally.images.skipped, tally.parity.n) == (53, 2, 53)
    assert [row[:2] for row in tally.images.skipped_images] == [[11, "0/x.png"], [54, "4/y.png"]]


def test_a_block_without_an_image_is_no_block(tmp_path: Path) -> None:
    for index in range(11):
        (tmp_path / f"{index:02}.png").write_bytes(b"no image")
    Image.new("L", (4, 4), 9).save(tmp_path / "good.png")
    images = folder(tmp_path)
    tally = counted(Evaluation(Net(), Net(), SPEC, images, skip=True))
    assert (tally.images.read, tally.images.skipped, tally.images.constant) == (1, 11, 1)
    assert tally.top1.n == 0


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    """Of a net with many classes: kept, the logits of 1,200 images would be 19 MB."""
    import tracemalloc

    weights = np.ones((16, 2000), np.float32)

    class Wide(Net):
        outputs = (TensorSpec("y", ("batch", 2000)),)

        def run(self, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            x = feed["x"].reshape(len(feed["x"]), -1)
            return {"y": x @ weights}

    class Drawn(Sequence[ImageItem]):
        def __init__(self, count: int) -> None:
            self.count = count

        def __len__(self) -> int:
            return self.count

        def __getitem__(self, index: Any) -> Any:
            if isinstance(index, slice):
                return tuple(self[k] for k in range(self.count)[index])
            image = Image.fromarray(np.random.default_rng(index).integers(0, 256, (4, 4), np.uint8))
            return ImageItem(str(index), lambda: image)

    peaks = []
    for count in (24, 1200):
        images = ImageSet(kind="digits", description="", items=Drawn(count))
        tracemalloc.start()
        tally = counted(Evaluation(Wide(), Wide(), SPEC, images))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert tally.parity.n == count
    assert peaks[1] < peaks[0] + 1_000_000, peaks


def test_content_is_part_of_the_fingerprint_and_so_is_its_place(data: Path) -> None:
    before = counted(a_pass(data)).images.content
    one, other = data / "0/00.png", data / "0/05.png"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    assert counted(a_pass(data)).images.content != before
    one.write_bytes(first)
    other.write_bytes(second)
    assert counted(a_pass(data)).images.content == before


def sums() -> Iterator[list[float]]:
    rng = np.random.default_rng(0)
    yield [0.1] * 10
    yield [1e308, 5e-324, -1e308]
    yield (rng.standard_normal(1000) * 10.0 ** rng.integers(-30, 30, 1000)).tolist()


@pytest.mark.parametrize("values", list(sums()))
def test_sums_do_not_depend_on_their_order(values: list[float]) -> None:
    from math import fsum

    orders = [values, values[::-1], sorted(values)]
    assert {nearest(sum(map(exact, order))) for order in orders} == {fsum(values)}


def test_equal_rows_are_seen_across_parts() -> None:
    same, other = np.ones((2, 3)), np.zeros((2, 3))
    for second, want in ((same, True), (other, False)):
        tally = ParityTally()
        tally.absorb(tallied(same, same))
        tally.absorb(tallied(second, second))
        assert parity_of(tally).constant_reference is want
