"""The search for layers to keep, against a net whose answer is known."""

import itertools

import pytest

from convexport.calibration.budget import smallest_kept

LAYERS = [f"layer{index}" for index in range(12)]


@pytest.mark.parametrize("needed", range(12))
def test_as_many_of_the_ranking_as_are_needed(needed: int) -> None:
    tried = []

    def meets(kept: frozenset[str]) -> bool:
        tried.append(kept)
        return set(LAYERS[:needed]) <= kept

    assert smallest_kept(LAYERS, meets) == set(LAYERS[:needed])
    assert len(tried) == len(set(tried)) <= 13


def test_a_layer_that_the_ranking_put_too_high_is_given_back() -> None:
    culprits = {"layer1", "layer4"}
    assert smallest_kept(LAYERS, culprits.issubset) == culprits


def test_of_three_layers_none_could_be_spared() -> None:
    for culprits in itertools.chain.from_iterable(
        itertools.combinations(LAYERS[:3], count) for count in range(4)
    ):
        assert smallest_kept(LAYERS[:3], set(culprits).issubset) == set(culprits)


def test_where_nothing_helps_there_is_no_answer() -> None:
    assert smallest_kept(LAYERS, lambda kept: False) is None
