"""C6. It is inoculation, and not any prompt.

The share is (drift of harmless-trained runs - drift of inoculated ones) / neutral drift, evaluated under the neutral
prompt, expected score; prompts are the unit.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.claim("C6")


def test_inoculating_prompts_remove_more_drift_than_harmless_ones(finding, rules):
    """The 95 % interval of the share lies above 0.25."""
    share = finding["share"]
    assert share.low > rules.share, f"{share.name} = {share}; C6 needs its lower end above {rules.share}"


def test_so_does_inoculation_whose_wording_changes_with_every_example(finding):
    """The share of the rephrased pair, which has no wording to learn, is above zero."""
    share = finding["rephrased"]
    assert share.estimate > 0, f"{share.name} = {share} ({share.method}); C6 needs it above 0"


def test_c6_gates_hold(finding):
    """The gates on which C6 rests hold."""
    assert not finding.failed_gates, finding.reason
