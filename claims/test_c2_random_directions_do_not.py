"""C2. Directions without the trait do not show it.

T(u) = mean of alignment(neutral) - alignment(inoculation) along a direction u; v is the trait's.
"""

from __future__ import annotations

import pytest

from gradinoc.study.description import NULLS

pytestmark = pytest.mark.claim("C2", stages=("directions", "gradients"))


@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize("error", ["", ".with_error"], ids=["exact", "with_error"])
def test_effect_exceeds_that_of_random_directions(null, error, finding, rules):
    """T(v) lies above the T(u) of a null's directions, as it stands and with its sampling error: p at most alpha."""
    place = finding[f"null.{null}{error}"]
    assert place.p <= rules.alpha, f"T(v) = {place} among {place.n} {null} directions; C2 needs p <= {rules.alpha}"


def test_effect_exceeds_that_of_unrelated_traits(finding, rules):
    """T(v) exceeds T(u) of every unrelated trait, with either sign: the largest p is at most alpha."""
    lead = finding["null.unrelated"]
    assert lead.p <= rules.alpha, f"the smallest lead is {lead}; C2 needs p <= {rules.alpha}"


def test_isotropic_directions_show_nothing(finding, rules):
    """T(v) is above zero, and the mean T(u) of isotropic directions is equivalent to zero within a share of it."""
    effect = finding["null.isotropic"]
    assert effect.estimate > 0, f"T(v) = {effect}: there is nothing to compare with"
    mean = finding["isotropic_mean.equivalence"]
    assert mean.p <= rules.alpha, f"mean T(u) = {mean}; C2 needs |mean| < {rules.null_margin * effect.estimate:.3g}"


def test_c2_gates_hold(finding):
    """The gates on which C2 rests hold."""
    assert not finding.failed_gates, finding.reason
