"""What commands print: data alone on stdout, logs on stderr, and nothing that steers a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.hostile import HOSTILE, quiet

Refused = Callable[..., Any]
Quick = tuple[str, ...]


@pytest.fixture
def image(home: Path) -> Path:
    Image.effect_noise((30, 20), 80).save(home / "image.png")
    return home / "image.png"


def test_list_as_json(invoke: Any) -> None:
    rows = {row["name"]: row for row in invoke("list", "--json").json()}
    # He et al. 2015, table 1, and LeCun et al. 1998.
    assert rows["resnet50"]["year"] == 2015 and rows["lenet5"]["year"] == 1998
    assert rows["resnet50"]["params"] == 25_557_032
    (family,) = {row["family"] for row in invoke("list", "--family", "lenet", "--json").json()}
    assert family == "lenet"


def test_show_as_json(invoke: Any) -> None:
    facts = invoke("show", "lenet5", "--json").json()
    assert [layer["output"] for layer in facts["layers"]][-1] == [10]
    assert sum(layer["params"] for layer in facts["layers"]) == facts["params"] == 61_706


def test_build_as_json(invoke: Any, quick: Quick, home: Path) -> None:
    done = invoke("build", "lenet5", "--weights", "random:2", *quick, "-o", "out", "--json")
    data = done.json()
    assert data["unchanged"] is False and data["bundle"] == "out"
    assert data["manifest"] == json.loads((home / "out/manifest.json").read_text())
    assert data["report"] == json.loads((home / "out/report.json").read_text())
    assert "RANDOM WEIGHTS" in done.err and "reference" in done.err
    again = invoke("build", "lenet5", "--weights", "random:2", *quick, "-o", "out", "--json")
    assert again.json()["unchanged"] is True


def test_inspect_as_json(invoke: Any, int8_bundle: Path) -> None:
    facts = invoke("inspect", int8_bundle, "--json").json()
    assert (facts["bundle"], facts["precision"]) == ("lenet5", "int8")
    facts = invoke("inspect", int8_bundle / "reference.onnx", "--json").json()
    assert facts["inputs"] == ["input: batchx1x32x32"] and facts["nodes"] == 12
    assert sum(facts["operators"].values()) == 12


def test_run_as_json(invoke: Any, int8_bundle: Path, image: Path) -> None:
    (row,) = invoke("run", int8_bundle, "image.png", "--top", "3", "--json").json()
    assert row["image"] == "image.png" and len(row["top"]) == 3
    probabilities = [each["probability"] for each in row["top"]]
    assert probabilities == sorted(probabilities, reverse=True) and sum(probabilities) <= 1


def test_verify_as_json_counts_accuracy_where_there_are_labels(
    invoke: Any, int8_bundle: Path
) -> None:
    facts = invoke("verify", int8_bundle, "--data", "digits", "--json").json()
    assert facts["accuracy"]["actual"]["n"] > 400
    assert facts["accuracy"]["actual"]["share"] > 0.9
    assert facts["parity"]["top1"]["share"] > 0.9
    assert invoke("verify", int8_bundle, "--json").json()["accuracy"] == "not measured"


def test_doctor_as_json(invoke: Any, home: Path) -> None:
    done = invoke("doctor", "--json")
    findings = {each["what"]: each for each in done.json()}
    assert findings["torch"]["state"] == findings["target cpu"]["state"] == "ok"
    assert done.code == (4 if any(f["state"] == "problem" for f in findings.values()) else 0)


def test_doctor_sees_a_world_writable_cache(invoke: Any, home: Path) -> None:
    (home / "cache").mkdir()
    (home / "cache").chmod(0o777)
    done = invoke("doctor", "--cache-dir", "cache")
    assert done.code == 4 and "chmod o-w cache" in done.out


@pytest.mark.parametrize(
    "arguments", [("list",), ("show", "lenet5"), ("doctor",), ("inspect", "BUNDLE")]
)
def test_without_json_a_person_reads_it(
    invoke: Any, int8_bundle: Path, arguments: tuple[str, ...]
) -> None:
    done = invoke(*(int8_bundle if each == "BUNDLE" else each for each in arguments))
    assert done.out.strip() and "\x1b" not in done.out + done.err
    with pytest.raises(json.JSONDecodeError):
        done.json()


def test_errors_as_json_go_to_stderr(invoke: Any, home: Path) -> None:
    done = invoke("run", "nowhere", "x.png", "--json")
    error = json.loads(done.err)["error"]
    assert (done.out, done.code, error["exit_code"], error["code"]) == ("", 3, 3, "E0304")
    assert error["what"] and error["where"] == "nowhere" and error["hint"]


@pytest.mark.parametrize("arguments", [("list",), ("list", "--json"), ("show", "resnet50")])
def test_a_reader_that_goes_away_is_no_error(home: Path, arguments: tuple[str, ...]) -> None:
    """As in `convexport list | head -1`, at its worst: nobody reads at all."""
    reader, writer = os.pipe()
    os.close(reader)
    program = [sys.executable, "-m", "convexport", *arguments]
    done = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_and_version(invoke: Any) -> None:
    done = invoke("--help")
    assert done.code == 0 and all(name in done.out for name in ("build", "bench", "doctor"))
    for name in ("list", "show", "build", "verify", "bench", "run", "inspect", "doctor"):
        assert invoke(name, "--help").code == 0
    assert invoke("--version").out.startswith("convexport, version ")


@pytest.mark.parametrize("variable", ["", "NO_COLOR"])
def test_what_is_no_terminal_gets_no_escape_codes(
    command: Any, int8_bundle: Path, image: Path, variable: str
) -> None:
    env = {
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        **({variable: "1"} if variable else {}),
    }
    done = command("run", int8_bundle, "image.png", env=env)
    assert done.code == 0 and "\x1b" not in done.out + done.err


def test_names_of_files_do_not_steer_the_terminal(
    invoke: Any, int8_bundle: Path, image: Path, home: Path
) -> None:
    # Relative: a long path would be folded, anywhere in the name.
    hostile = HOSTILE.replace("/", "")
    image.rename(home / hostile)
    done = invoke("run", int8_bundle, hostile)
    assert done.code == 0 and quiet(done.out) and "{{7*7}}" in done.out, done.err
    assert json.loads(invoke("run", int8_bundle, hostile, "--json").out)[0]["image"] == hostile
    (home / hostile).write_text("no image")
    done = invoke("run", int8_bundle, hostile)
    assert done.failed_with(3) and quiet(done.err)


def test_names_of_bundles_and_labels_do_not_steer_the_terminal(
    invoke: Any, quick: Quick, home: Path, image: Path
) -> None:
    labels = [HOSTILE.replace("\x85", "") + str(n) for n in range(10)]
    (home / "labels.txt").write_text("\n".join(labels), encoding="utf-8")
    name = HOSTILE.replace("/", "")
    request = ("build", "lenet5", "--weights", "random", *quick, "-o", name)
    for done in (
        invoke(*request, "--labels", "labels.txt"),
        invoke(*request, "--labels", "labels.txt"),
        invoke("run", name, image),
        invoke("inspect", name),
        invoke("verify", name),
    ):
        assert done.code == 0 and quiet(done.out) and quiet(done.err), done.err
    assert quiet(invoke(*request).err)


def test_names_that_are_no_unicode_are_printed(
    command: Any, int8_bundle: Path, image: Path, home: Path
) -> None:
    odd = home / os.fsdecode(b"caf\xe9.png")
    image.rename(odd)
    assert command("run", int8_bundle, odd.name).code == 0
    done = command("run", int8_bundle, odd.name, "--json")
    assert done.code == 0 and done.json()[0]["image"] == odd.name


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_poor_terminal_gets_what_it_can_show(
    command: Any, int8_bundle: Path, image: Path, encoding: str
) -> None:
    env = {"PYTHONIOENCODING": encoding}
    for arguments in (
        ("list",),
        ("run", int8_bundle, "image.png", "--json"),
        ("verify", int8_bundle),
    ):
        assert command(*arguments, env=env).failed_with(0)


def write_broken(home: Path, text: str) -> str:
    """A package directory that comes first, with an onnxruntime that does not load."""
    package = home / "site/onnxruntime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(text)
    return os.pathsep.join([str(home / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])


def test_a_runtime_that_is_not_installed_is_said_with_the_fix(
    command: Any, int8_bundle: Path, image: Path, home: Path, quick: Quick
) -> None:
    path = write_broken(home, "raise ImportError('libonnxruntime.so.1: cannot open')")
    env = {"PYTHONPATH": path}
    for arguments in (
        ("build", "lenet5", "--weights", "random", *quick, "-o", "out"),
        ("run", int8_bundle, image),
    ):
        done = command(*arguments, env=env)
        assert done.failed_with(4, "pip install 'convexport[cpu]'")
        assert "E0401" in done.err and "libonnxruntime.so.1" in done.err
    done = command("doctor", env=env)
    assert done.code == 4 and "pip install" in done.out
    assert not (home / "out").exists()


def test_nothing_is_written_to_the_home(
    command: Any, int8_bundle: Path, image: Path, home: Path
) -> None:
    before = sorted(home.rglob("*"))
    env = {"ORT_DISABLE_TELEMETRY": ""}
    assert command("run", int8_bundle, "image.png").code == 0
    assert command("doctor").code in (0, 4)
    assert sorted(home.rglob("*")) == before, env


def test_python_loads_what_the_command_line_built(int8_bundle: Path) -> None:
    code = (
        "import sys, numpy, convexport\n"
        "print(convexport.load(sys.argv[1])(numpy.zeros((2, 1, 32, 32), 'float32')).shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, int8_bundle], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(np.zeros((2, 10)).shape)
