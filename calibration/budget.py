"""The smallest set of layers in higher precision with which a net keeps its accuracy budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# How many layers are tried for leaving them in INT8 after all.
_PRUNED = 6

Meets = Callable[[frozenset[str], int], bool]


def smallest_kept(ranking: Sequence[str], meets: Meets) -> frozenset[str] | None:
    """Layers to keep in floats, from a ranking and a test that is worth its cost.

    The number of layers is halved in on, most sensitive first: what meets the budget with some
    kept is taken to meet it with more. Then those that were kept last are given back one by one,
    where the budget holds without them.

    Sets that hold one another stand and fall together, so that halving in errs about as often as
    one test. Each giving back is a chance of its own to be lucky: those share one test's.

    Args:
        ranking: layers, the most sensitive first.
        meets: whether the budget holds with these kept, as one of so many tests of which none
            may pass by chance.

    Returns:
        The layers; empty where all may be INT8, None where even all of them are not enough.
    """
    if meets(frozenset(), 1):
        return frozenset()
    too_few, enough = 0, len(ranking)
    if not meets(frozenset(ranking), 1):
        return None
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if meets(frozenset(ranking[:middle]), 1):
            enough = middle
        else:
            too_few = middle
    kept = frozenset(ranking[:enough])
    # The last one is needed: without it there were too few.
    last = [*reversed(ranking[: enough - 1])][:_PRUNED]
    for layer in last:
        if meets(kept - {layer}, len(last)):
            kept -= {layer}
    return kept
