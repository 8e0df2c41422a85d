"""C7b. What inoculation changes runs along the trait direction.

The share is that of the difference in phi, harmless - inoculating runs, by way of the band's layers, which runs along
v; prompts are the unit. Below 0.25 the trait's direction carries too little for the rotation to be along it.
"""

from __future__ import annotations

import pytest

from gradinoc.study.settings import NULLS

pytestmark = pytest.mark.claim("C7b")


def test_a_quarter_and_more_runs_along_the_direction(finding, rules):
    """The 95 % interval of the share lies above 0.25."""
    share = finding["share"]
    assert share.low > rules.carried, f"{share.name} = {share}; C7b needs its lower end above {rules.carried}"


@pytest.mark.parametrize("null", NULLS)
def test_more_than_along_other_directions(null, finding, rules):
    """What runs along v has a p of at most alpha among directions without the trait."""
    place = finding[f"null.{null}"]
    assert place.p <= rules.alpha, f"{place.name} = {place}; C7b needs p <= {rules.alpha}"


def test_c7b_gates_hold(finding):
    """The gates on which C7b rests hold."""
    assert not finding.failed_gates, finding.reason
