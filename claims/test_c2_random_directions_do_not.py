"""C2: the fall of alignment is particular to the trait's direction."""

from __future__ import annotations

import numpy as np
import pytest

from gradinoc.claims.c2 import C2
from gradinoc.claims.finding import Status
from gradinoc.claims.measures import null_contrasts, unrelated_contrasts
from gradinoc.claims.tables import NULLS
from gradinoc.study.traits import find_trait


@pytest.mark.parametrize("null", NULLS)
def test_null_is_measured_for_every_direction(null, other, alignments, study, record_property):
    """Every random direction of each kind has a finite effect of its own under every prompt."""
    draws, wanted = null_contrasts(alignments, null, other), getattr(study.nulls, null)
    record_property(f"C2 {null} {other}", f"mean {draws.mean():+.5f}, sd {draws.std(ddof=1):.5f}")
    assert len(draws) == wanted, f"{len(draws)} of {wanted} directions"
    assert np.isfinite(draws).all()


def test_unrelated_traits_are_measured_on_every_example(other, alignments, study, record_property):
    """Every unrelated trait's direction has a finite effect on every example."""
    by_trait = unrelated_contrasts(alignments, other)
    record_property(f"C2 unrelated {other}", ", ".join(f"{name} {mean:+.5f}" for name, mean in by_trait.mean().items()))
    assert by_trait.shape == (study.data.measure, len(find_trait(study.trait).unrelated))
    assert np.isfinite(by_trait.to_numpy()).all()


def test_random_directions_do_not_show_it(alignments, rules, direction_gates, artifacts):
    """C2: the trait's effect exceeds that of every direction without the trait; the isotropic mean is zero."""
    finding = C2.judge(alignments, rules, direction_gates)
    artifacts.leave(finding, alignments)
    assert finding.status is Status.SUPPORTED, f"{finding.statement} {finding.reason}"
