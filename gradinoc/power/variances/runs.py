"""What a study shows of its runs, in the terms of simulated studies."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gradinoc.claims.evidence.measures import (
    HARMLESS,
    INOCULATING,
    drift_by_question,
    drift_families,
    in_window,
    nulls_in_window,
    question_groups,
    within,
)
from gradinoc.claims.evidence.tables import DECISION, EXPECTED, WINDOWS, Evidence
from gradinoc.claims.gates.direction import G8B
from gradinoc.claims.gates.runs import G4, G6
from gradinoc.power.simulated.trained import SAMPLES
from gradinoc.power.variances.frozen import Measured, Values
from gradinoc.power.variances.moments import by_template, interaction_square, pooled, pooled_slope, root
from gradinoc.stats.effect import Array
from gradinoc.study.prompts import INOCULATION, LOSS_MATCHED, NEUTRAL

CORE = [NEUTRAL, INOCULATION, LOSS_MATCHED]


def of_runs(measured: Measured) -> tuple[Values, Values]:
    """Effects and spreads of alignment in training and of drift: fields of `Scenario` and of `Noise`."""
    evidence = measured.evidence
    spreads = _of_alignment(evidence)
    effects, of_drift = _of_drift(measured, spreads)
    spreads |= of_drift | {"training_null": root(float(np.mean(nulls_in_window(evidence)[NEUTRAL].to_numpy() ** 2)))}
    scoring = G6.measure(evidence, measured.rules).effects
    effects |= {
        "moved": G8B.measure(evidence, measured.rules)["moved"].estimate,
        "learnt": G4.measure(evidence, measured.rules)["fall"].estimate,
        "unscorable": max(share.estimate for share in scoring.values()),
    }
    return effects, spreads


def _two_way(values: pd.Series) -> Array:
    """One number a run (condition, seed): seeds x the plan's own conditions, [seeds, 3]."""
    wide = values.unstack("condition")[CORE].dropna()  # noqa: PD010 - a series has no pivot_table
    table: Array = wide.to_numpy(dtype=np.float64)
    return table


def _of_alignment(evidence: Evidence) -> Values:
    """Alignment in the first third of training: seeds x conditions, less what a run's own examples add."""
    early = _two_way(in_window(evidence))
    rows = evidence.training
    rows = rows[rows["layer"].isin(evidence.band) & (rows["position"] == evidence.primary_position)]
    rows = rows[rows["condition"].isin(CORE) & within(evidence, rows["step"], WINDOWS[0])]
    met = rows.pivot_table(index=["seed", "step", "example"], columns="condition", values="alignment", observed=True)
    met = met[CORE].dropna()  # the same examples under every condition
    step = float(np.mean([interaction_square(one.to_numpy()) for _, one in met.groupby("seed")]))
    examples = len(met) / len(early)
    residual = interaction_square(early)
    between = float(early.mean(axis=1).var(ddof=1)) - residual / len(CORE)
    return {"step": root(step), "run": root(residual - step / examples), "seed": root(between)}


def _of_drift(measured: Measured, spreads: Values) -> tuple[Values, Values]:
    """Drift of the expected score as a share of neutral's, over prompts, runs and questions.

    What a prompt removes is regressed, within families, on what it takes off alignment at equal elicitation; of the
    rest, the harmless prompts' mean is `conditional`, and what inoculating ones remove beyond it `elicits`.
    """
    evidence = measured.evidence
    wide = drift_by_question(evidence, EXPECTED)
    scale = float(wide[NEUTRAL].to_numpy().mean())
    if not scale > 0:
        raise ValueError(f"neutral runs drift by {scale:.3g}: shares of it say nothing")
    left = wide.mean() / scale
    noise = interaction_square(wide[NEUTRAL].to_numpy(dtype=np.float64))  # questions x seeds of one prompt
    chance = noise / len(wide) / scale**2
    by_prompt = left.groupby(level="condition", observed=True).mean()
    members = [[name for name in names if name in by_prompt] for names in measured.members.values()]
    gaps, removed, elicited = (
        [values[names].to_numpy(dtype=np.float64) for names in members]
        for values in (measured.gap, 1 - by_prompt, measured.elicitation)
    )
    follows = pooled_slope(removed, gaps, elicited, measured.chance)
    rest = [own - follows * gap for own, gap in zip(removed, gaps, strict=True)]
    conditional = float(rest[0].mean())
    elicits = float(rest[1].mean() - rest[0].mean()) / float(elicited[1].mean() - elicited[0].mean())
    beyond = [one - elicits * level for one, level in zip(rest, elicited, strict=True)]
    templates = _by_template(measured, noise)
    by_question = templates["drift_prompt"] ** 2 / measured.met * float(np.mean(by_prompt.to_numpy() ** 2))
    error = chance + follows**2 * measured.chance + by_question
    runs = _two_way(left)
    residual = interaction_square(runs)
    run = max(0.0, residual - (follows * spreads["run"]) ** 2 - chance)
    between = float(runs.mean(axis=1).var(ddof=1)) - residual / len(CORE) - (follows * spreads["seed"]) ** 2
    effects = {
        "drift": scale,
        "nats": float(drift_by_question(evidence, DECISION)[NEUTRAL].to_numpy().mean()),
        "conditional": conditional,
        "follows": follows,
        "elicits": elicits,
        "disagree": _disagreement(evidence),
    }
    return effects, {
        "prompt_drift": root(pooled(beyond, slopes=2) - run - error),
        "run_drift": root(run),
        "seed_drift": root(between),
        "response": root(SAMPLES * noise),
        **templates,
    }


def _disagreement(evidence: Evidence) -> float:
    """By how much of it inoculation removes less by decision log-odds than by the expected score."""
    left = []
    for measure in (EXPECTED, DECISION):
        means = drift_families(evidence, measure).means
        left.append(float(means[INOCULATING].mean() / means[NEUTRAL].mean()))
    return (left[1] - left[0]) / (1 - left[0]) if left[0] < 1 else 0.0


def _by_template(measured: Measured, noise: float) -> Values:
    """How drift differs between templates, as a share of its mean: for all runs, for a family, for one prompt.

    By neutral and harmless runs, whose drift is far enough from zero to be divided by; `noise` is the variance of one
    question's mean score in one run.
    """
    evidence = measured.evidence
    wide = drift_by_question(evidence, EXPECTED)
    groups = question_groups(evidence, "drift", wide.index, EXPECTED)
    prompts = wide.T.groupby(level="condition", observed=True).mean()  # [prompts, questions]
    names = [name for name in measured.members[HARMLESS] if name in prompts.index]
    neutral, harmless = (prompts.loc[each].to_numpy(dtype=np.float64) for each in ([NEUTRAL], names))
    harmless = harmless[harmless.mean(axis=1) > neutral.mean() / 4]
    if len(harmless) < 2:
        return {"drift_template": 0.0, "drift_family": 0.0, "drift_prompt": 0.0}
    shares = [table / table.mean(axis=1, keepdims=True) for table in (neutral, harmless)]
    (first, few), (others, _) = (by_template(table, groups) for table in shares)
    error = few * noise * float(np.mean(1 / harmless.mean(axis=1) ** 2))
    of_neutral = few * noise / wide[NEUTRAL].shape[1] / float(neutral.mean()) ** 2
    count = len(others)
    prompt = max(0.0, interaction_square(others) - error)
    apart = float((first[0] - others.mean(axis=0)).var(ddof=1))
    family = (apart - of_neutral - error / count - prompt * (1 + 1 / count)) / 2
    common = float(np.cov(first[0], others.mean(axis=0))[0, 1])
    return {"drift_template": root(common), "drift_family": root(family), "drift_prompt": root(prompt)}
