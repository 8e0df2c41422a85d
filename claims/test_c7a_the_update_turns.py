"""C7a. Inoculation turns the update away from what raises neutral drift.

Phi, the neutral drift of the log-odds that a run's steps account for (nats), is the cosine of update and gradient x the
size of the update x the size of the gradient; prompts are the unit.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.claim("C7a")


def test_updates_point_less_to_neutral_drift_under_inoculation(finding):
    """The 95 % interval of the cosine, harmless - inoculating prompts, lies above zero."""
    turn = finding["turn"]
    assert turn.low > 0, f"{turn.name} = {turn}; C7a needs its lower end above 0"


def test_the_turn_makes_most_of_the_difference(finding, rules):
    """The 95 % interval of its share of the difference in phi lies above 0.5."""
    share = finding["share.turn"]
    assert share.low > rules.turned, f"{share.name} = {share}; C7a needs its lower end above {rules.turned}"


def test_c7a_gates_hold(finding):
    """The gates on which C7a rests hold."""
    assert not finding.failed_gates, finding.reason
