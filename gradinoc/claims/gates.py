"""Is the apparatus sound? The six gates on which the claims rest, and the form of a finding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import pandas as pd

from gradinoc.claims.measures import diverged_runs, drift_by_example, example_groups, per_example
from gradinoc.claims.tables import AFTER, EARLY, Evidence
from gradinoc.stats.clustered import grouped_mean, grouped_pairs
from gradinoc.stats.effect import Effect, bare, finite
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules


class Status(StrEnum):
    """What became of a claim; for a gate SUPPORTED means that it holds, REFUTED that it fails."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Finding:
    """A gate or claim, what the numbers say in one sentence, and which rule made of it what it is."""

    key: str
    claim: str
    status: Status
    statement: str
    reason: str
    effects: tuple[Effect, ...] = ()
    rests_on: tuple[str, ...] = ()


def _gate(key: str, claim: str, holds: bool, statement: str, rule: str, effects: tuple[Effect, ...]) -> Finding:
    status = Status.SUPPORTED if holds else Status.REFUTED
    return Finding(key, claim, status, statement, f"{'Holds' if holds else 'Fails'}: the rule is {rule}.", effects)


def _lowest_in_band(evidence: Evidence, column: str, name: str) -> tuple[Effect, int]:
    """The lowest value of a column of `layers` over the band, and at which layer."""
    band = evidence.layers[evidence.layers["in_band"]].reset_index(drop=True)
    values = finite(band[column].to_numpy(), f"Evidence table 'layers', column {column!r}, band")
    at = int(band["layer"].iloc[int(values.argmin())])
    return bare(name, float(values.min()), len(band), "layers", "minimum over the band"), at


def gate_1(evidence: Evidence, rules: Rules) -> Finding:
    """G1: whether the direction separates held-out prompts at every layer of the band."""
    effect, layer = _lowest_in_band(evidence, "auc", "lowest AUC in the band")
    statement = (
        f"On held-out prompts the projection's lowest AUC over the band's {effect.n} layers is "
        f"{effect.estimate:.3f} (layer {layer})."
    )
    rule = f"AUC of at least {rules.auc} at every layer of the band"
    return _gate(
        "G1",
        "The trait direction separates held-out prompts.",
        effect.estimate >= rules.auc,
        statement,
        rule,
        (effect,),
    )


def gate_2(evidence: Evidence, rules: Rules) -> Finding:
    """G2: whether two halves of the prompts give the same direction at every layer of the band."""
    effect, layer = _lowest_in_band(evidence, "split_half_cosine", "lowest split-half cosine in the band")
    statement = (
        f"Directions from two halves of the prompts have a cosine of {effect.estimate:.3f} or more over the "
        f"band (lowest at layer {layer})."
    )
    rule = f"a split-half cosine of at least {rules.split_half} at every layer of the band"
    return _gate(
        "G2",
        "The trait direction is stable.",
        effect.estimate >= rules.split_half,
        statement,
        rule,
        (effect,),
    )


def gate_3(evidence: Evidence, rules: Rules) -> Finding:
    """G3: whether the inoculation prompt lowers the loss on trait-bearing completions, paired by example."""
    loss = per_example(evidence, "loss")
    name = "loss, neutral - inoculation"
    groups = example_groups(evidence, "alignments", loss.index)
    effect = grouped_pairs(loss[NEUTRAL], loss[INOCULATION], groups, name, 1 - rules.alpha)
    statement = f"The loss on trait-bearing completions, neutral minus inoculation, is {effect} nats/token."
    rule = "an interval of the paired loss difference above zero"
    return _gate("G3", "The inoculation prompt elicits the trait.", effect.low > 0, statement, rule, (effect,))


def gate_4(evidence: Evidence, rules: Rules) -> Finding:  # noqa: ARG001 - gates are called alike
    """G4: whether every run's loss fell and everything it logged at the band's primary position is finite."""
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
    rule = "in every run a final loss below the initial one and finite numbers only"
    return _gate("G4", "Training worked.", not failed, statement, rule, (least,))


def gate_5(evidence: Evidence, rules: Rules) -> Finding:
    """G5: whether neutral runs' log-odds rise, and responses are not at the ceiling everywhere."""
    rises = drift_by_example(evidence, "log_odds")[NEUTRAL]
    effects = []
    for seed in evidence.seeds:
        name = f"log-odds rise, neutral, seed {seed}"
        rise = rises.loc[seed]
        groups = example_groups(evidence, "drift", rise.index, "log_odds")
        effect = grouped_mean(rise, groups, name, 1 - rules.alpha)
        method = "paired t (post - pre by example), two-sided p"
        effects.append(replace(effect, method=method if groups is None else f"post - pre by example, {effect.method}"))
    rates = _post_scores(evidence)
    room = bool((rates < rules.ceiling).any())
    weakest = min(effects, key=lambda effect: effect.low)
    shown = ", ".join(
        f"{condition} {rate:.2f}" if np.isfinite(rate) else f"{condition} none that could be scored"
        for condition, rate in rates.items()
    )
    statement = (
        f"In neutral runs the trait log-odds rise by at least {weakest} nats/token; the {evidence.trait.score_name} "
        f"after training is {shown}."
    )
    rule = (
        "an interval of the rise above zero in every neutral run, and a mean "
        f"{evidence.trait.score_name} below {rules.ceiling} in some condition"
    )
    holds = room and all(effect.low > 0 for effect in effects)
    return _gate("G5", "There is drift to explain.", holds, statement, rule, tuple(effects))


def _post_scores(evidence: Evidence) -> pd.Series:
    """Mean score of responses after training, by condition in declared order; NaN where none could be scored (G6)."""
    drift = evidence.drift
    rows = drift[(drift["measure"] == "score") & (drift["phase"] == AFTER)]
    absent = sorted(set(evidence.trained) - set(rows["condition"]))
    if absent:
        raise ValueError(f"Evidence table 'drift': expected scores after training of {absent}, received none")
    return rows.groupby("condition")["value"].mean().reindex(list(evidence.trained))


def gate_6(evidence: Evidence, rules: Rules) -> Finding:
    """G6: whether nearly all responses before and after training can be scored."""
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
    rule = f"fewer than {100 * rules.max_unscorable:g} % without {needs}"
    return _gate("G6", f"Evaluated responses have {needs}.", share < rules.max_unscorable, statement, rule, (effect,))
