"""C2: the fall of alignment is particular to the trait's direction."""

from __future__ import annotations

import numpy as np

from gradinoc.contrasts import null_contrasts
from gradinoc.gates import Status
from gradinoc.specificity import claim_2


def test_null_is_measured_for_every_direction(other, alignments, study, record_property):
    """Every random direction has a finite effect of its own under every prompt."""
    draws = null_contrasts(alignments, "isotropic", other)
    record_property(f"C2 isotropic {other}", f"mean {draws.mean():+.5f}, sd {draws.std(ddof=1):.5f}")
    assert len(draws) == study.nulls.isotropic, f"{len(draws)} of {study.nulls.isotropic} directions"
    assert np.isfinite(draws).all()


def test_random_directions_do_not_show_it(alignments, rules, direction_gates, artifacts):
    """C2: the trait's effect exceeds that of random directions, whose mean is equivalent to zero."""
    finding = claim_2(alignments, rules, direction_gates)
    artifacts.leave(finding, alignments, ["plot4_trait_against_random"])
    assert finding.status is Status.SUPPORTED, f"{finding.statement} {finding.reason}"
