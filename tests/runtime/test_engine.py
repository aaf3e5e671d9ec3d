"""Loading a bundle and running it, against the same net in numpy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convexport.runtime.engine import load
from convexport.runtime.errors import (
    GateError,
    InputError,
    MachineError,
    UnsupportedError,
    UsageError,
)

Seal = Callable[..., Path]
Expected = Callable[[np.ndarray], np.ndarray]


def test_a_sound_bundle_gives_the_nets_logits(bundle: Path, expected: Expected) -> None:
    engine = load(bundle)
    batch = np.random.default_rng(0).standard_normal((5, 1, 2, 2), dtype=np.float32)
    np.testing.assert_allclose(engine(batch), expected(batch), rtol=1e-5, atol=1e-5)
    assert engine.labels == ("ant", "bee", "cat")
    assert engine.manifest.data["something_new"]


def test_only_tensorrt_records_its_launches(bundle: Path) -> None:
    with pytest.raises(UsageError, match="E0207 onnxruntime records no launches"):
        load(bundle, cuda_graph=True)


def test_classify_gives_probabilities_of_the_best(
    bundle: Path, tmp_path: Path, expected: Expected
) -> None:
    pixels = np.array([[0, 50], [100, 255]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    logits = expected((pixels / np.float32(255)).reshape(1, 1, 2, 2).astype(np.float32))[0]
    shares = np.exp(logits) / np.exp(logits).sum()
    (answer,) = load(bundle).classify([tmp_path / "image.png"], top=2)
    assert [label for label, _ in answer] == ["cat", "bee"]
    np.testing.assert_allclose([share for _, share in answer], shares[[2, 1]], rtol=1e-4)


def test_threads_share_an_engine(bundle: Path, expected: Expected) -> None:
    engine = load(bundle, threads=1)
    random = np.random.default_rng(1)
    batches = [random.standard_normal((n % 7 + 1, 1, 2, 2), dtype=np.float32) for n in range(40)]
    answers: list[np.ndarray | None] = [None] * len(batches)

    def work(start: int) -> None:
        for index in range(start, len(batches), 8):
            for _ in range(20):
                answers[index] = engine(batches[index])

    threads = [threading.Thread(target=work, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for batch, answer in zip(batches, answers, strict=True):
        assert answer is not None
        np.testing.assert_allclose(answer, expected(batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("input", {"name": "other", "shape": ["batch", 1, 2, 2], "dtype": "float32"}),
        ("output", {"name": "other", "shape": ["batch", 3], "dtype": "float32"}),
        ("output", {"name": "logits", "shape": ["batch", 10**12], "dtype": "float32"}),
    ],
)
def test_a_manifest_of_another_model_is_refused(
    bundle: Path, key: str, value: Any, seal: Seal
) -> None:
    (bundle / "labels.txt").unlink()
    seal(bundle, lambda data: data.update({key: value}))
    with pytest.raises(InputError) as error:
        load(bundle)
    assert error.value.code == "E0315"


@pytest.mark.parametrize("labels", [b"ant\nbee\n", b"ant\nbee\ncat\ndog\n", b"\xff\n" * 3, b""])
def test_labels_that_do_not_fit_are_refused(bundle: Path, labels: bytes, seal: Seal) -> None:
    (bundle / "labels.txt").write_bytes(labels)
    with pytest.raises(InputError) as error:
        load(seal(bundle))
    assert error.value.code == "E0307"


def test_without_labels_the_classes_are_numbered(bundle: Path, seal: Seal) -> None:
    (bundle / "labels.txt").unlink()
    assert load(seal(bundle)).labels == ("class 0", "class 1", "class 2")


def test_an_altered_golden_sample_fails_the_gate(bundle: Path, seal: Seal) -> None:
    """Altered together with its hash: only computing it again tells."""
    path = bundle / "sample/expected.npy"
    np.save(path, np.load(path) * np.float32(1.01))
    with pytest.raises(GateError) as error:
        load(seal(bundle))
    assert (error.value.code, error.value.exit_code) == ("E0500", 5)
    assert load(bundle, self_test=False).labels


def test_a_golden_sample_of_nothing_fails_the_gate(bundle: Path, seal: Seal) -> None:
    np.save(bundle / "sample/expected.npy", np.full((1, 3), np.nan, np.float32))
    with pytest.raises(GateError):
        load(seal(bundle))


@pytest.mark.parametrize("name", ["input", "expected"])
@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1, 1, 7), np.float32),
        np.zeros((1, 1, 2, 2)),
        np.array([["a"]]),
        None,
        "zip",
        "huge",
    ],
    ids=["shape", "dtype", "text", "empty", "zip", "huge"],
)
def test_a_golden_sample_that_is_no_such_array_is_refused(
    bundle: Path, name: str, array: Any, seal: Seal
) -> None:
    path = bundle / f"sample/{name}.npy"
    if array is None:
        path.write_bytes(b"")
    elif isinstance(array, str):
        header = {"descr": "<f4", "fortran_order": False, "shape": (1, 1 << 58)}
        with path.open("wb") as file:
            if array == "huge":
                np.lib.format.write_array_header_1_0(file, header)
            else:
                np.savez(file, np.zeros(3))
    else:
        np.save(path, array)
    with pytest.raises(InputError) as error:
        load(seal(bundle))
    assert error.value.code == "E0308"


def test_a_pickle_in_the_golden_sample_is_not_loaded(bundle: Path, seal: Seal) -> None:
    np.save(bundle / "sample/input.npy", np.array([{"code": 1}], object), allow_pickle=True)
    with pytest.raises(InputError) as error:
        load(seal(bundle))
    assert error.value.code == "E0308"


def test_a_provider_that_is_not_here_is_never_replaced(bundle: Path, seal: Seal) -> None:
    seal(bundle, lambda data: data.update(provider="SomeExecutionProvider"))
    with pytest.raises(MachineError, match="SomeExecutionProvider") as error:
        load(bundle)
    assert "CPUExecutionProvider" in error.value.where


def test_another_runtime_is_said_to_be_not_supported(bundle: Path, seal: Seal) -> None:
    seal(bundle, lambda data: data.update(runtime="tvm"))
    with pytest.raises(UnsupportedError, match="tvm"):
        load(bundle)


def test_a_model_that_does_not_load_is_an_input_error(bundle: Path, seal: Seal) -> None:
    (bundle / "model.onnx").write_bytes(b"junk")
    with pytest.raises(InputError) as error:
        load(seal(bundle))
    assert error.value.code == "E0303"
