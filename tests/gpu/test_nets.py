"""The nets of the GPU's tests are what they are said to be: no GPU is needed for that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convexport.runtime.bundle import read_golden, read_manifest, verify_files
from convexport.runtime.ort_session import OrtSession
from convexport.runtime.trt_config import TrtOptions
from convexport.runtime.trt_device import verify_sums

from .nets import KINDS, expected, images, write_bundle, write_net
from .small import FORMS, batch_for, write_form


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_agrees_with_onnx_runtime(tmp_path: Path, kind: str) -> None:
    path, batch = write_net(tmp_path / "net.onnx", kind), images(3, kind)
    wanted = expected(path, batch)
    # As written: optimized, ONNX Runtime would compute Q/DQ in integers that overflow without VNNI.
    given = OrtSession(path, optimize=False).run({"input": batch})["logits"]
    tolerance = 1e-2 if kind == "fp16" else 1e-5
    assert np.abs(given - wanted).max() < tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_the_graph_that_it_is_called(tmp_path: Path, form: str) -> None:
    path, batch = write_form(tmp_path / "net.onnx", form), batch_for(form, 2)
    wanted = expected(path, batch)
    given = OrtSession(path, optimize=False).run({"input": batch})["logits"]
    assert np.abs(given - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_stored_weights_are_those_that_q_gives(tmp_path: Path) -> None:
    both = [form for form in FORMS if "weights" in form]
    batch = batch_for(both[0], 2)
    one, other = (
        expected(write_form(tmp_path / f"{n}.onnx", f), batch) for n, f in enumerate(both)
    )
    np.testing.assert_array_equal(one, other)


def test_int8_moves_the_logits_but_little(tmp_path: Path) -> None:
    batch = images(3, "int8")
    floats, quantized = (
        expected(write_net(tmp_path / f"{kind}.onnx", kind), batch) for kind in ("fp32", "int8")
    )
    assert 0 < np.abs(floats - quantized).max() < 0.05 * np.abs(floats).max()


def test_the_bundle_is_whole(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", "int8", TrtOptions(typed=False))
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    verify_sums(folder)
    assert read_golden(folder, manifest)[1].shape == (1, 10)
