"""C3. Loss does not explain it: alignment falls by more than comes with the fall of loss.

Compared at equal loss: harmless and inoculating prompts, the prompt's loss as covariate; and within examples, neutral
and inoculation.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.claim("C3")


@pytest.mark.parametrize("way", ["prompts", "within"])
def test_alignment_is_lower_at_equal_loss(way, finding):
    """The 95 % interval of the difference in alignment at equal loss lies above zero."""
    effect = finding[way]
    assert effect.low > 0, f"{effect.name} = {effect} ({effect.method}); C3 needs its lower end above 0"


def test_c3_gates_hold(finding):
    """The gates on which C3 rests hold."""
    assert not finding.failed_gates, finding.reason
