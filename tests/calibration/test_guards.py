"""Channels that carry nothing, counted by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx import numpy_helper, parser

from convexport.calibration.guards import Census, census_of_activations, census_of_weights


@dataclass(frozen=True)
class Seen:
    minimum: np.ndarray
    maximum: np.ndarray


def seen(values: np.ndarray) -> Seen:
    """Of an activation N×C."""
    return Seen(values.min(axis=0), values.max(axis=0))


def moving(channels: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(6, channels)).astype(np.float32)


def test_dead_and_constant_channels_are_told_apart() -> None:
    values = moving(8)
    values[:, [1, 2]], values[:, 5], values[0, 6] = 0, 6, 0
    census = census_of_activations({"a": seen(values), "b": seen(moving(4)), "c": None})
    assert census.to_dict() == {
        "channels": 12,
        "layers": {"a": {"channels": 8, "dead": 2, "constant": 1}},
    }
    assert census.doubts() == (
        "2 of 12 activation channels were zero for all images, most in a (2 of 8)",
    )


def test_a_few_dead_channels_are_counted_and_not_said() -> None:
    values = moving(64)
    values[:, :6] = 0
    census = census_of_activations({"a": seen(values)})
    assert census.layers["a"]["dead"] == 6 and census.doubts() == ()
    values[:, 6] = 0
    assert len(census_of_activations({"a": seen(values)}).doubts()) == 1


def test_a_layer_that_is_lost_is_said_however_small() -> None:
    census = census_of_activations({"wide": seen(moving(512)), "lost": seen(np.zeros((6, 2)))})
    assert census.doubts() == (
        "2 of 514 activation channels were zero for all images, most in lost (2 of 2)",
    )


def test_the_three_worst_layers_are_named() -> None:
    layers = {f"l{n}": {"channels": 10, "dead": n, "constant": 0} for n in range(6)}
    (doubt,) = Census(60, layers).doubts()
    assert doubt.endswith("most in l5 (5 of 10), l4 (4 of 10), l3 (3 of 10)")


def graph(arrays: dict[str, np.ndarray]) -> ir.Graph:
    proto = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        net (float[N, 2, 5, 5] x) => (float[N, 3] y) {
            [conv] c = Conv <kernel_shape = [3, 3]> (x, w)
            p = GlobalAveragePool (c)
            f = Flatten <axis = 1> (p)
            [gemm] g = Gemm (f, v)
            [matmul] m = MatMul (g, u)
            y = Add (m, g)
        }""")
    proto.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in arrays.items())
    return ir.from_proto(proto).graph


def test_weights_are_counted_along_their_outputs() -> None:
    rng = np.random.default_rng(0)
    w, v, u = (rng.normal(size=s).astype(np.float32) for s in ((4, 2, 3, 3), (4, 3), (3, 3)))
    w[1] = 0
    w[2, 0, 0, 0] = np.float32(1e-40)
    v[2] = 0  # of one input: no output is lost by it
    u[:, 0] = 0
    u[1, 2] = np.finfo(np.float32).tiny  # the smallest that is normal
    census = census_of_weights(graph({"w": w, "v": v, "u": u}))
    assert census.to_dict() == {
        "channels": 10,
        "layers": {
            "conv": {"channels": 4, "zero": 1, "denormal": 1},
            "matmul": {"channels": 3, "zero": 1, "denormal": 0},
        },
    }
    zero, denormal = census.doubts()
    assert zero.startswith("2 of 10 output channels have no weight but 0, most in conv (1 of 4)")
    assert denormal.startswith("1 of 10 output channels have denormal weights")
    assert denormal.endswith("most in conv (1 of 4)")


def test_sound_weights_are_not_mentioned() -> None:
    rng = np.random.default_rng(0)
    arrays = {"w": (4, 2, 3, 3), "v": (4, 3), "u": (3, 3)}
    census = census_of_weights(
        graph({name: rng.normal(size=s).astype(np.float32) for name, s in arrays.items()})
    )
    assert (census.channels, dict(census.layers), census.doubts()) == (10, {}, ())
