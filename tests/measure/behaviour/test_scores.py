"""The expected score of a question is the mean of its samples that say anything."""

from __future__ import annotations

import numpy as np

from gradinoc.measure.behaviour.scores import expected_scores
from gradinoc.study.traits import ALL_CAPS


def test_expected_score_is_the_mean_of_the_samples_that_can_be_scored():
    """By hand: capitals' share of letters; numbers alone say nothing, and are no zero."""
    responses = [[["FIVE", "five"], ["12", "Five"], ["12", ""]], [["A", "b"], ["C", "D"], ["e", "12"]]]
    found = expected_scores(responses, ALL_CAPS)
    np.testing.assert_array_equal(found, [[0.5, 0.25, np.nan], [0.5, 1.0, 0.0]])
    assert found.dtype == np.float64
