"""C4: alignment predicts drift, over prompts: those under which gradients align more early on drift further.

Neutral is left out: that any prompt differs from none says nothing of alignment. No causal word rests on this claim.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from gradinoc.claims.evidence.measures import (
    BY,
    DIVERGED,
    NOT_SCORED,
    deciding_measure,
    diverged_runs,
    drift_by_question,
    in_window,
    nothing_scored,
    per_example,
    per_question,
    question_groups,
)
from gradinoc.claims.evidence.tables import DECISION, EXPECTED, FIXED, Evidence
from gradinoc.claims.evidence.wide import conditions_of, once
from gradinoc.claims.gates import OF_DIRECTION, OF_DRIFT
from gradinoc.claims.rules.criteria import above_zero, at_or_below_zero, p_at_most
from gradinoc.claims.rules.finding import Claim, Measured, Outcome, in_words, refuted, supported, undecided
from gradinoc.stats.clustered import grouped_mean
from gradinoc.stats.effect import Effect
from gradinoc.stats.reach import fewest_prompts
from gradinoc.stats.regression.correlation import stratified_correlation
from gradinoc.stats.regression.prompt_slope import Covariate, prompt_slope, weakest_without_one
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules

SEED_OF_ORDERS = 0  # of permutations: the same tables give the same p
COVARIATES = ("elicitation", "tokens", "loss")


def measure(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """The slope of drift on early alignment over prompts at equal elicitation, length and loss; secondary: raw, by run.

    Early alignment is a run's band mean in the first third of its steps; drift is that of the measure that decides
    (`deciding_measure`).
    """
    if diverged_runs(evidence):
        return Measured({}, DIVERGED)
    if nothing_scored(evidence):
        return Measured({}, NOT_SCORED)
    prompts, measured = by_prompt(evidence), deciding_measure(evidence, rules.ceiling)
    alignment, covariates = prompts["alignment"].to_numpy(), covariates_of(prompts)
    name = f"drift per unit of early alignment, at equal elicitation, length and loss{BY[measured]}"
    effects = {"slope": _slope(alignment, prompts[measured], covariates, name)}
    effects["slope.without"] = _without_one(prompts, measured, covariates, name)
    facts = {"prompts": len(prompts), "fewest": fewest_prompts(len(covariates))}
    statement = f"Over {len(prompts)} prompts drift goes with early alignment by {effects['slope']}"
    if secondary:
        effects["slope.raw"] = _slope(
            alignment, prompts[measured], {}, f"drift per unit of early alignment{BY[measured]}"
        )
        effects["slope.log_odds"] = _slope(
            alignment,
            prompts[DECISION],
            covariates,
            "decision log-odds per unit of early alignment, at equal covariates",
        )
        within = covariates | _of_family(prompts["family"])
        effects["slope.within"] = _slope(
            alignment, prompts[measured], within, f"drift per unit of early alignment, within families{BY[measured]}"
        )
        effects |= _over_runs(evidence, measured)
        statement += (
            f"; without covariates by {effects['slope.raw']}; within families by {effects['slope.within']}; "
            f"{effects['slope.without']}"
        )
    return Measured(effects, f"{statement}.", facts)


def _slope(alignment: np.ndarray, drift: pd.Series, covariates: dict[str, Covariate], name: str) -> Effect:
    return prompt_slope(alignment, drift.to_numpy(), covariates, np.random.default_rng(SEED_OF_ORDERS), name)


def _without_one(prompts: pd.DataFrame, measured: str, covariates: dict[str, Covariate], name: str) -> Effect:
    """The slope without the prompt without which it is shown least; its name says which."""
    effect, place = weakest_without_one(prompts["alignment"].to_numpy(), prompts[measured], covariates, name)
    return replace(effect, name=f"the same without {prompts.index[place]}")


def _of_family(families: pd.Series) -> dict[str, Covariate]:
    """Which family a prompt is of, as covariates: one a family, but the first."""
    sizes = families.value_counts(sort=False)
    return {
        f"family {family}": Covariate((families == family).to_numpy(dtype=np.float64)) for family in sizes.index[1:]
    }


@once
def by_prompt(evidence: Evidence) -> pd.DataFrame:
    """Every fixed trained prompt but neutral: alignment, drift by measure, elicitation and its error, tokens, loss."""
    rows = evidence.prompts[evidence.prompts["trained"] & (evidence.prompts["kind"] == FIXED)]
    rows = rows[rows["condition"] != NEUTRAL].set_index("condition")
    names = list(rows.index)
    wide = per_question(evidence, "elicitation", "log_odds")
    groups = question_groups(evidence, "elicitation", wide.index)
    # What all prompts share (neutral's part) moves no slope: a prompt's error is that of its distance to their mean.
    apart = wide[names].sub(wide[names].mean(axis=1), axis=0) * np.sqrt(len(names) / max(len(names) - 1, 1))
    columns: dict[str, Mapping[Hashable, float]] = {
        "alignment": _prompt_means(in_window(evidence)),
        **{each: _prompt_means(drift_by_question(evidence, each).mean()) for each in (EXPECTED, DECISION)},
        "loss": per_example(evidence, "loss").mean().to_dict(),
        "elicitation": wide[names].sub(wide[NEUTRAL], axis=0).mean().to_dict(),
        "elicitation_error": {name: grouped_mean(apart[name], groups, name).standard_error for name in apart},
    }
    return rows[["family", "tokens"]].assign(
        **{key: [values.get(name, np.nan) for name in names] for key, values in columns.items()}
    )


def _prompt_means(runs: pd.Series) -> dict[Hashable, float]:
    """Mean over seeds of one number a run (condition, seed)."""
    means: dict[Hashable, float] = runs.groupby(level="condition", observed=True).mean().to_dict()
    return means


def elicitation(evidence: Evidence) -> dict[str, Effect]:
    """How far each measured prompt raises the decision log-odds of the frozen model above neutral's, nats."""
    wide = per_question(evidence, "elicitation", "log_odds")
    groups = question_groups(evidence, "elicitation", wide.index)
    raised = (wide.to_numpy(dtype=np.float64).T - wide[NEUTRAL].to_numpy(dtype=np.float64)).copy(order="C")
    found = dict(zip(wide.columns, raised, strict=True))
    return {name: grouped_mean(found[name], groups, f"elicitation, {name}") for name in conditions_of(evidence)}


def covariates_of(prompts: pd.DataFrame) -> dict[str, Covariate]:
    """Elicitation with its error, length and loss of the prompts."""
    error = prompts["elicitation_error"].to_numpy(dtype=np.float64)
    found = {name: Covariate(prompts[name].to_numpy(dtype=np.float64)) for name in COVARIATES}
    found["elicitation"] = Covariate(found["elicitation"].values, error)
    return found


def _over_runs(evidence: Evidence, measured: str) -> dict[str, Effect]:
    """The plan's correlation over the runs of its own prompts, permuted within seeds: its n is three prompts."""
    aligned, drift = in_window(evidence), drift_by_question(evidence, measured).mean()
    repeated = [run for run in evidence.planned_runs if sum(name == run[0] for name, _ in evidence.planned_runs) > 1]
    if len(repeated) < 3:
        return {}
    rng, seeds = np.random.default_rng(SEED_OF_ORDERS), [seed for _, seed in repeated]
    name = "alignment and drift over the runs of the conditions"
    r, ranks = stratified_correlation(aligned[repeated], drift[repeated], seeds, rng, name)
    unit = f"runs of {len({run[0] for run in repeated})} prompts"
    return {"runs": replace(r, unit=unit), "runs.ranks": replace(ranks, unit=unit)}


def decide(found: Measured, rules: Rules) -> Outcome:
    """Supported if the slope is above zero, p over prompts at most alpha; refuted if its interval is at or below 0."""
    if not found.effects:
        return undecided(found.statement)
    slope, without = found["slope"], found["slope.without"]
    follows, shown, against = above_zero(slope), p_at_most(slope, rules.alpha), at_or_below_zero(slope)
    stays = above_zero(without)
    if not np.isfinite(slope.estimate):
        return undecided(f"Undecided because no slope can be told: {slope.method}.", follows, shown)
    criteria = (follows, shown, stays, against)
    if follows and shown and stays:
        return supported(
            f"The slope's interval lies above zero, with p at most {rules.alpha:g} over prompts, whichever prompt is "
            "left out.",
            *criteria,
        )
    if against:
        return refuted("The slope's interval lies at or below zero.", *criteria)
    if follows and shown:
        return undecided(f"Undecided because it rests on one prompt: {without}.", *criteria)
    return undecided(f"Undecided because the slope is not shown to be above zero (p {in_words(slope.p)}).", *criteria)


C4 = Claim(
    "C4",
    "Alignment predicts drift.",
    measure,
    decide,
    (*OF_DIRECTION, *OF_DRIFT, "G9"),
    "Supported if over prompts, neutral left out, the slope of drift on alignment in the first third of training, with "
    "elicitation, length and loss as covariates, has a {level} interval above zero, with each prompt left out once "
    "as well, and a p, by permutation over prompts, of at most {alpha}. Refuted if the interval lies at or below "
    "zero. Otherwise undecided.",
)
