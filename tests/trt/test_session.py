"""The session copies, runs and copies back, between a fake driver and a recording double.

That proves wiring; what a GPU computes is compared in ``tests/gpu``.
"""

from __future__ import annotations

import ctypes
import gc
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convexport.runtime import cuda
from convexport.runtime.batches import run_in_batches
from convexport.runtime.errors import ConvexportError, InputError, MachineError, UsageError
from convexport.runtime.sessions import open_session
from convexport.runtime.specs import TensorSpec
from convexport.runtime.trt_builder import build_plan
from convexport.runtime.trt_config import TrtOptions
from convexport.runtime.trt_plan import PlanFacts, facts_file, this_platform
from convexport.runtime.trt_session import TrtSession
from tests.tiny import logits

from .conftest import VERSIONS, Says, sha256

Make = Callable[..., Path]


@pytest.fixture
def plan(tensorrt: Says, onnx_file: Path, tmp_path: Path) -> Make:
    """A plan with its facts, for batches of 1 to 8."""

    def make(version: str = "10.3", says: Any = None, **options: Any) -> Path:
        trt = tensorrt(version, **(says or {}))
        asked = TrtOptions(typed=version == "11.1", **{"batch": (1, 4, 8), **options})
        path = tmp_path / "model.plan"
        path.write_bytes(build_plan(onnx_file, asked).plan)
        gpu = cuda.cuda().gpu
        PlanFacts(
            sha256=sha256(path),
            onnx_sha256=sha256(onnx_file),
            tensorrt=trt.__version__,
            gpu=gpu.name,
            compute_capability=gpu.compute_capability,
            platform=this_platform(),
            driver=gpu.driver,
            options=asked,
        ).write(path)
        return path

    return make


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 1, 2, 2), dtype=np.float32)


def edit(plan: Path, **changes: Any) -> Path:
    data = json.loads(facts_file(plan).read_text())
    facts_file(plan).write_text(json.dumps({**data, **changes}))
    return plan


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_it_runs_every_batch_of_its_profile(plan: Make, version: str, cuda_graph: bool) -> None:
    session = TrtSession(plan(version), cuda_graph=cuda_graph)
    assert session.inputs == (TensorSpec("input", ("batch", 1, 2, 2)),)
    assert session.outputs == (TensorSpec("logits", ("batch", 3)),)
    for seed, count in enumerate((1, 1, 1, 8, 8, 3, 8, 8, 8)):
        batch = images(count, seed)
        np.testing.assert_allclose(session.run({"input": batch})["logits"], logits(batch), 1e-6)


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_events_tell_what_the_gpu_takes(plan: Make, library: Path, cuda_graph: bool) -> None:
    session, batch = TrtSession(plan(), cuda_graph=cuda_graph), images(2)
    live = ctypes.c_int.in_dll(ctypes.CDLL(str(library)), "live")
    before = live.value
    assert session.compute_ms(2, 3) == [1.0] * 3  # the double's clock
    assert live.value == before
    for _ in range(3):  # what was set for it does not stay
        np.testing.assert_allclose(session.run({"input": batch})["logits"], logits(batch), 1e-6)
    with pytest.raises(UsageError, match="E0203"):
        session.compute_ms(9, 1)


def test_the_door_to_all_runtimes_opens_it(plan: Make) -> None:
    session = open_session(plan("8.5"), runtime="tensorrt", provider="CUDA")
    assert (session.runtime, session.provider) == ("tensorrt 8.5.3.1", "CUDA")
    with pytest.raises(MachineError, match="E0402"):
        open_session(plan("8.5"), runtime="tensorrt", provider="NPU")


def test_results_are_the_callers_own(plan: Make) -> None:
    session = TrtSession(plan())
    first = session.run({"input": images(2, 1)})["logits"]
    session.run({"input": images(2, 2)})
    np.testing.assert_allclose(first, logits(images(2, 1)), 1e-6)


def test_inputs_need_not_be_contiguous(plan: Make) -> None:
    batch = images(6)[::2]
    np.testing.assert_allclose(
        TrtSession(plan()).run({"input": batch})["logits"], logits(batch), 1e-6
    )


def test_many_images_go_through_a_small_profile(plan: Make) -> None:
    session = TrtSession(plan(batch=(1, 2, 3)))
    np.testing.assert_allclose(run_in_batches(session, images(10)), logits(images(10)), 1e-6)


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_threads_may_share_it(plan: Make, cuda_graph: bool) -> None:
    session = TrtSession(plan(), cuda_graph=cuda_graph)
    batches = [images(1 + seed % 8, seed) for seed in range(64)]
    with ThreadPoolExecutor(4) as pool:
        given = pool.map(lambda batch: session.run({"input": batch})["logits"], batches)
    for batch, result in zip(batches, given, strict=True):
        np.testing.assert_allclose(result, logits(batch), 1e-6)


@pytest.mark.parametrize("count", [1, 5])
def test_a_batch_outside_the_profile_is_refused(plan: Make, count: int) -> None:
    session = TrtSession(plan(batch=(2, 3, 4)))
    with pytest.raises(UsageError, match=f"E0203 the engine takes batches of 2 to 4, not {count}"):
        session.run({"input": images(count)})


def test_what_is_no_input_is_refused(plan: Make) -> None:
    session = TrtSession(plan())
    for feed in ({"x": images(1)}, {"input": images(1).astype(np.float64)}):
        with pytest.raises(UsageError, match="E0201"):
            session.run(feed)


class OnGpu:
    """An array in the fake driver's memory, as a library of arrays would offer it."""

    def __init__(self, array: np.ndarray, **more: Any) -> None:
        gpu, self.array = cuda.cuda(), array
        gpu.enter()
        self.address = gpu.allocate(array.nbytes)
        stream = gpu.stream()
        gpu.upload(self.address, array.ctypes.data, array.nbytes, stream)
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (self.address, False),
            "version": 3,
            "strides": None,
            "stream": stream,
            **more,
        }

    def fetch(self) -> np.ndarray:
        gpu, out = cuda.cuda(), np.empty_like(self.array)
        gpu.download(out.ctypes.data, self.address, out.nbytes, gpu.stream())
        return out


def test_arrays_on_the_gpu_stay_there(plan: Make) -> None:
    session = TrtSession(plan(), cuda_graph=True)
    for _ in range(2):  # with and without a recording of the same shape between
        batch = images(4, 1)
        given, taken = OnGpu(batch), OnGpu(np.zeros((4, 3), np.float32))
        session.run_on_device({"input": given, "logits": taken})
        np.testing.assert_allclose(taken.fetch(), logits(batch), 1e-6)
        for seed in (2, 3, 4):
            other = images(4, seed)
            np.testing.assert_allclose(session.run({"input": other})["logits"], logits(other), 1e-6)


@pytest.mark.parametrize(
    ("room", "more"),
    [((3, 3), {}), ((4, 3), {"strides": (4, 16)}), ((4, 3), {"typestr": "<f8"})],
)
def test_arrays_on_the_gpu_that_do_not_fit_are_refused(
    plan: Make, room: tuple[int, ...], more: dict[str, Any]
) -> None:
    arrays = {"input": OnGpu(images(4)), "logits": OnGpu(np.zeros(room, np.float32), **more)}
    with pytest.raises(UsageError, match="E0201"):
        TrtSession(plan()).run_on_device(arrays)


def test_nothing_is_left_behind(plan: Make, driver: Path) -> None:
    live = ctypes.c_int.in_dll(ctypes.CDLL(str(driver)), "live")
    gc.collect()  # what other tests left
    before = live.value
    session = TrtSession(plan(), cuda_graph=True)
    for _ in range(3):
        session.run({"input": images(2)})
    assert live.value > before
    del session
    gc.collect()
    assert live.value == before


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"platform": "linux-aarch65"}, "built for platform linux-aarch65, here is"),
        ({"tensorrt": "10.3.0.27"}, "built for TensorRT 10.3.0.27, here is 10.3.0.26"),
        ({"tensorrt": "11.1.0.106"}, "built for TensorRT 11.1.0.106, here is 10.3.0.26"),
        ({"compute_capability": "9.0"}, r"built for GPU Orin \(9.0\), here is Orin \(8.7\)"),
        ({"gpu": "Xavier"}, r"built for GPU Xavier \(8.7\), here is Orin \(8.7\)"),
    ],
)
def test_a_plan_of_another_machine_is_refused_before_it_is_read(
    plan: Make, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], told: str
) -> None:
    path = edit(plan(), **changes)
    monkeypatch.setattr("convexport.runtime.trt_session.load_engine", pytest.fail)
    with pytest.raises(MachineError, match=f"E0407[\\s\\S]*{told}"):
        TrtSession(path)


@pytest.mark.parametrize(
    ("built", "here", "runs"),
    [
        ("8.6", "10.3", True),
        ("10.3", "10.16", True),
        ("10.3", "11.1", True),
        ("8.6", "11.1", False),
        ("10.16", "10.3", False),
    ],
)
def test_version_compatible_plans_go_one_major_up(
    plan: Make, tensorrt: Says, built: str, here: str, runs: bool
) -> None:
    path = plan(built, version_compatible=True)
    tensorrt(here)
    if runs:
        assert TrtSession(path).run({"input": images(1)})
    else:
        with pytest.raises(MachineError, match="E0407"):
            TrtSession(path)


@pytest.mark.parametrize(
    ("hardware", "capability", "name", "runs"),
    [
        ("ampere_plus", 90, "H200", True),
        ("ampere_plus", 75, "T4", False),
        ("same_compute_capability", 87, "Orin Nano", True),
        ("same_compute_capability", 86, "Orin", False),
        ("same", 87, "Orin Nano", False),
    ],
)
def test_hardware_compatible_plans_go_to_other_gpus(
    plan: Make,
    monkeypatch: pytest.MonkeyPatch,
    hardware: str,
    capability: int,
    name: str,
    runs: bool,
) -> None:
    path = plan("10.16", hardware=hardware)
    monkeypatch.setenv("FAKE_CUDA_CAPABILITY", str(capability))
    monkeypatch.setenv("FAKE_CUDA_NAME", name)
    cuda.cuda.cache_clear()
    if runs:
        assert TrtSession(path).run({"input": images(1)})
    else:
        with pytest.raises(MachineError, match="E0407"):
            TrtSession(path)


def test_a_plan_that_was_changed_is_no_plan(plan: Make) -> None:
    path = plan()
    whole = path.read_bytes()
    metadata = json.dumps({"author": "Ultralytics", "stride": 32}).encode()
    for data, told in (
        (whole[:-1], f"it has {len(whole) - 1} bytes"),
        (b"", "the file is empty"),
        (
            len(metadata).to_bytes(4, "little") + metadata + whole,
            f"{len(metadata) + 4} bytes of metadata by Ultralytics stand before the plan",
        ),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=f"E0316[\\s\\S]*{told}"):
            TrtSession(path)


@pytest.mark.parametrize(
    "facts",
    [None, "[]", "{}", '{"options": {}}', "not JSON"],
)
def test_a_plan_that_nothing_is_known_of_is_refused(plan: Make, facts: str | None) -> None:
    path = plan()
    facts_file(path).unlink()
    if facts is not None:
        facts_file(path).write_text(facts)
    with pytest.raises(InputError, match=r"E0317|E0318|E0302"):
        TrtSession(path)


def test_a_plan_that_tensorrt_does_not_take_is_told_in_its_words(plan: Make) -> None:
    path = plan()
    path.write_bytes(b"junk")
    with pytest.raises(InputError, match=r"E0316[\s\S]*magicTag"):
        TrtSession(edit(path, sha256=sha256(path)))


def test_an_onnx_file_without_an_engine_says_what_to_do(tensorrt: Says, onnx_file: Path) -> None:
    tensorrt("8.5")
    with pytest.raises(MachineError, match=r"E0409[\s\S]*build_on_device\.py"):
        TrtSession(onnx_file)


def test_a_gpu_without_room_is_told_before_the_engine_runs(
    plan: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plan("10.3")
    monkeypatch.setenv("FAKE_CUDA_FREE_MIB", "0")
    with pytest.raises(MachineError, match=r"E0406[\s\S]*at least 1 MiB are needed, 0 MiB"):
        TrtSession(path)


def test_a_lost_gpu_says_to_start_again(plan: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    session = TrtSession(plan())
    monkeypatch.setenv("FAKE_CUDA_SYNC", "700")
    with pytest.raises(MachineError, match=r"E0405[\s\S]*lost to this process") as caught:
        session.run({"input": images(1)})
    assert "start a new process" in caught.value.hint


def test_no_driver_and_no_gpu_are_told(
    tensorrt: Says, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorrt("10.3")
    monkeypatch.setenv("FAKE_CUDA_INIT", "100")
    for library in (cuda._LIBRARY, "libnone.so.1"):
        monkeypatch.setattr(cuda, "_LIBRARY", library)
        cuda.cuda.cache_clear()
        with pytest.raises(ConvexportError, match="E0404"):
            TrtSession(onnx_file)
