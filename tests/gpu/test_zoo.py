"""A net of each family, built and measured on a real GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from convexport.exporter.options import Precision
from convexport.runtime.errors import ConvexportError
from convexport.runtime.trt_engine import require_gpu

from . import zoo

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.mark.parametrize("precision", zoo.PRECISIONS)
@pytest.mark.parametrize("name", zoo.nets().values())
def test_a_net_is_built_and_measured(tmp_path: Path, name: str, precision: Precision) -> None:
    try:
        require_gpu("CUDA")
    except ConvexportError as error:
        pytest.skip(f"{error.what} {error.why}".strip())
    found = zoo.row(name, precision, tmp_path / "out")
    assert found["engine"]["gpu_ms"]["median"] > 0
    assert found["layers"]["counts"].get("not told", 0) == 0
