"""C3: the fall of alignment is more than the fall of loss that comes with it."""

from __future__ import annotations

from gradinoc.claims.c3 import C3
from gradinoc.claims.finding import Status
from gradinoc.claims.measures import per_example


def test_loss_is_the_completion_s_alone(condition, alignments, record_property):
    """An example's loss is one number, whatever layer and position its gradient was read at, and positive."""
    rows = alignments.alignments[alignments.alignments["condition"] == condition]
    record_property(f"C3 loss {condition}", f"{per_example(alignments, 'loss')[condition].mean():.4f}")
    assert (rows.groupby("example")["loss"].nunique() == 1).all(), "an example has several losses"
    assert (rows["loss"] > 0).all(), "a negative log-likelihood cannot be negative"


def test_neutral_checkpoint_reaches_inoculations_loss(seed, equal_loss, record_property):
    """Of the checkpoints that were looked at, the base model among them, the one whose loss is nearest is compared."""
    rows = equal_loss.matched_steps[equal_loss.matched_steps["seed"] == seed]
    chosen = rows[rows["chosen"]].iloc[0]
    left = chosen["loss"] - chosen["target"]
    record_property(f"C3 matched seed {seed}", f"step {chosen['step']}, {left:+.4f} nats/token left")
    assert (rows["loss"] - rows["target"]).abs().min() == abs(left)
    assert 0 in rows["step"].to_numpy(), "the base model was not looked at"


def test_loss_does_not_explain_it(equal_loss, rules, direction_gates, artifacts):
    """C3: at equal loss, alignment under inoculation is still lower than under the neutral prompt."""
    finding = C3.judge(equal_loss, rules, direction_gates)
    artifacts.leave(finding, equal_loss)
    assert finding.status is Status.SUPPORTED, f"{finding.statement} {finding.reason}"
