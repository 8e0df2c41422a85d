"""Gates on the runs: training worked (G4), there is drift (G5), responses can be scored (G6), measures agree (G9)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from gradinoc.claims.evidence.measures import (
    DIVERGED,
    HARMLESS,
    INOCULATING,
    NOT_SCORED,
    PROMPTS_AND_RUNS,
    diverged_runs,
    drift_by_question,
    drift_families,
    nothing_scored,
    scores_after_training,
)
from gradinoc.claims.evidence.tables import AGREEING, EXPECTED, Evidence
from gradinoc.claims.rules.criteria import Criterion, above, at_least, below, equivalent, positive
from gradinoc.claims.rules.finding import Claim, Measured, Outcome, held, in_words, refuted
from gradinoc.stats.effect import Effect, bare, tost
from gradinoc.stats.families import contrast
from gradinoc.stats.shares.agreement import ranks_agree, shares_apart
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules

Run = tuple[str, int]


def _training(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """How far every run's loss fell, which runs did not learn, and whether runs of a seed began alike."""
    runs = evidence.runs
    present = set(zip(runs["condition"], runs["seed"], strict=True))
    if present != set(evidence.planned_runs) or len(runs) != len(evidence.planned_runs):
        raise ValueError(
            f"Evidence table 'runs': expected one row for each of {sorted(evidence.planned_runs)}, "
            f"received {sorted(present)}"
        )
    fall = runs["initial_loss"] - runs["final_loss"]
    fell = np.isfinite(fall) & (fall > 0)
    failed = diverged_runs(evidence) | set(zip(runs["condition"][~fell], runs["seed"][~fell], strict=True))
    apart = sum(len(set(adapters)) > 1 for _, adapters in runs.groupby("seed")["initial_adapter"])
    unknown = int(runs["initial_adapter"].fillna("").astype(str).str.strip().eq("").sum())
    measured = fall[np.isfinite(fall)]
    name, method = "smallest fall of the training loss", "minimum over runs with finite losses"
    least = bare(name, float(measured.min()), len(measured), "runs", method)
    smallest = f"the smallest fall is {least.estimate:.3g} nats/token" if len(measured) else "of no run it is a number"
    statement = (
        f"In {len(runs) - len(failed)} of {len(runs)} runs the training loss fell and every number is finite "
        f"({smallest})"
    )
    statement += f"; not in {_names(failed)}." if failed else "."
    statement += "" if not apart else f" In {apart} seeds the runs did not begin with the same adapter."
    statement += "" if not unknown else f" Of {unknown} runs it was not stored with which adapter they began."
    statement += _rises(runs[fall < 0])
    return Measured(
        {"fall": least}, statement, {"failed runs": len(failed), "seeds apart": apart, "starts unknown": unknown}
    )


def _names(runs: set[Run]) -> str:
    return ", ".join(f"{condition} seed {seed}" for condition, seed in sorted(runs))


def _rises(risen: pd.DataFrame) -> str:
    """The runs whose loss rose, in words."""
    if risen.empty:
        return ""
    by = [
        f"{row.condition} seed {row.seed} from {row.initial_loss:.3g} to {row.final_loss:.3g}"
        for row in risen.itertuples()
    ]
    return f" Diverged, the loss having risen: {', '.join(by)}."


def _trained(found: Measured, rules: Rules) -> Outcome:
    fell = positive(found["fall"])
    every = replace(
        fell, rule="every run's loss fell, and every number it logged is finite", holds=not found.facts["failed runs"]
    )
    same = not found.facts["seeds apart"] and not found.facts["starts unknown"]
    alike = Criterion("fall", "runs of a seed begin with the same adapter", same, np.nan)
    rule = "in every run a final loss below the initial one and finite numbers only, from one adapter a seed"
    return held(rule, every, alike)


def _rise(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """Drift of neutral runs in the expected score, the lowest mean score after training, and the room that is left."""
    if diverged_runs(evidence):
        return Measured({}, DIVERGED)
    if nothing_scored(evidence):
        shown = ", ".join(_shown(scores_after_training(evidence)))
        return Measured({}, f"{NOT_SCORED} After training the expected {evidence.trait.score_name} is {shown}.")
    families = drift_families(evidence, EXPECTED)
    name = f"drift of neutral runs, expected {evidence.trait.score_name}"
    neutral = contrast(families, {NEUTRAL: 1.0}, name, 1 - rules.alpha, "runs")
    scores = scores_after_training(evidence)
    harmless = families.means.get(HARMLESS, np.array([]))
    left = float(harmless.mean()) / neutral.estimate if harmless.size and neutral.estimate else np.nan
    room = bare("harmless drift, share of neutral's", left, harmless.size, "prompts", "ratio of means")
    shown = ", ".join(_shown(scores))
    left_words = f"Harmless prompts leave {100 * left:.0f} % of it. " if np.isfinite(left) else ""
    statement = (
        f"Neutral runs drift by {neutral}. {left_words}After training the expected {evidence.trait.score_name} is "
        f"{shown}."
    )
    return Measured({"drift": neutral, "room": room}, statement, {"lowest score": float(scores.min())})


def _shown(scores: pd.Series) -> list[str]:
    """Scores by condition, in words."""
    return [
        f"{condition} {score:.2f}" if np.isfinite(score) else f"{condition} none that could be scored"
        for condition, score in scores.items()
    ]


def _drifts(found: Measured, rules: Rules) -> Outcome:
    if not found.effects:
        return refuted(found.statement)
    name, lowest = "mean score after training, lowest of the conditions", found.facts["lowest score"]
    left = below(bare(name, lowest, 1, "conditions", "minimum over conditions"), rules.ceiling)
    rule = (
        f"neutral drift above {rules.least_drift:g} of the scale, and a mean score below {rules.ceiling:g} in some "
        "condition"
    )
    return held(rule, above(found["drift"], rules.least_drift), left)


def _scoring(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """The share of responses, greedy and sampled, before and after training that cannot be scored.

    Of sampled ones, whose mean decides, a question's mean alone is kept: those are counted none of whose can be scored.
    """
    if diverged_runs(evidence):
        return Measured({}, DIVERGED)
    responses = evidence.responses["response"]
    if responses.empty or responses.isna().any():
        raise ValueError(
            f"Evidence table 'responses': expected texts, received {len(responses)} with "
            f"{responses.isna().sum()} missing"
        )
    needs, unscorable = evidence.trait.needs, ~responses.map(evidence.trait.scorable).astype(bool)
    share = float(unscorable.mean())
    method = "count over all runs and the base model"
    effect = bare(f"share of responses without {needs}", share, len(responses), "responses", method)
    sampled = evidence.drift.loc[evidence.drift["measure"] == EXPECTED, "value"].isna()
    if sampled.empty:
        raise ValueError(f"Evidence table 'drift': expected rows of the measure {EXPECTED!r}, received none")
    name, lost = f"share of questions without sampled {needs}", float(sampled.mean())
    effects = {"unscorable": effect, "unscorable.sampled": bare(name, lost, len(sampled), "questions of runs", method)}
    statement = (
        f"{int(unscorable.sum())} of {len(responses)} evaluated responses ({100 * share:.1f} %) have no {needs}, nor "
        f"has any response sampled to {int(sampled.sum())} of {len(sampled)} questions ({100 * lost:.1f} %)."
    )
    if lost:
        out = drift_by_question(evidence, EXPECTED, strict=False).isna().any(axis=1)
        statement += f" So {int(out.sum())} of {len(out)} questions are left out of drift, of every run's."
    return Measured(effects, statement)


def _scorable(found: Measured, rules: Rules) -> Outcome:
    if not found.effects:
        return refuted(found.statement)
    rule = f"fewer than {100 * rules.max_unscorable:g} % that cannot be scored, of greedy responses and of sampled ones"
    return held(rule, *(below(found[key], rules.max_unscorable) for key in ("unscorable", "unscorable.sampled")))


def _agreement(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """How far the share removed by inoculation differs between measures, and how alike they rank the runs.

    Of the pairs of measures that which is the least shown to agree.
    """
    if diverged_runs(evidence):
        return Measured({}, DIVERGED)
    if nothing_scored(evidence):
        return Measured({}, NOT_SCORED)
    runs = {measure: drift_by_question(evidence, measure) for measure in AGREEING}
    shared = tuple(sorted(set.intersection(*(set(wide.index) for wide in runs.values()))))
    ranks = ranks_agree({measure: wide.loc[list(shared)].mean().to_numpy() for measure, wide in runs.items()})
    tables = {measure: drift_families(evidence, measure, shared) for measure in AGREEING}
    apart = max(shares_apart(tables, INOCULATING, NEUTRAL), key=lambda pair: _doubt(pair, rules))
    apart = replace(apart, unit=PROMPTS_AND_RUNS)
    statement = (
        f"Between measures the share of drift that inoculation removes differs by {apart} ({apart.name}, the pair "
        f"least shown to agree); ranks of runs correlate by {in_words(ranks.estimate, '.2f')} at least."
    )
    if not np.isfinite([apart.estimate, ranks.estimate]).all():
        statement = f"Whether measures agree cannot be told: {apart.name}: {apart}; {ranks.name}: {ranks}."
    return Measured({"apart": apart, "ranks": ranks}, statement)


def _doubt(pair: Effect, rules: Rules) -> float:
    """How little two measures are shown to agree: p of their equivalence, infinite where there is none."""
    p = tost(pair, rules.agreement, rules.alpha).p
    return p if np.isfinite(p) else np.inf


def _agrees(found: Measured, rules: Rules) -> Outcome:
    if not found.effects:
        return refuted(found.statement)
    rule = (
        f"shares shown to differ by less than {rules.agreement:g} (two one-sided tests at {rules.alpha:g}), and rank "
        f"correlations of at least {rules.rank_agreement:g}"
    )
    close = equivalent(found["apart"], rules.agreement, rules.alpha)
    return held(rule, close, at_least(found["ranks"], rules.rank_agreement))


G4 = Claim("G4", "Training worked.", _training, _trained)
G5 = Claim("G5", "There is drift to explain.", _rise, _drifts)
G6 = Claim("G6", "Evaluated responses can be scored.", _scoring, _scorable)
G9 = Claim("G9", "Measures of drift agree.", _agreement, _agrees)
