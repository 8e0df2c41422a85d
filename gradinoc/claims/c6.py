"""C6: it is inoculation that keeps the trait from spreading, and not any prompt.

M[a, e] is the drift of runs trained under a prompt a and evaluated under e. What is inoculation's own is the share of
the neutral drift by which inoculating prompts leave less at the neutral prompt than harmless ones do.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from gradinoc.claims.evidence.measures import (
    BY,
    DIVERGED,
    HARMLESS,
    INOCULATING,
    NOT_SCORED,
    PROMPTS_AND_RUNS,
    deciding_measure,
    diverged_runs,
    drift_by_question,
    drift_families,
    elsewhere,
    matrix_by_question,
    nothing_scored,
    question_groups,
    run_families,
)
from gradinoc.claims.evidence.tables import DECISION, REPHRASED, Evidence
from gradinoc.claims.evidence.wide import family_of, over_seeds
from gradinoc.claims.gates import OF_DRIFT
from gradinoc.claims.rules.criteria import Criterion, above, interval_below, positive
from gradinoc.claims.rules.finding import Claim, Finding, Measured, Outcome, refuted, supported, undecided
from gradinoc.stats.clustered import grouped_pairs
from gradinoc.stats.effect import Effect, bare
from gradinoc.stats.families import Families, permuted_labels
from gradinoc.stats.shares.ratios import ratio, share_removed
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules

NUMERATOR, DENOMINATOR = {HARMLESS: 1.0, INOCULATING: -1.0}, {NEUTRAL: 1.0}
SEED_OF_LABELS = 0


def measure(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """Inoculation's own share, by fixed prompts and by the rephrased pair; secondary: by other measures, transfer."""
    if diverged_runs(evidence):
        return Measured({}, DIVERGED)
    if nothing_scored(evidence):
        return Measured({}, NOT_SCORED)
    measured = deciding_measure(evidence, rules.ceiling)
    families, by = drift_families(evidence, measured), BY[measured]
    share = ratio(
        families, NUMERATOR, DENOMINATOR, f"share of neutral drift that is inoculation's own{by}", rules.share
    )
    removed = share_removed(
        families, INOCULATING, NEUTRAL, f"share of neutral drift that inoculation removes{by}", rules.share
    )
    room = ratio(families, {HARMLESS: 1.0}, DENOMINATOR, f"harmless drift, share of neutral's{by}", rules.room)
    share, removed, room = (replace(each, unit=PROMPTS_AND_RUNS) for each in (share, removed, room))
    effects = {"share": share, "removed": removed, "room": room, "rephrased": _of_rephrased(evidence, rules, measured)}
    if secondary:
        effects |= _beside(evidence, rules, measured)
    statement = (
        f"Inoculating prompts remove {removed} of the neutral drift, and {share} beyond what harmless prompts remove; "
        f"by the rephrased pair it is {effects['rephrased']}."
    )
    return Measured(effects, statement)


def _of_rephrased(evidence: Evidence, rules: Rules, measured: str) -> Effect:
    """The same share by the two conditions whose wording is drawn anew for every example; questions are the unit."""
    name = f"share of neutral drift that is inoculation's own, rephrased pair{BY[measured]}"
    rows = evidence.prompts[(evidence.prompts["kind"] == REPHRASED) & evidence.prompts["trained"]]
    pair = rows.set_index("family")["condition"]
    wide = drift_by_question(evidence, measured)
    if not {Family.HARMLESS, Family.INOCULATION} <= set(pair.index):
        return bare(name, np.nan, 0, "questions", "not run: the study trains no rephrased pair")
    means, groups = over_seeds(wide), question_groups(evidence, "drift", wide.index, measured)
    scale = float(means[NEUTRAL].mean())
    if not scale:
        return bare(name, np.nan, len(wide), "questions", "undecidable: neutral runs do not drift")
    first, second = (means[pair[family]] / scale for family in (Family.HARMLESS, Family.INOCULATION))
    return replace(grouped_pairs(first, second, groups, name, 1 - rules.alpha), unit="questions")


def _beside(evidence: Evidence, rules: Rules, measured: str) -> dict[str, Effect]:
    """Labels permuted; the share by decision log-odds, at neutral and at prompts nobody was trained under; transfer."""
    means = drift_families(evidence, measured).means
    rng = np.random.default_rng(SEED_OF_LABELS)
    effects = {
        "labels": permuted_labels(
            means[HARMLESS], means[INOCULATING], rng, "drift, harmless - inoculating, labels permuted"
        ),
        "share.log_odds": ratio(
            drift_families(evidence, DECISION),
            NUMERATOR,
            DENOMINATOR,
            "the same share by decision log-odds",
            rules.share,
        ),
    }
    away = elsewhere(evidence)
    groups = question_groups(evidence, "matrix", away.index)
    name = "the same share by decision log-odds, at prompts nobody was trained under"
    effects["share.elsewhere"] = ratio(run_families(evidence, away, groups), NUMERATOR, DENOMINATOR, name, rules.share)
    name = "the same share, hints taken for inoculation"
    effects["share.hints"] = ratio(_with_hints(evidence, measured), NUMERATOR, DENOMINATOR, name, rules.share)
    for key in ("share.log_odds", "share.elsewhere", "share.hints"):
        effects[key] = replace(effects[key], unit=PROMPTS_AND_RUNS)
    own = own_prompt(evidence)
    for family in (Family.HARMLESS, Family.INOCULATION):
        members = evidence.family(family, list(own.columns))
        first, second = (
            own[list(members)].mean(axis=1),
            away.T.groupby(level="condition").mean().T[list(members)].mean(axis=1),
        )
        name = f"own-prompt drift less drift elsewhere, {family} prompts"
        effects[f"conditional.{family}"] = replace(
            grouped_pairs(first, second, groups, name, 1 - rules.alpha), unit="questions"
        )
        effects[f"own.{family}"] = bare(
            f"own-prompt drift, {family} prompts", float(first.mean()), len(members), "prompts", "mean, nats"
        )
    return effects


def _with_hints(evidence: Evidence, measured: str) -> Families:
    """Drift by family, hints among the inoculating prompts."""
    families = drift_families(evidence, measured)
    by_prompt = over_seeds(drift_by_question(evidence, measured))
    hints = [by_prompt[hint] for hint in family_of(evidence, Family.HINT, by_prompt)]
    tables = families.values  # noqa: PD011 - no frame
    return replace(families, values={**tables, INOCULATING: np.vstack([tables[INOCULATING], *hints])})


def own_prompt(evidence: Evidence) -> pd.DataFrame:
    """Drift of the decision log-odds under a run's own training prompt: index example, a column a prompt."""
    evaluated = set(evidence.matrix["evaluation"])
    names = [name for name in evidence.trained if name in evaluated]
    return pd.DataFrame({name: matrix_by_question(evidence, name)[name].mean(axis=1) for name in names})


def decide(found: Measured, rules: Rules) -> Outcome:
    """Supported if the share's lower bound reaches the bar and the rephrased pair's is above 0; refuted from below.

    Refuted only where there was room: runs on the floor say nothing of who keeps them there.
    """
    if not found.effects:
        return undecided(found.statement)
    share, pair = found["share"], found["rephrased"]
    own, less, kept = above(share, rules.share), interval_below(share, rules.share), positive(pair)
    room = above(found["room"], rules.room)
    criteria = (own, less, kept, room)
    if not np.isfinite(share.low):
        return undecided(f"Undecided because the share has no interval: {share.method}.", *criteria)
    if own and kept:
        return supported(
            f"The share's interval lies above {rules.share:g}, and the rephrased pair's is above zero.", *criteria
        )
    if less and room:
        return refuted(
            f"The share's interval lies below {rules.share:g}: at the doses tried less than that is inoculation's own.",
            *criteria,
        )
    if less:
        why = (
            f"harmless prompts are not shown to leave {100 * rules.room:g} % of the neutral drift: at this dose there "
            "is no room for inoculation to do better"
        )
    elif own:
        why = f"the rephrased pair does not show it ({pair.method})"
    else:
        why = f"the share's interval is not above {rules.share:g}"
    return undecided(f"Undecided because {why}.", *criteria)


def any_prompt(finding: Finding, rules: Rules) -> tuple[Criterion, ...]:
    """That inoculation and harmless prompts both remove drift: C6 refuted alone does not say that any prompt does it.

    Where nothing removes any its share is zero as well, and where inoculation removes little all of it may be its own.
    """
    return above(finding["removed"], rules.share), interval_below(finding["room"], 1 - rules.share)


C6 = Claim(
    "C6",
    "It is inoculation, not any prompt.",
    measure,
    decide,
    OF_DRIFT,
    "The share is the drift of harmless-trained runs minus that of inoculated ones, over neutral drift, evaluated "
    "under the neutral prompt; prompts are the unit. Supported if its {level} interval lies above {share} and the "
    "share of the rephrased pair is above zero. Refuted if the interval lies below {share} and harmless prompts are "
    "shown to leave more than {room} of the neutral drift. Otherwise undecided.",
    headline="share",
)
