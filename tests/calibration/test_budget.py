"""The search for layers to keep, against a net whose answer is known."""

import itertools

import numpy as np
import pytest

from convexport.benchmarks.statistics import proportion
from convexport.calibration.budget import smallest_kept

LAYERS = [f"layer{index}" for index in range(12)]


@pytest.mark.parametrize("needed", range(12))
def test_as_many_of_the_ranking_as_are_needed(needed: int) -> None:
    tried = []

    def meets(kept: frozenset[str], tries: int) -> bool:
        tried.append(kept)
        return set(LAYERS[:needed]) <= kept

    assert smallest_kept(LAYERS, meets) == set(LAYERS[:needed])
    assert len(tried) == len(set(tried)) <= 13


def test_a_layer_that_the_ranking_put_too_high_is_given_back() -> None:
    culprits = {"layer1", "layer4"}
    assert smallest_kept(LAYERS, lambda kept, _: culprits <= kept) == culprits


def test_of_three_layers_none_could_be_spared() -> None:
    for culprits in itertools.chain.from_iterable(
        itertools.combinations(LAYERS[:3], count) for count in range(4)
    ):
        needed = set(culprits)
        assert smallest_kept(LAYERS[:3], lambda kept, _, n=needed: n <= kept) == needed


def test_where_nothing_helps_there_is_no_answer() -> None:
    assert smallest_kept(LAYERS, lambda kept, tries: False) is None


def test_giving_back_is_no_second_chance_to_be_lucky() -> None:
    """Nets whose every layer that is kept is needed, but for a hair: luck may give one back."""
    rng, images, budget = np.random.default_rng(5), 1500, 0.005

    def meets(kept: frozenset[str], tries: int) -> bool:
        if set(LAYERS[:8]) <= kept:
            return True
        lost = budget + 1e-9 if len(kept) >= 7 else 1.0
        return proportion(int(rng.binomial(images, lost)), images, tries=tries).high <= budget

    runs = 2000
    wrong = sum(smallest_kept(LAYERS, meets) != set(LAYERS[:8]) for _ in range(runs))
    # One test errs in 2.5 % of runs; six on the same footing would in some 14 %.
    assert wrong / runs <= 0.05
