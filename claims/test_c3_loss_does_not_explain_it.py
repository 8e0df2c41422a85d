"""C3: the fall of alignment is more than the fall of loss that comes with it."""

from __future__ import annotations

from gradinoc.contrasts import per_example
from gradinoc.gates import Status
from gradinoc.mediation import claim_3


def test_loss_is_the_completion_s_alone(condition, alignments, record_property):
    """An example's loss is one number, whatever layer and position its gradient was read at, and positive."""
    rows = alignments.alignments[alignments.alignments["condition"] == condition]
    record_property(f"C3 loss {condition}", f"{per_example(alignments, 'loss')[condition].mean():.4f}")
    assert (rows.groupby("example")["loss"].nunique() == 1).all(), "an example has several losses"
    assert (rows["loss"] > 0).all(), "a negative log-likelihood cannot be negative"


def test_loss_does_not_explain_it(alignments, rules, direction_gates, artifacts):
    """C3: at equal loss, alignment under inoculation is still lower than under the neutral prompt."""
    finding = claim_3(alignments, rules, direction_gates)
    artifacts.leave(finding, alignments, ["plot3_loss_by_condition"])
    assert finding.status is Status.SUPPORTED, f"{finding.statement} {finding.reason}"
