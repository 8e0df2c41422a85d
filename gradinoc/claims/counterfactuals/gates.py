"""What would have made a gate that holds fail, and one that fails hold."""

from __future__ import annotations

import math
from collections.abc import Callable

from gradinoc.claims.counterfactuals.turns import Otherwise, Turn, above_zero, half_width
from gradinoc.claims.gates import Finding, Status
from gradinoc.claims.tables import AFTER, Evidence
from gradinoc.study.rules import Rules


def _least(bar: float, finding: Finding) -> Otherwise:
    """For a number that has to reach a bar at every layer of the band."""
    effect = finding.effects[0]
    change = bar - effect.estimate
    if finding.status is Status.SUPPORTED:
        text = f"Below {bar:g} it would have failed: the {effect.name} is {-change:.3g} above."
        return Otherwise(text, (Turn(effect.name, change, Status.REFUTED),))
    text = f"From {bar:g} on it would have held: the {effect.name} is {change:.3g} short."
    return Otherwise(text, (Turn(effect.name, change, Status.SUPPORTED),))


def _separation(finding: Finding, evidence: Evidence, rules: Rules) -> Otherwise:  # noqa: ARG001 - called alike
    return _least(rules.auc, finding)


def _stability(finding: Finding, evidence: Evidence, rules: Rules) -> Otherwise:  # noqa: ARG001 - called alike
    return _least(rules.split_half, finding)


def _elicitation(finding: Finding, evidence: Evidence, rules: Rules) -> Otherwise:  # noqa: ARG001 - called alike
    effect = finding.effects[0]
    if not math.isfinite(effect.low):
        return Otherwise("It takes an interval, which one group of examples cannot give.")
    turn = Turn(effect.name, -effect.low, Status.REFUTED if effect.low > 0 else Status.SUPPORTED)
    if effect.low > 0:
        text = (
            f"It would have failed had the loss fallen by {effect.low:.3g} nats/token less: with this spread an "
            f"estimate of {half_width(effect):+.3g} has an interval that reaches zero."
        )
        return Otherwise(text, (turn,))
    bar = half_width(effect)
    text = f"It would have held had the loss fallen by {-effect.low:.3g} nats/token more (above {bar:+.3g})."
    return Otherwise(text, (turn,))


def _training(finding: Finding, evidence: Evidence, rules: Rules) -> Otherwise:  # noqa: ARG001 - called alike
    least = finding.effects[0].estimate
    if finding.status is Status.SUPPORTED:
        return Otherwise(
            "It would have failed had a single run's loss not fallen, or a single number logged at the band not been "
            f"finite: the run that learnt least fell by {least:.3g} nats/token.",
            (Turn("smallest fall of the training loss", -least, Status.REFUTED),),
        )
    if least > 0:
        return Otherwise("It would have held had every number been finite: every finite loss fell.")
    return Otherwise(
        f"It would have held had every run's loss fallen, and every number been finite: one loss rose by {-least:.3g} "
        "nats/token or stayed."
    )


def _drift(finding: Finding, evidence: Evidence, rules: Rules) -> Otherwise:
    rows = evidence.drift[(evidence.drift["measure"] == "score") & (evidence.drift["phase"] == AFTER)]
    rates = rows.groupby("condition")["value"].mean().dropna()
    score = evidence.trait.score_name
    lowest = f"{rates.min():.2f} under {rates.idxmin()}" if len(rates) else "none could be scored"
    weakest = min(finding.effects, key=lambda effect: effect.low)
    if finding.status is Status.SUPPORTED:
        return Otherwise(
            f"It would have failed had the rise been {weakest.low:.3g} nats/token smaller ({weakest.name}, has the "
            f"lowest interval), or the mean {score} after training {rules.ceiling:g} or more under every condition "
            f"(the lowest is {lowest}).",
            (Turn("log-odds rise", -weakest.low, Status.REFUTED),),
        )
    parts = [above_zero(effect, "nats/token") for effect in finding.effects if not effect.low > 0]
    turns: tuple[Turn, ...] = ()
    if not (rates < rules.ceiling).any():
        parts.append(f"no condition's mean {score} is below {rules.ceiling:g} (the lowest: {lowest})")
    elif math.isfinite(weakest.low):
        turns = (Turn("log-odds rise", -weakest.low, Status.SUPPORTED),)
    return Otherwise("To hold it lacks:", turns, tuple(parts))


def _scorable(finding: Finding, evidence: Evidence, rules: Rules) -> Otherwise:
    effect, needs = finding.effects[0], evidence.trait.needs
    found = round(effect.estimate * effect.n)
    fewest = next((k for k in range(effect.n + 1) if k / effect.n >= rules.max_unscorable), None)
    if fewest is None:
        return Otherwise("No number of responses would have made it fail.")
    if finding.status is Status.SUPPORTED:
        text = f"It would have failed with {fewest} of {effect.n} responses without {needs}; {found} were."
        return Otherwise(text, (Turn("unscorable responses", fewest - found - 1, Status.REFUTED),))
    if fewest == 0:
        return Otherwise("Nothing would have made it hold: no share is below 0.")
    text = f"It would have held with at most {fewest - 1} of {effect.n} responses without {needs}; {found} were."
    return Otherwise(text, (Turn("unscorable responses", fewest - found, Status.SUPPORTED),))


GATES: dict[str, Callable[[Finding, Evidence, Rules], Otherwise]] = {
    "G1": _separation, "G2": _stability, "G3": _elicitation, "G4": _training, "G5": _drift, "G6": _scorable,
}  # fmt: skip
