"""C4: runs whose gradients align more with the trait early on drift further toward it."""

from __future__ import annotations

import numpy as np

from gradinoc.claims.c4 import C4
from gradinoc.claims.finding import Status
from gradinoc.claims.measures import drift_by_run, early_alignment


def test_run_has_an_alignment_and_a_drift(condition, seed, evidence, rules, record_property):
    """Every run is one point of the correlation: its early alignment, and its drift in log-odds."""
    x = float(early_alignment(evidence, rules.early_fraction).loc[seed, condition])
    y = float(drift_by_run(evidence).loc[seed, condition])
    record_property(f"C4 {condition} seed {seed}", f"early alignment {x:+.4f}, log-odds drift {y:+.4f} nats/token")
    assert np.isfinite([x, y]).all(), (x, y)


def test_alignment_predicts_drift(evidence, rules, gates, artifacts):
    """C4: early alignment and drift go together across runs, and inoculated runs drift less than neutral ones."""
    finding = C4.judge(evidence, rules, gates)
    artifacts.leave(finding, evidence)
    assert finding.status is Status.SUPPORTED, f"{finding.statement} {finding.reason}"
