"""C1: under the inoculation prompt, gradient descent pushes the residual stream less toward the trait."""

from __future__ import annotations

import numpy as np

from gradinoc.claims.c1 import C1
from gradinoc.claims.finding import Status
from gradinoc.claims.measures import inoculation_contrast, per_step
from gradinoc.study.prompts import INOCULATION


def test_contrast_is_measured_on_every_example(other, alignments, rules, study, record_property):
    """On the frozen model, every example was measured under both prompts."""
    effect = inoculation_contrast(alignments, rules, other)
    record_property(f"C1 {other}", str(effect))
    assert effect.n == study.data.measure, f"{effect.n} of {study.data.measure} examples"
    assert np.isfinite([effect.estimate, effect.low, effect.high]).all(), effect


def test_training_is_paired_step_by_step(other, seed, evidence, record_property):
    """In training, runs of one seed under both prompts saw the same examples at every step."""
    steps = per_step(evidence).loc[seed]
    record_property(f"C1 training {other} seed {seed}", f"{(steps[other] - steps[INOCULATION]).mean():+.4f}")
    rows = evidence.training[(evidence.training["seed"] == seed)].drop_duplicates(["condition", "step", "example"])
    seen = {name: list(zip(part["step"], part["example"], strict=True)) for name, part in rows.groupby("condition")}
    assert seen[other] == seen[INOCULATION], "the two runs did not see the same examples in the same order"


def test_inoculation_lowers_alignment(evidence, rules, gates, artifacts):
    """C1: alignment under inoculation is lower than under neutral and loss-matched prompts, paired by example."""
    finding = C1.judge(evidence, rules, gates)
    artifacts.leave(finding, evidence)
    assert finding.status is Status.SUPPORTED, f"{finding.statement} {finding.reason}"
