"""Which CPUs need the careful kernels."""

from pathlib import Path

import pytest

from convexport.runtime.cpu import cpu_flags, overflows


@pytest.mark.parametrize(
    ("text", "careful"),
    [
        ("processor : 0\nflags\t\t: fpu sse avx2 avx512f\n\nflags\t: other\n", True),
        ("flags\t\t: fpu avx2 avx512_vnni\n", False),
        ("flags\t\t: fpu avx2 avx_vnni\n", False),
        ("processor : 0\nFeatures : fp asimd asimddp\n", False),
        ("", False),
    ],
)
def test_x86_without_vnni_needs_careful_kernels(tmp_path: Path, text: str, careful: bool) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert overflows(cpu_flags(tmp_path / "cpuinfo")) is careful


def test_a_system_without_cpuinfo_is_no_reason_to_fail(tmp_path: Path) -> None:
    assert not overflows(cpu_flags(tmp_path / "none"))
