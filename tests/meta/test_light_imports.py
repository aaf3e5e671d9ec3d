"""Nothing heavy is imported before it is used."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "onnx", "onnxruntime", "onnxsim", "sklearn", "scipy")


def loaded(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    return set(output.split())


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import convexport", (*HEAVY, "numpy", "click", "rich")),
        ("import convexport.cli", (*HEAVY, "numpy", "rich")),
        ("import convexport.runtime.engine", ("torch", "onnx", "onnxruntime", "sklearn")),
        ("import convexport.exporter.pipeline", ("torch", "onnxruntime", "sklearn", "onnxsim")),
        ("import convexport.exporter.commands", HEAVY),
    ],
)
def test_imports_stay_light(code: str, forbidden: tuple[str, ...]) -> None:
    assert not loaded(code) & set(forbidden)


def test_help_imports_nothing_heavy() -> None:
    code = "import convexport.cli\ntry: convexport.cli.cli(['--help'])\nexcept SystemExit: pass"
    assert not loaded(code) & set(HEAVY)
