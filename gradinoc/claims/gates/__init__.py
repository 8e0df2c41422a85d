"""The gates G1 to G11: is the apparatus sound? What rests on a gate that fails is undecided, and only that."""

from __future__ import annotations

from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.gates.accounts import G10
from gradinoc.claims.gates.direction import G1, G2, G8A, G8B, G8C
from gradinoc.claims.gates.interventions import G11
from gradinoc.claims.gates.prompts import G3, G7
from gradinoc.claims.gates.runs import G4, G5, G6, G9
from gradinoc.claims.rules.finding import Finding
from gradinoc.study.rules import Rules

GATES = (G1, G2, G3, G4, G5, G6, G7, G8A, G8B, G8C, G9, G10, G11)
OF_DIRECTION = ("G1", "G2", "G3", "G7", "G8a", "G8b", "G8c")  # on which C1, C2 and C3 rest
OF_DRIFT = ("G4", "G5", "G6")  # on which every claim about runs rests
OF_ACCOUNTS = (*OF_DRIFT, "G10")  # on which C7a and C7b rest


def gates_of(evidence: Evidence, rules: Rules, keys: tuple[str, ...] = ()) -> tuple[Finding, ...]:
    """The finding of each gate that was measured, or of those of `keys`."""
    wanted = [gate for gate in GATES if not keys or gate.key in keys]
    return tuple(gate.judge(evidence, rules) for gate in wanted if gate.ran(evidence))
