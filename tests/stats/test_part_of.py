"""Shares of a contrast: part and whole err together, as brute force says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradinoc.stats.families import Families
from gradinoc.stats.shares.ratios import part_of

DIFFERENCE = {"first": 1.0, "second": -1.0}


def study(rng, share=0.4, apart=1.0, noise=0.1, questions=6):
    """Part and whole of 6 against 5 prompts on the same questions, the part a share of the whole but for chance."""
    whole, part = {}, {}
    by_question = rng.normal(1, 0.15, questions)
    for family, count, mean in (("first", 6, 1 + apart), ("second", 5, 1.0)):
        table = mean * by_question + rng.normal(0, 0.3, (count, 1)) + rng.normal(0, 0.1, (count, questions))
        whole[family] = table
        part[family] = share * table + rng.normal(0, noise, (count, 1)) + rng.normal(0, noise, (count, questions))
    return Families(part), Families(whole)


def test_share_is_that_of_the_means():
    """The ratio of the two differences."""
    part, whole = study(np.random.default_rng(0))
    differences = [each.values["first"].mean() - each.values["second"].mean() for each in (part, whole)]
    found = part_of(part, whole, DIFFERENCE, "share", 0.25)
    assert found.estimate == pytest.approx(differences[0] / differences[1])
    assert found.low < found.estimate < found.high
    assert found.against == 0.25


def test_a_part_that_is_a_share_of_every_number_has_no_error():
    """Though prompts and questions differ: numerator and denominator err together."""
    _, whole = study(np.random.default_rng(1))
    part = Families({key: 0.3 * table for key, table in whole.values.items()})
    found = part_of(part, whole, DIFFERENCE, "share")
    assert (found.low, found.estimate, found.high) == pytest.approx((0.3, 0.3, 0.3), abs=1e-6)


def test_intervals_cover_the_share():
    """Of 400 studies: 95 % within Monte-Carlo error of three."""
    hits = []
    for seed in range(400):
        found = part_of(*study(np.random.default_rng(seed)), DIFFERENCE, "share")
        hits.append(found.low <= 0.4 <= found.high)
    assert 0.95 - 0.033 <= np.mean(hits) <= 0.98


def test_an_interval_above_a_bar_is_a_small_p_against_it():
    """The test of part - bar x whole, as in every ratio."""
    for seed in range(30):
        part, whole = study(np.random.default_rng(seed), share=0.5)
        low = part_of(part, whole, DIFFERENCE, "share").low
        for bar in (low - 0.02, low + 0.02):
            found = part_of(part, whole, DIFFERENCE, "share", bar)
            assert (found.p < 0.05) is bool(found.low > bar)


def test_a_whole_that_may_be_zero_gives_no_interval():
    """Nor do families of one, or tables that do not fit; and each says why."""
    found = part_of(*study(np.random.default_rng(2), apart=0.0), DIFFERENCE, "share")
    assert math.isnan(found.low)
    assert "denominator may be zero" in found.method
    part, whole = study(np.random.default_rng(3))
    single = [Families({**each.values, "second": each.values["second"][:1]}) for each in (part, whole)]
    assert "single prompt" in part_of(*single, DIFFERENCE, "share").method
    with pytest.raises(ValueError, match="same prompts and questions"):
        part_of(part, single[1], DIFFERENCE, "share")
