"""C7c: gradients before training foretell the drift, by a kernel that needs no direction."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gradinoc.claims.c4 import COVARIATES, by_prompt, covariates_of
from gradinoc.claims.evidence.measures import DIVERGED, NOT_SCORED, diverged_runs, matrix, nothing_scored, per_example
from gradinoc.claims.evidence.tables import DECISION, FULL, LORA, Evidence
from gradinoc.claims.gates import OF_DRIFT
from gradinoc.claims.rules.criteria import above_zero, at_or_below_zero, p_at_most
from gradinoc.claims.rules.finding import Claim, Measured, Outcome, in_words, refuted, supported, undecided
from gradinoc.stats.effect import bare
from gradinoc.stats.reach import smallest_prediction_p, smallest_slope_p
from gradinoc.stats.regression.prediction import left_out_r2, prediction
from gradinoc.stats.regression.prompt_slope import prompt_slope
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules

SEED_OF_ORDERS = 0
ORDERS = 999  # permutations of prompts, where R^2 is computed anew for each


def _foretold(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """Drift of the log-odds on what the kernel says before training, over prompts; and how well each is predicted."""
    if diverged_runs(evidence):
        return Measured({}, DIVERGED)
    if nothing_scored(evidence):
        return Measured({}, NOT_SCORED)
    prompts, kernel = by_prompt(evidence), kernel_of(evidence, LORA)
    names = [name for name in prompts.index if name in kernel.index]
    prompts, foreseen = prompts.loc[names], kernel.loc[names, NEUTRAL].to_numpy(dtype=np.float64)
    drift = prompts[DECISION].to_numpy(dtype=np.float64)
    alignment = per_example(evidence)[names].mean().to_numpy(dtype=np.float64)
    rng = np.random.default_rng(SEED_OF_ORDERS)
    name = "neutral drift of log-odds per unit of the kernel, at equal elicitation, length and loss"
    effects = {
        "slope": prompt_slope(foreseen, drift, covariates_of(prompts), rng, name),
        "r2": prediction(foreseen, drift, "left-out R2 of neutral drift by the kernel", rng, ORDERS),
    }
    floor = max(smallest_slope_p(len(names), len(COVARIATES), spare=0), smallest_prediction_p(len(names), ORDERS))
    facts = {"prompts": len(names), "smallest p": floor}
    r2, p = in_words(effects["r2"].estimate, ".2f"), in_words(effects["r2"].p)
    statement = (
        f"Over {len(names)} prompts neutral drift goes with the kernel before training by {effects['slope']}; left out "
        f"one at a time, drift is predicted with R2 {r2} (p {p}; of so many "
        f"prompts and {ORDERS} orders no p is below {floor:.2g})"
    )
    if secondary:
        name = "left-out R2 of neutral drift by cos(-g, v)"
        effects["r2.alignment"] = prediction(alignment, drift, name, rng, ORDERS)
        statement += f", by alignment with {in_words(effects['r2.alignment'].estimate, '.2f')}"
        trained = matrix(evidence)
        shared = [each for each in trained.columns if each in kernel.columns]
        cells, found = kernel.loc[names, shared].to_numpy(), trained.loc[names, shared].to_numpy()
        effects["r2.matrix"] = prediction(cells, found, "left-out R2 of the matrix by the kernel", rng, ORDERS)
        full = kernel_of(evidence, FULL).loc[names, NEUTRAL].to_numpy(dtype=np.float64)
        name, predicted = "left-out R2 by the kernel of the full weights", left_out_r2(full, drift)
        effects["r2.full"] = bare(name, predicted, len(names), "prompts", "leave-one-out R2")
    return Measured(effects, f"{statement}.", facts)


def kernel_of(evidence: Evidence, space: str) -> pd.DataFrame:
    """The kernel before training, nats per learning rate: a row a prompt, a column an evaluation prompt."""
    rows = evidence.kernel[evidence.kernel["space"] == space]
    return rows.pivot_table(index="condition", columns="evaluation", values="kernel", observed=True)


def _foretells(found: Measured, rules: Rules) -> Outcome:
    """Supported if drift rises with the kernel and each prompt's is predicted from the others'; refuted if it falls."""
    if not found.effects:
        return undecided(found.statement)
    slope, r2 = found["slope"], found["r2"]
    follows, shown, against = above_zero(slope), p_at_most(slope, rules.alpha), at_or_below_zero(slope)
    predicts = p_at_most(r2, rules.alpha)
    criteria = (follows, shown, predicts, against)
    if not np.isfinite(slope.estimate):
        return undecided(f"Undecided because no slope can be told: {slope.method}.", *criteria)
    if follows and shown and predicts:
        return supported("Drift rises with the kernel, and is predicted by it.", *criteria)
    if against:
        return refuted("The slope's interval lies at or below zero.", *criteria)
    floor = found.facts["smallest p"]
    if floor > rules.alpha:
        words = f"{found.facts['prompts']} prompts reach no p below {floor:.3g}"
        return undecided(f"Undecided because the design cannot decide: {words}.", *criteria)
    return undecided(f"Undecided because drift is not shown to follow the kernel (p {in_words(slope.p)}).", *criteria)


C7C = Claim(
    "C7c",
    "Gradients before training foretell the drift.",
    _foretold,
    _foretells,
    OF_DRIFT,
    "Supported if over prompts, neutral left out, neutral drift of the log-odds rises with the kernel between the "
    "training gradient and that of the log-odds, before training and at equal elicitation, length and loss ({level} "
    "interval above zero, p by permutation at most {alpha}), and predicts prompts that are left out (p at most "
    "{alpha}). Refuted if the interval lies at or below zero. Otherwise undecided. It decides no verdict.",
    headline="r2",
    needs=("kernel",),
)
