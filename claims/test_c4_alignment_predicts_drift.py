"""C4. Alignment predicts drift: prompts under which gradients align more with the trait early on drift further.

Prompts are the unit and neutral is left out. The slope is of the drift of the expected score (fraction) on alignment in
the first third of training (cosine), with elicitation, length and loss as covariates; p permutes prompts.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.claim("C4")


def test_drift_goes_with_early_alignment(finding, rules):
    """The slope's 95 % interval lies above zero, with p over prompts at most alpha."""
    slope = finding["slope"]
    assert slope.low > 0, f"{slope.name} = {slope}; C4 needs its lower end above 0"
    assert slope.p <= rules.alpha, f"{slope.name} = {slope}; C4 needs p <= {rules.alpha}"


def test_no_single_prompt_makes_the_slope(finding):
    """The slope's 95 % interval lies above zero whichever prompt is left out."""
    without = finding["slope.without"]
    assert without.low > 0, f"{without.name}: {without}; C4 needs its lower end above 0"


def test_c4_gates_hold(finding):
    """The gates on which C4 rests hold."""
    assert not finding.failed_gates, finding.reason
