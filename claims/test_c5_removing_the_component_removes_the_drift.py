"""C5. Removing the gradient's component along the direction removes the drift.

The share is (drift of neutral runs - drift of neutral runs whose gradient loses its component along v at the band's
blocks) / (drift of neutral runs - drift of inoculated ones); runs are the unit.
"""

from __future__ import annotations

import pytest

from gradinoc.claims import c5

pytestmark = pytest.mark.claim("C5")


def test_removing_the_component_removes_a_quarter_of_what_inoculation_removes(finding, rules):
    """The 95 % interval of the share lies above 0.25, at the same training loss where the arm learned otherwise."""
    share = c5.deciding({effect.key: effect for effect in finding.effects}, "share", rules)
    assert share.low > rules.removed, f"{share.name} = {share}; C5 needs its lower end above {rules.removed}"


@pytest.mark.parametrize("way", ["place", "restored.place"])
def test_other_directions_of_the_same_energy_do_not(way, finding, rules):
    """Removing the component, and restoring it under inoculation, change drift more than along matched directions.

    Removing it does at the same training loss, where the arm learned otherwise.
    """
    assert finding.get(way) is not None, f"{finding.key}: no arm was trained for {way}"
    effects = {effect.key: effect for effect in finding.effects}
    place = c5.deciding(effects, way, rules) if way == "place" else finding[way]
    assert place.n, f"{place.name}: no direction was drawn"
    assert place.p <= rules.alpha, f"{place.name} = {place}; C5 needs p <= {rules.alpha}"


def test_restoring_the_component_brings_drift_back(finding):
    """Under inoculation runs whose component along v is that of neutral runs drift further."""
    assert finding.get("restored.place") is not None, f"{finding.key}: no restored arm was trained"
    restored = finding["restored.place"]
    assert restored.estimate > 0, f"{restored.name} = {restored}; C5 needs it above 0"


def test_drift_falls_with_the_strength_of_removing(finding, rules):
    """From doubling the component to reflecting it drift falls, p by permutation within seeds; of one strength none."""
    dose = finding["dose"]
    assert dose.p <= rules.alpha, f"{dose.name} = {dose}; C5 needs p <= {rules.alpha}"


def test_c5_gates_hold(finding):
    """The gates on which C5 rests hold."""
    assert not finding.failed_gates, finding.reason
