"""C7c. Gradients before training foretell the drift.

The kernel is the inner product of the descent direction under a training prompt and the gradient of the neutral
log-odds, frozen model (nats per learning rate); prompts are the unit and neutral is left out. It decides no verdict.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.claim("C7c")


def test_drift_rises_with_the_kernel(finding, rules):
    """The slope's 95 % interval, at equal elicitation, length and loss, lies above zero, with p over prompts."""
    slope = finding["slope"]
    assert slope.low > 0, f"{slope.name} = {slope}; C7c needs its lower end above 0"
    assert slope.p <= rules.alpha, f"{slope.name} = {slope}; C7c needs p <= {rules.alpha}"


def test_a_prompt_is_predicted_from_the_others(finding, rules):
    """R2 of prompts that are left out one at a time, by permutation over prompts."""
    r2 = finding["r2"]
    assert r2.p <= rules.alpha, f"{r2.name} = {r2}; C7c needs p <= {rules.alpha}"


def test_c7c_gates_hold(finding):
    """The gates on which C7c rests hold."""
    assert not finding.failed_gates, finding.reason
