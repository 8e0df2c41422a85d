"""The gates G1 to G6: manipulation and validity checks on which the claims rest, each with its measure and rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from gradinoc.claims.criteria import Criterion, above_zero, at_least, below, positive
from gradinoc.claims.finding import Claim, Finding, Measured, Outcome, refuted, supported
from gradinoc.claims.measures import diverged_runs, drift_by_example, example_groups, per_example
from gradinoc.claims.tables import AFTER, EARLY, Evidence
from gradinoc.stats.clustered import grouped_mean, grouped_pairs
from gradinoc.stats.effect import Effect, bare, finite
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules


def _outcome(rule: str, *criteria: Criterion) -> Outcome:
    """A gate holds where all of its criteria do."""
    holds = all(criteria)
    return (supported if holds else refuted)(f"{'Holds' if holds else 'Fails'}: the rule is {rule}.", *criteria)


def _lowest_in_band(evidence: Evidence, column: str, name: str) -> tuple[Effect, int]:
    """The lowest value of a column of `layers` over the band, and at which layer."""
    band = evidence.layers[evidence.layers["in_band"]].reset_index(drop=True)
    values = finite(band[column].to_numpy(), f"Evidence table 'layers', column {column!r}, band")
    at = int(band["layer"].iloc[int(values.argmin())])
    return bare(name, float(values.min()), len(band), "layers", "minimum over the band"), at


def _separation(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:  # noqa: ARG001
    effect, layer = _lowest_in_band(evidence, "auc", "lowest AUC in the band")
    statement = (
        f"On held-out prompts the projection's lowest AUC over the band's {effect.n} layers is "
        f"{effect.estimate:.3f} (layer {layer})."
    )
    return Measured({"auc": effect}, statement)


def _separates(found: Measured, rules: Rules) -> Outcome:
    return _outcome(f"AUC of at least {rules.auc} at every layer of the band", at_least(found["auc"], rules.auc))


def _stability(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:  # noqa: ARG001
    effect, layer = _lowest_in_band(evidence, "split_half_cosine", "lowest split-half cosine in the band")
    statement = (
        f"Directions from two halves of the prompts have a cosine of {effect.estimate:.3f} or more over the "
        f"band (lowest at layer {layer})."
    )
    return Measured({"split_half": effect}, statement)


def _stable(found: Measured, rules: Rules) -> Outcome:
    rule = f"a split-half cosine of at least {rules.split_half} at every layer of the band"
    return _outcome(rule, at_least(found["split_half"], rules.split_half))


def _elicitation(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:  # noqa: ARG001
    """The loss on completions that show the trait, neutral - inoculation, paired by example."""
    loss = per_example(evidence, "loss")
    groups = example_groups(evidence, "alignments", loss.index)
    effect = grouped_pairs(loss[NEUTRAL], loss[INOCULATION], groups, "loss, neutral - inoculation", 1 - rules.alpha)
    statement = f"The loss on trait-bearing completions, neutral minus inoculation, is {effect} nats/token."
    return Measured({"loss": effect}, statement)


def _elicits(found: Measured, rules: Rules) -> Outcome:  # noqa: ARG001
    return _outcome("an interval of the paired loss difference above zero", above_zero(found["loss"]))


def _training(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:  # noqa: ARG001
    """How far every run's loss fell, and how many runs did not learn or logged numbers that are not finite."""
    runs = evidence.runs
    expected = {(condition, seed) for condition in evidence.trained for seed in evidence.seeds}
    present = set(zip(runs["condition"], runs["seed"], strict=True))
    if present != expected or len(runs) != len(expected):
        raise ValueError(
            f"Evidence table 'runs': expected one row for each of {sorted(expected)}, received {sorted(present)}"
        )
    fall = runs["initial_loss"] - runs["final_loss"]
    fell = np.isfinite(fall) & (fall > 0)
    failed = diverged_runs(evidence) | set(zip(runs["condition"][~fell], runs["seed"][~fell], strict=True))
    measured = fall[np.isfinite(fall)]
    least = bare(
        "smallest fall of the training loss",
        float(measured.min()),
        len(measured),
        "runs",
        "minimum over runs with finite losses",
    )
    names = ", ".join(f"{condition} seed {seed}" for condition, seed in sorted(failed))
    statement = (
        f"In {len(runs) - len(failed)} of {len(runs)} runs the training loss fell and every number is finite "
        f"(the smallest fall is {least.estimate:.3g} nats/token)"
    )
    statement += f"; not in {names}." if failed else "."
    risen = runs[fall < 0]
    if len(risen):
        by = ", ".join(
            f"{row.condition} seed {row.seed} from {row.initial_loss:.3g} to {row.final_loss:.3g}"
            for row in risen.itertuples()
        )
        statement += f" Diverged, the loss having risen: {by}."
    return Measured({"fall": least}, statement, {"failed runs": len(failed)})


def _trained(found: Measured, rules: Rules) -> Outcome:  # noqa: ARG001
    failed = found.facts["failed runs"]
    fell = positive(found["fall"])
    every = replace(fell, rule="every run's loss fell, and every number it logged is finite", holds=not failed)
    return _outcome("in every run a final loss below the initial one and finite numbers only", every)


def _rise(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:  # noqa: ARG001
    """How far neutral runs' log-odds rise, by seed, and the lowest mean score after training."""
    rises = drift_by_example(evidence, "log_odds")[NEUTRAL]
    effects = {}
    for seed in evidence.seeds:
        name = f"log-odds rise, neutral, seed {seed}"
        rise = rises.loc[seed]
        groups = example_groups(evidence, "drift", rise.index, "log_odds")
        effect = grouped_mean(rise, groups, name, 1 - rules.alpha)
        method = "paired t (post - pre by example), two-sided p"
        method = method if groups is None else f"post - pre by example, {effect.method}"
        effects[f"rise.seed_{seed}"] = replace(effect, method=method)
    rates = scores_after_training(evidence)
    weakest = min(effects.values(), key=lambda effect: effect.low)
    shown = ", ".join(
        f"{condition} {rate:.2f}" if np.isfinite(rate) else f"{condition} none that could be scored"
        for condition, rate in rates.items()
    )
    statement = (
        f"In neutral runs the trait log-odds rise by at least {weakest} nats/token; the {evidence.trait.score_name} "
        f"after training is {shown}."
    )
    return Measured(effects, statement, {"lowest score": float(rates.min())})


def _drifts(found: Measured, rules: Rules) -> Outcome:
    lowest = found.facts["lowest score"]  # NaN where no response of any condition could be scored
    score = "mean score after training, lowest of the conditions"
    room = below(bare(score, lowest, 1, "conditions", "minimum over conditions"), rules.ceiling)
    rule = (
        f"an interval of the rise above zero in every neutral run, and a mean score below {rules.ceiling} in some "
        "condition"
    )
    return _outcome(rule, *map(above_zero, found.effects.values()), room)


def scores_after_training(evidence: Evidence) -> pd.Series:
    """Mean score of responses after training, by condition in declared order; NaN where none could be scored (G6)."""
    drift = evidence.drift
    rows = drift[(drift["measure"] == "score") & (drift["phase"] == AFTER)]
    absent = sorted(set(evidence.trained) - set(rows["condition"]))
    if absent:
        raise ValueError(f"Evidence table 'drift': expected scores after training of {absent}, received none")
    return rows.groupby("condition")["value"].mean().reindex(list(evidence.trained))


def _scoring(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:  # noqa: ARG001
    """The share of responses before and after training that cannot be scored."""
    responses = evidence.responses.loc[evidence.responses["phase"] != EARLY, "response"]
    if responses.empty or responses.isna().any():
        raise ValueError(
            f"Evidence table 'responses': expected texts, received {len(responses)} with "
            f"{responses.isna().sum()} missing"
        )
    needs, unscorable = evidence.trait.needs, ~responses.map(evidence.trait.scorable).astype(bool)
    share = float(unscorable.mean())
    effect = bare(
        f"share of responses without {needs}",
        share,
        len(responses),
        "responses",
        "count over all runs and the base model",
    )
    statement = (
        f"{int(unscorable.sum())} of {len(responses)} evaluated responses ({100 * share:.1f} %) have no {needs}."
    )
    return Measured({"unscorable": effect}, statement)


def _scorable(found: Measured, rules: Rules) -> Outcome:
    rule = f"fewer than {100 * rules.max_unscorable:g} % that cannot be scored"
    return _outcome(rule, below(found["unscorable"], rules.max_unscorable))


G1 = Claim("G1", "The trait direction separates held-out prompts.", _separation, _separates)
G2 = Claim("G2", "The trait direction is stable.", _stability, _stable)
G3 = Claim("G3", "The inoculation prompt elicits the trait.", _elicitation, _elicits)
G4 = Claim("G4", "Training worked.", _training, _trained)
G5 = Claim("G5", "There is drift to explain.", _rise, _drifts)
G6 = Claim("G6", "Evaluated responses can be scored.", _scoring, _scorable)
GATES = (G1, G2, G3, G4, G5, G6)
ON_DIRECTION = ("G1", "G2", "G3")  # on which every claim about the frozen model rests
ON_RUNS = ("G1", "G2", "G4", "G5", "G6")


def gates_of(evidence: Evidence, rules: Rules, keys: tuple[str, ...] = ()) -> tuple[Finding, ...]:
    """The finding of each gate, or of those of `keys`."""
    return tuple(gate.judge(evidence, rules) for gate in GATES if not keys or gate.key in keys)
