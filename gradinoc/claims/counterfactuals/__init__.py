"""The rule by which each gate and claim was decided, and what would have decided it otherwise, from its own numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gradinoc.claims.c1 import RESTS_ON
from gradinoc.claims.counterfactuals.claims import lower_alignment, other_directions
from gradinoc.claims.counterfactuals.equal_loss import equal_loss
from gradinoc.claims.counterfactuals.gates import GATES
from gradinoc.claims.counterfactuals.prediction import alignment_with_drift
from gradinoc.claims.counterfactuals.rules import rule_of
from gradinoc.claims.counterfactuals.turns import ALIGNMENT, DRIFT, Otherwise, Turn
from gradinoc.claims.gates import Finding, Status
from gradinoc.claims.tables import Evidence
from gradinoc.claims.verdict import CLAIMS as JUDGES
from gradinoc.study.rules import Rules

__all__ = ["ALIGNMENT", "DRIFT", "Otherwise", "Turn", "otherwise", "rule_of"]

CLAIMS = {"C1": lower_alignment, "C2": other_directions, "C3": equal_loss, "C4": alignment_with_drift}


def otherwise(finding: Finding, gates: Sequence[Finding], evidence: Evidence, rules: Rules) -> Otherwise:
    """What would have changed `finding`, a gate or claim that was judged from `evidence` beside these `gates`.

    For a claim that a failed gate left undecided: what it would have been with the gate held, and what would have
    changed that.
    """
    if finding.key in GATES:
        return GATES[finding.key](finding, evidence, rules)
    failed = [gate.key for gate in gates if gate.key in RESTS_ON[finding.key] and gate.status is not Status.SUPPORTED]
    if not failed:
        return CLAIMS[finding.key](finding, evidence, rules)
    held = [replace(gate, status=Status.SUPPORTED) for gate in gates]
    judge = dict(zip(CLAIMS, JUDGES, strict=True))[finding.key]
    opened = judge(evidence, rules, held)
    found = CLAIMS[finding.key](opened, evidence, rules)
    held_open = f"With {' and '.join(failed)} held it would have been {opened.status}."
    return replace(found, text=f"{held_open} By its own numbers then: {found.text}")
