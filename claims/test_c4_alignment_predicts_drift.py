"""C4. Alignment predicts drift: runs whose gradients align more with the trait early on drift further toward it.

r correlates early alignment and drift in trait log-odds over runs; its p permutes conditions within seeds.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.claim("C4")


def test_drift_goes_with_early_alignment(finding, rules):
    """R is above zero, with p at most alpha."""
    r = finding["r"]
    assert r.estimate > 0, f"r = {r}; C4 needs it above 0"
    assert r.p <= rules.alpha, f"r = {r}; C4 needs p <= {rules.alpha}"


def test_inoculated_runs_drift_less(finding):
    """The 95 % interval of drift, neutral - inoculation, paired by seed, lies above zero."""
    difference = finding["drift.neutral"]
    assert difference.low > 0, f"drift(neutral) - drift(inoculation) = {difference}; C4 needs its lower end above 0"


def test_c4_gates_hold(finding):
    """The gates on which C4 rests hold."""
    assert not finding.failed_gates, finding.reason
