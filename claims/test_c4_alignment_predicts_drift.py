"""C4: runs whose gradients align more with the trait early on drift further toward it."""

from __future__ import annotations

import numpy as np

from gradinoc.gates import Status
from gradinoc.prediction import claim_4, runs_of


def test_run_has_an_alignment_and_a_drift(condition, seed, evidence, rules, record_property):
    """Every run is one point of the correlation: early alignment, and drift by every measure that decides."""
    runs = runs_of(evidence, rules)
    here = (runs.condition == condition) & (runs.seed == seed)
    assert here.sum() == 1, f"{here.sum()} points for one run"
    x, y = float(runs.x[here][0]), float(runs.y[here][0])
    record_property(f"C4 {condition} seed {seed}", f"early alignment {x:+.4f}, log-odds drift {y:+.4f} nats/token")
    assert np.isfinite([x, y]).all(), (x, y)


def test_alignment_predicts_drift(evidence, rules, judgement, artifacts):
    """C4: early alignment and drift go together across runs, and inoculated runs drift less than neutral ones."""
    finding = claim_4(evidence, rules, judgement.gates)
    artifacts.leave(finding, evidence, ["plot7_alignment_against_drift"])
    assert finding.status is Status.SUPPORTED, f"{finding.statement} {finding.reason}"
