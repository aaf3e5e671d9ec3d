"""The smallest set of layers in higher precision with which a net keeps its accuracy budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# How many layers are tried for leaving them in INT8 after all.
_PRUNED = 6

Meets = Callable[[frozenset[str]], bool]


def smallest_kept(ranking: Sequence[str], meets: Meets) -> frozenset[str] | None:
    """Layers to keep in floats, from a ranking and a test that is worth its cost.

    The number of layers is halved in on, most sensitive first: what meets the budget with some
    kept is taken to meet it with more. Then those that were kept last are given back one by one,
    where the budget holds without them.

    Args:
        ranking: layers, the most sensitive first.
        meets: whether the budget holds with these kept.

    Returns:
        The layers; empty where all may be INT8, None where even all of them are not enough.
    """
    if meets(frozenset()):
        return frozenset()
    too_few, enough = 0, len(ranking)
    if not meets(frozenset(ranking)):
        return None
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if meets(frozenset(ranking[:middle])):
            enough = middle
        else:
            too_few = middle
    kept = frozenset(ranking[:enough])
    # The last one is needed: without it there were too few.
    for layer in [*reversed(ranking[: enough - 1])][:_PRUNED]:
        if meets(kept - {layer}):
            kept -= {layer}
    return kept
