"""Shapley's split of a difference of products, against its definition."""

from __future__ import annotations

import itertools
from math import prod

import numpy as np
import pytest

from gradinoc.stats.shares.shapley import product_shares


@pytest.mark.parametrize(
    ("first", "second"), [((2.0, 3.0, -0.5), (1.0, 4.0, 0.2)), ((1.5,), (0.2,)), ((0.0, 2.0), (3.0, 2.0))]
)
def test_factors_share_a_difference_as_averages_over_orders(first, second):
    """Against the definition: change the factors one after the other, in every order."""
    orders = list(itertools.permutations(range(len(first))))
    expected = np.zeros(len(first))
    for order in orders:
        now = list(first)
        for place in order:
            before = prod(now)
            now[place] = second[place]
            expected[place] += (prod(now) - before) / len(orders)
    found = product_shares(first, second)
    assert found == pytest.approx(list(expected))
    assert sum(found) == pytest.approx(prod(second) - prod(first))


def test_products_of_other_lengths_have_no_shares():
    """Each factor needs its own."""
    with pytest.raises(ValueError, match="as many of each"):
        product_shares([1.0], [1.0, 2.0])
