"""C1. Inoculation lowers alignment: gradient descent pushes the residual stream less toward the trait.

D(control) = alignment(control) - alignment(inoculation): cosine, band mean, paired by example, frozen model.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.claim("C1")


@pytest.mark.parametrize("control", ["neutral", "loss_matched"])
def test_alignment_is_lower_than_under(control, finding):
    """The 95 % interval of D(control) lies above zero."""
    contrast = finding[f"alignment.{control}"]
    assert contrast.low > 0, f"D({control}) = {contrast}; C1 needs its lower end above 0"


def test_c1_gates_hold(finding):
    """The gates on which C1 rests hold."""
    assert not finding.failed_gates, finding.reason
