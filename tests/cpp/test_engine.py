"""The numbers of a loaded bundle are those of Python."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from convexport.runtime.engine import load
from convexport.runtime.errors import InputError
from tests.tiny import MODEL, WEIGHTS, seal, write_bundle

from .bundles import fixed_batch_model
from .conftest import SANITIZERS, STILL, Probe, lines_of
from .test_pixels import noise

pytestmark = pytest.mark.slow  # builds the library first

CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def batch(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def dims(array: np.ndarray) -> list[str]:
    return [str(size) for size in array.shape]


def logits(probe: Probe, bundle: Path, inputs: np.ndarray, scratch: Path) -> np.ndarray:
    inputs.tofile(scratch / "inputs")
    assert probe("run", bundle, scratch / "inputs", scratch / "outputs", *dims(inputs)) == []
    return np.fromfile(scratch / "outputs", np.float32).reshape(len(inputs), -1)


def test_a_batch_of_any_size_gives_what_the_layer_gives(
    probe: Probe, tiny: Path, tmp_path: Path
) -> None:
    for size in (1, 2, 7):
        inputs = batch(size, 1, 2, 2)
        expected = inputs.reshape(size, 4) @ WEIGHTS.T
        np.testing.assert_allclose(logits(probe, tiny, inputs, tmp_path), expected, **CLOSE)


def test_a_built_int8_bundle_gives_the_logits_of_python(
    probe: Probe, digits: Path, tmp_path: Path
) -> None:
    for size in (1, 5):
        inputs = batch(size, 1, 32, 32)
        expected = load(digits)(inputs)
        np.testing.assert_allclose(logits(probe, digits, inputs, tmp_path), expected, **CLOSE)


def test_a_shape_of_more_values_than_can_be_counted_is_refused(
    probe: Probe, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "none").touch()
    (answer,) = probe("run", tiny, tmp_path / "none", tmp_path / "out", 2**62, 1, 2, 2)
    assert answer.startswith("E0201 the input has another number of values than its shape says")


@pytest.mark.parametrize("shape", [(1, 1, 2, 3), (1, 2, 2), (0, 1, 2, 2), (1, 4), ()])
def test_another_shape_is_refused(
    probe: Probe, tiny: Path, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    inputs = batch(*shape)
    np.asarray(inputs).tofile(tmp_path / "inputs")
    (answer,) = probe("run", tiny, tmp_path / "inputs", tmp_path / "outputs", *dims(inputs))
    expected = f"expected input: float32 batchx1x2x2, given float32 {'x'.join(dims(inputs))}"
    assert answer == f"E0201 the input does not fit the model\x1fwhere: {expected}"


def test_values_of_the_caller_have_a_length_and_logits_a_place(probe: Probe, tiny: Path) -> None:
    assert probe("spans", tiny) == [
        "2x3 1",
        "E0201 the input has another number of values than its shape says\x1fwhere: 7 for 2x1x2x2",
        *(
            "E0201 the memory for the output has another number of values than that\x1f"
            f"where: {size} for 2x3"
            for size in (5, 7)
        ),
    ]


def test_an_engine_that_was_moved_away_says_so(probe: Probe, tiny: Path) -> None:
    answers = probe("moved", tiny)  # which loads it twice, too
    assert answers[0].startswith("3 onnxruntime ")
    assert [answer[:32] for answer in answers[1:3]] == ["E0207 the engine was moved away\x1f"] * 2
    assert answers[3] == ""


@pytest.mark.parametrize("name", ["it's", 'a "b"', "two\nlines", "-v", "ü ☃", "n" * 255])
def test_any_name_of_a_folder_will_do(
    probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = write_bundle(tmp_path / name)
    noise(9, 9).save(folder / "image.png")
    assert probe("load", folder)[0].startswith("ok ")
    monkeypatch.chdir(tmp_path)
    assert len(probe("classify", f"./{name}", "3", f"./{name}/image.png")) == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "CUDA failure 100: no CUDA-capable device is detected ; GPU=0",
            "E0404 CUDA finds no usable GPU here",
        ),
        (
            "OrtSessionOptionsAppendExecutionProvider_Cuda: Failed to load shared library",
            "E0402 a library that CUDAExecutionProvider needs is not here",
        ),
        (
            "This session contains graph nodes that are assigned to the default CPU EP, but "
            "fallback to CPU EP has been explicitly disabled by the user.",
            "E0402 ONNX Runtime has no CUDAExecutionProvider here that works and takes the whole",
        ),
        ("Protobuf parsing failed.", "E0303 ONNX Runtime cannot load the model"),
    ],
)
def test_what_cuda_lacks_is_told_apart(probe: Probe, words: str, told: str) -> None:
    (answer,) = probe("failure", "CUDAExecutionProvider", words)
    assert answer.startswith(told)


def test_a_failure_in_the_middle_of_a_run_is_an_error_of_ours(probe: Probe, tmp_path: Path) -> None:
    # Rows of the weights are looked up: there is no hundredth.
    steps = """picked = Cast<to = 7> (input)  rows = Gather (w, picked)
        most = ReduceMax<keepdims = 0> (rows)  none = Sub (most, most)
        flat = Flatten<axis = 1> (input)  sums = Gemm<transB = 1> (flat, w)
        logits = Add (sums, none)"""
    model = MODEL[: MODEL.index("flat =")] + steps + "}"
    bundle = write_bundle(tmp_path / "one", model)
    np.full((2, 1, 2, 2), 100, np.float32).tofile(tmp_path / "inputs")
    words = (bundle, tmp_path / "inputs", tmp_path / "outputs", 2, 1, 2, 2)
    (answer,) = probe("run", *words)
    with pytest.raises(InputError) as told:
        load(bundle)(np.full((2, 1, 2, 2), 100, np.float32))
    problem, where, why = told.value.lines()
    assert problem == "E0303 ONNX Runtime cannot run the model"
    assert answer.startswith(f"{problem}\x1f{where}\x1fwhy: ")
    assert "Gather" in why and "Gather" in answer


def test_labels_and_probabilities_are_those_of_python(
    probe: Probe, digits: Path, tmp_path: Path
) -> None:
    noise(60, 80).save(tmp_path / "image.jpg")
    answer = [line.split("\t") for line in probe("classify", digits, 4, tmp_path / "image.jpg")]
    ((*expected,),) = load(digits).classify([tmp_path / "image.jpg"], 4)
    assert [label for label, _ in answer] == [label for label, _ in expected]
    np.testing.assert_allclose([float(p) for _, p in answer], [p for _, p in expected], **CLOSE)


def test_a_large_logit_before_many_small_ones_has_the_probability_of_python(
    probe: Probe, tmp_path: Path
) -> None:
    classes = 1000
    bundle = write_bundle(tmp_path / "many", MODEL.replace("3] logits", f"{classes}] logits"))
    weights = np.zeros((classes, 4), np.float32)
    weights[0] = 17 / 4  # all pixels are 1
    model = onnx.load(bundle / "model.onnx")
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w"))
    onnx.save(model, bundle / "model.onnx")
    np.save(bundle / "sample/input.npy", np.ones((1, 1, 2, 2), np.float32))
    np.save(bundle / "sample/expected.npy", weights.sum(1)[None])
    (bundle / "labels.txt").write_text("".join(f"{index}\n" for index in range(classes)))
    seal(bundle, lambda data: data["output"].update(shape=["batch", classes]))
    noise(9, 9).point(lambda value: 255).save(tmp_path / "white.png")
    answer = probe("classify", bundle, classes, tmp_path / "white.png")
    exact = np.exp(np.array([17.0, *[0.0] * (classes - 1)]) - 17)
    probabilities = [float(line.split("\t")[1]) for line in answer]
    np.testing.assert_allclose(probabilities, exact / exact.sum(), rtol=1e-6)


def test_a_fixed_batch_is_filled_up_and_ties_keep_their_order(probe: Probe, tmp_path: Path) -> None:
    expected = np.ones((3, 4), np.float32) @ WEIGHTS.T
    bundle = write_bundle(tmp_path / "three", fixed_batch_model(3), expected)
    np.save(bundle / "sample/input.npy", np.ones((3, 1, 2, 2), np.float32))

    def fixed(data: dict[str, dict[str, list[int]]]) -> None:
        data["input"]["shape"][0] = data["output"]["shape"][0] = 3

    seal(bundle, fixed)
    noise(9, 9).point(lambda value: 0).save(tmp_path / "black.png")
    answer = [line.split("\t") for line in probe("classify", bundle, 9, tmp_path / "black.png")]
    assert [label for label, _ in answer] == ["ant", "bee", "cat"]
    assert {round(float(p), 6) for _, p in answer} == {0.333333}


def test_threads_share_an_engine(tsan: Path, digits: Path, tmp_path: Path) -> None:
    inputs = batch(2, 1, 32, 32)
    inputs.tofile(tmp_path / "inputs")
    words = ("threads", digits, tmp_path / "inputs", "4", "25", *dims(inputs))
    assert lines_of(tsan / "probe", *words) == ["0"] * 4


SEEN = {
    "overrun": b"heap-buffer-overflow",
    "overflow": b"signed integer overflow",
    "leak": b"detected memory leaks",
    "race": b"data race",
}


@pytest.mark.parametrize(
    ("build", "defect"),
    [("asan", "overrun"), ("asan", "overflow"), ("asan", "leak"), ("tsan", "race")],
)
def test_the_sanitizers_see_a_defect(
    request: pytest.FixtureRequest, build: str, defect: str
) -> None:
    program = request.getfixturevalue(build) / "probe"
    environment = {**os.environ, **SANITIZERS}
    words = [*STILL, program, "defect", defect]
    done = subprocess.run(words, capture_output=True, env=environment)
    assert done.returncode != 0
    assert SEEN[defect] in done.stderr


def test_nothing_is_reported_or_left_in_the_home(asan: Path, tiny: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, **SANITIZERS, "HOME": str(home)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    for variable in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        environment.pop(variable, None)
    subprocess.run([*STILL, asan / "probe", "load", tiny], check=True, env=environment)
    assert list(home.rglob("*")) == []
