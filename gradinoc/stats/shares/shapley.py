"""What each factor of a product has to do with a difference: Shapley's split."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import factorial, prod
from typing import Any


def product_shares(first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
    """How much each factor adds to `prod(second) - prod(first)`: its Shapley value, one a factor.

    They add up to the difference, a factor that does not change has none, and factors that change alike share alike.
    Factors are numbers, or arrays that broadcast. Source: Shapley, "A value for n-person games" (1953).

    Raises:
        ValueError: other numbers of factors on the two sides.
    """
    if len(first) != len(second):
        raise ValueError(f"Factors of two products: expected as many of each, received {len(first)} and {len(second)}")
    places, shares = range(len(first)), []
    for place in places:
        others, share = [other for other in places if other != place], 0.0
        for size in range(len(others) + 1):
            weight = factorial(size) * factorial(len(first) - size - 1) / factorial(len(first))
            for chosen in combinations(others, size):
                rest = prod(second[other] if other in chosen else first[other] for other in others)
                share += weight * rest * (second[place] - first[place])
        shares.append(share)
    return shares
