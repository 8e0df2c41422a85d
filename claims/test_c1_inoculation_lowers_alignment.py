"""C1. Inoculation lowers alignment: gradient descent pushes the residual stream less toward the trait.

Alignment is cos(-g, v): a cosine, band mean, frozen model. The plan's three prompts are compared example by example,
families of prompts with the prompt as the unit.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.claim("C1")


@pytest.mark.parametrize("control", ["neutral", "loss_matched"])
def test_alignment_is_lower_than_under(control, finding):
    """The 95 % interval of alignment(control) - alignment(inoculation), over examples, lies above zero."""
    contrast = finding[f"alignment.{control}"]
    assert contrast.low > 0, f"{contrast.name} = {contrast}; C1 needs its lower end above 0"


def test_alignment_is_lower_under_inoculating_than_under_harmless_prompts(finding):
    """The 95 % interval of mean(harmless) - mean(inoculating), over prompts, lies above zero."""
    contrast = finding["families"]
    assert contrast.low > 0, f"{contrast.name} = {contrast}; C1 needs its lower end above 0"


def test_c1_gates_hold(finding):
    """The gates on which C1 rests hold."""
    assert not finding.failed_gates, finding.reason
