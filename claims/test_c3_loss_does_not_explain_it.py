"""C3. Loss does not explain it: alignment falls by more than comes with the fall of loss.

Alignment, neutral - inoculation, compared where losses are equal.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.claim("C3", stages=("directions", "gradients", "pool", "matched"))


def test_losses_overlap(finding, rules):
    """Losses under the two prompts overlap enough to be compared."""
    overlap = finding["overlap"]
    assert overlap.estimate >= rules.overlap, f"losses overlap by {overlap}; C3 needs {rules.overlap}"


@pytest.mark.parametrize("way", ["common", "regression", "bins", "within"])
def test_alignment_is_lower_at_equal_loss(way, finding):
    """The 95 % interval lies above zero among common losses, and at equal loss by each way to make them equal."""
    effect = finding.get(way)
    assert effect is not None, f"nothing was compared at equal loss: {finding.reason}"
    assert effect.low > 0, f"{effect.name} = {effect}; C3 needs its lower end above 0"


def test_alignment_is_lower_than_under_further_loss_matched_controls(finding):
    """So it is against every further control whose loss is inoculation's."""
    controls = [effect for effect in finding.effects if effect.key.startswith("alignment.")]
    assert all(effect.low > 0 for effect in controls), f"{[f'{effect.name} = {effect}' for effect in controls]}"


def test_c3_gates_hold(finding):
    """The gates on which C3 rests hold."""
    assert not finding.failed_gates, finding.reason
