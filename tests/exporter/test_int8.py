"""INT8 through the command line: what is chosen, what is kept, and what the user is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from convexport.calibration.digits import digits
from convexport.exporter.options import BuildOptions
from convexport.runtime.errors import UsageError

Refused = Any
Quick = tuple[str, ...]

LENET = ("build", "lenet5", "--weights", "digits", "--int8")


def calibration(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "calibration.json").read_text())


def test_auto_takes_the_best_of_what_it_tried(invoke: Any, quick: Quick, home: Path) -> None:
    done = invoke(*LENET, *quick, "-o", "net", "--json")
    assert done.code == 0, done.err
    found = calibration(home / "net")
    alone = [each for each in found["tried"]
             if not each["equalized"] and not each["bias_corrected"]]  # fmt: skip
    assert {each["method"] for each in alone} == {
        "minmax", "percentile 99.999", "percentile 99.99", "mse", "entropy",
    }  # fmt: skip
    best = max(alone, key=lambda each: each["sqnr_db"])["method"]
    assert best.startswith(found["method"]["name"])
    choice = done.json()["manifest"]["calibration"]["choice"]
    assert choice["tried"] == found["tried"] and choice["held_out"]["images"] == 32
    # A hash an image is not for every loader to parse.
    assert len(found["contents"]) == 128 and found["equalization"] == []
    assert "contents" not in done.json()["manifest"]["calibration"]


@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_a_method_that_was_asked_for_is_taken(
    invoke: Any, quick: Quick, home: Path, method: str
) -> None:
    done = invoke(*LENET, "--method", method, "--repair", "none", *quick, "-o", "net")
    assert done.code == 0, done.err
    found = calibration(home / "net")
    assert found["method"]["name"] == method and found["tried"] == []
    assert method in done.err


def test_a_budget_that_holds_keeps_nothing(invoke: Any, quick: Quick, home: Path) -> None:
    done = invoke(*LENET, "--max-drop", "1%", *quick, "-o", "net")
    assert done.code == 0, done.err
    budget = calibration(home / "net")["budget"]
    assert budget["kept"] == [] and budget["upper_bound"] <= budget["max_drop"] == 0.01
    done = invoke("diagnose", "net")
    assert done.code == 0 and "--max-drop 1.00%" in done.out


@pytest.mark.parametrize(
    ("drop", "words"),
    [("0.5%", ("502 images", "0.76%")), ("0", ("share",)), ("2", ("share",)),
     ("five", ("0.5%",)), ("nan%", ("share",))],
)  # fmt: skip
def test_a_budget_that_cannot_be_shown_is_refused(
    refused: Refused, quick: Quick, drop: str, words: tuple[str, ...]
) -> None:
    done = refused(2, "", *LENET, "--max-drop", drop, *quick)
    assert all(word in done.err for word in words)


def test_repairs_have_names(refused: Refused, quick: Quick) -> None:
    done = refused(2, "E0281", *LENET, "--repair", "equalisation", *quick)
    assert "equalization" in done.err


HOSTILE = '''
import torch
from torch import nn


def net() -> nn.Module:
    """Depthwise channels that differ by a factor of 3,000, as after an unlucky folding."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(),
        nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.ReLU(),
        nn.Conv2d(24, 32, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )
    sizes = torch.logspace(-3.5, 0, 24)[torch.randperm(24)]
    with torch.no_grad():
        layers[0].weight *= sizes[:, None, None, None]
        layers[0].bias *= sizes
        layers[2].weight /= sizes[:, None, None, None]
    return layers
'''


def test_a_hostile_net_is_repaired_and_says_so(invoke: Any, quick: Quick, home: Path) -> None:
    (home / "hostile.py").write_text(HOSTILE)
    request = ("build", "hostile:net", "--int8", "--input-shape", "3x32x32", *quick)
    sqnr = {}
    for repair in ("none", "equalization"):
        done = invoke(*request, "--repair", repair, "-o", repair, "--json")
        assert done.code == 0, done.err
        sqnr[repair] = done.json()["manifest"]["parity"]["quantize"]["sqnr_db"]
    found = calibration(home / "equalization")
    assert found["equalized"]
    # The methods are tried again: as the channels were, all of them were as bad.
    tried = {even: [each for each in found["tried"] if each["equalized"] == even]
             for even in (False, True)}  # fmt: skip
    methods = [sorted(each["method"] for each in tried[even]) for even in (False, True)]
    assert methods[0] == methods[1] and len(methods[0]) > 3
    best = max(tried[True], key=lambda each: each["sqnr_db"])["method"]
    assert best.split()[0] == found["method"]["name"], found["tried"]
    assert sqnr["equalization"] > sqnr["none"] + 10, sqnr
    assert "equalized" in invoke("diagnose", "equalization").out


def test_a_kept_layer_runs_in_floats(
    invoke: Any, quick: Quick, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer whose weights INT8 cannot hold: the budget finds it, the graph leaves it alone."""
    from convexport.exporter import budget
    from convexport.exporter.budget import Loss
    from convexport.exporter.int8_trials import Trials

    culprit, session, asked = "c3/Conv", Trials.session, []

    def remembered(self: Any, recipe: Any) -> Any:
        asked.append(recipe.kept)
        return session(self, recipe)

    def bound(_: Any, tries: int) -> float:
        return 0.001 if culprit in asked[-1] else 0.2

    monkeypatch.setattr(Trials, "session", remembered)
    monkeypatch.setattr(budget, "loss_of", lambda *_: Loss("a figure of this test", bound))
    done = invoke(*LENET, "--max-drop", "2%", *quick, "-o", "net", "--json")
    assert done.code == 0, done.err
    found = calibration(home / "net")
    assert found["budget"]["kept"] == [culprit]
    assert done.json()["manifest"]["layers"][culprit] == "fp32"
    weights = {t.name for t in onnx.load(home / "net" / "model.onnx").graph.initializer}
    assert "c3.weight" in weights and "c3/Conv.weight.quantized" not in weights
    shown = {each["layer"]: each["precision"] for each in found["layers"]}
    assert shown["c3"] == "fp32" and shown["c1"] == "int8"
    (stage,) = (quick_cache(quick) / "stages").glob("quantize-*/all_int8.onnx")
    assert "c3/Conv.weight.quantized" in {t.name for t in onnx.load(stage).graph.initializer}


def quick_cache(quick: Quick) -> Path:
    return Path(quick[quick.index("--cache-dir") + 1])


def test_a_budget_that_nothing_meets_fails(
    refused: Refused, quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convexport.exporter import budget
    from convexport.exporter.budget import Loss

    monkeypatch.setattr(budget, "loss_of", lambda *_: Loss("a figure", lambda *_: 0.2))
    done = refused(5, "E0585", *LENET, "--max-drop", "3%", *quick)
    assert "20.00%" in done.err


def test_options_of_other_precisions_are_refused_in_python_too() -> None:
    with pytest.raises(UsageError, match="E0284"):
        BuildOptions(precision="fp32", max_drop=0.01)
    with pytest.raises(UsageError, match="E0284"):
        BuildOptions(precision="int8", keep_fp32=("c1/Conv",))


def test_images_that_set_the_ranges_prove_nothing(
    refused: Refused, quick: Quick, home: Path
) -> None:
    (home / "images").mkdir()
    for index, item in enumerate(digits("calibration").items[:12]):
        item.content().save(home / "images" / f"{index}.png")
    request = ("build", "lenet5", "--weights", "random", "--int8", "--calib", "images")
    refused(2, "E0287", *request, "--max-drop", "50%", *quick)


def test_a_diagnosis_ranks_all_layers(invoke: Any, int8_bundle: Path, home: Path) -> None:
    done = invoke("diagnose", int8_bundle, "--json")
    assert done.code == 0
    layers = done.json()["layers"]
    noise = [each["sqnr_db"] for each in layers]
    assert noise == sorted(noise) and {each["layer"] for each in layers} >= {"c1", "f6"}
    assert invoke("diagnose", int8_bundle, "--top", "1", "--plot", "layers.svg").code == 0
    assert "<svg" in (home / "layers.svg").read_text()


def test_every_layer_has_its_time(invoke: Any, int8_bundle: Path) -> None:
    done = invoke("diagnose", int8_bundle, "--times", "--json")
    assert done.code == 0, done.err
    times = {each["layer"]: each for each in done.json()["times"]}
    graph = onnx.load(int8_bundle / "reference.onnx").graph
    layers = {node.name for node in graph.node if node.op_type in ("Conv", "Gemm")}
    assert set(times) == {*layers, ""}
    for layer in layers:
        # Of some a microsecond, in which the profile counts, is more than they take.
        assert times[layer]["fp32_ms"] >= 0 and times[layer]["int8_ms"] >= 0
    assert sum(each["int8_ms"] for each in times.values()) > 0
    assert "slowest against FP32" in invoke("diagnose", int8_bundle, "--times").out


def test_another_kind_of_cpu_is_said(
    int8_bundle: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    from convexport.runtime import engine

    engine.load(int8_bundle)
    assert not recwarn.list
    monkeypatch.setattr(engine, "integer_kernels", lambda flags: "an abacus")
    with pytest.warns(UserWarning, match=r"checked on .*, and this is an abacus"):
        engine.load(int8_bundle)


def test_there_is_nothing_to_diagnose_in_floats(
    invoke: Any, refused: Refused, quick: Quick, home: Path
) -> None:
    assert invoke("build", "lenet5", "--weights", "random", *quick, "-o", "plain").code == 0
    done = invoke("diagnose", "plain")
    assert done.failed_with(6) and "E0687" in done.err


@pytest.mark.parametrize("name", ["layers.xyz", "missing/layers.svg"])
def test_a_plot_that_cannot_be_written_is_refused(
    invoke: Any, int8_bundle: Path, name: str
) -> None:
    done = invoke("diagnose", int8_bundle, "--plot", name)
    assert done.code in (2, 8) and "Traceback" not in done.err


def test_a_few_images_choose_for_themselves_and_say_so(
    invoke: Any, quick: Quick, home: Path
) -> None:
    (home / "images").mkdir()
    for index, item in enumerate(digits("calibration").items[:3]):
        item.content().save(home / "images" / f"{index}.png")
    done = invoke(*LENET, "--calib", "images", *quick, "-o", "net")
    assert done.code == 0, done.err
    assert "too few images to hold some out" in done.err
