"""C2. Directions without the trait do not show it.

T(u) = mean alignment under harmless prompts - mean alignment under inoculating ones along a direction u, a cosine; v is
the trait's. p is T(v)'s place among other directions, the error of prompts and questions included.
"""

from __future__ import annotations

import pytest

from gradinoc.study.settings import NULLS

pytestmark = pytest.mark.claim("C2")


@pytest.mark.parametrize("null", NULLS)
def test_effect_exceeds_that_of_other_directions(null, finding, rules):
    """T(v) is above zero, and above the T(u) of a kind of direction: p at most alpha."""
    place = finding[f"null.{null}"]
    assert place.estimate > 0, f"{place.name} = {place}: there is nothing to compare with"
    assert place.p <= rules.alpha, f"{place.name} = {place}; C2 needs p <= {rules.alpha}"


def test_effect_is_twice_that_of_unrelated_traits(finding, rules):
    """T(v) is at least twice |T(u)| of every unrelated trait: the largest p is at most alpha."""
    lead = finding["lead"]
    assert lead.p <= rules.alpha, f"{lead.name} = {lead}; C2 needs p <= {rules.alpha}"


def test_c2_gates_hold(finding):
    """The gates on which C2 rests hold."""
    assert not finding.failed_gates, finding.reason
