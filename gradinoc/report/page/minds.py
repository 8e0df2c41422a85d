"""What would change our mind: conditionalization, dose and causal arm side by side, and what flips each claim."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from gradinoc.claims.evidence.measures import HARMLESS, INOCULATING, PROMPTS_AND_RUNS, question_groups, run_families
from gradinoc.claims.evidence.tables import BASE, DECISION, Evidence
from gradinoc.claims.rules.criteria import Criterion
from gradinoc.claims.rules.finding import Finding, Status, listed
from gradinoc.claims.rules.verdict import Judgement, not_run
from gradinoc.report.numbers import if_measured
from gradinoc.report.page.grid import EFFECT, Column, Grid, blank_row, effect_row, grid
from gradinoc.report.wording import number, status_word
from gradinoc.stats.effect import Effect
from gradinoc.stats.shares.ratios import ratio
from gradinoc.study.prompts import NEUTRAL

NEEDED = {  # claim that was not run -> the arms that it takes
    "C5": "runs under the neutral prompt whose backward pass leaves out the component along the direction (and as many "
    "along other directions that remove as much), runs under inoculation that get it back, and steering during "
    "training as the positive control",
    "C7a": "the optimiser's own steps, and the gradient of the decision log-odds at the checkpoints of every run",
    "C7b": "the same, split at a layer into what goes along the direction and what does not",
}
CAUSES = {  # claim that was run -> effects that bear on cause, and what of them would change our mind
    "C5": {
        "share": "an upper bound below the bar: drift stays without the component; a lower bound above it: it goes",
        "place": "p above 0.05: other directions that hold as much of the gradient do as well",
        "restored.place": "zero: under inoculation the component, given back, brings no drift",
    },
    "C7b": {"share": "an upper bound below the bar: what differs does not run along the direction"},
}
SIDES = (
    Column("what", "what", numeric=False), *EFFECT, Column("reads", "what would change our mind", numeric=False),
)  # fmt: skip
FLIPS = (
    Column("claim", "claim", numeric=False), Column("status", "now", numeric=False),
    Column("rule", "criterion", numeric=False), Column("holds", "met", numeric=False),
    Column("slack", "estimate's way to the bar"), Column("unit", "in", numeric=False),
)  # fmt: skip


@dataclass(frozen=True)
class Mind:
    """The page: what stands side by side, and how far each claim is from another status."""

    sides: Grid
    flips: Grid
    sentences: tuple[str, ...]
    not_run: tuple[str, ...]


def mind(judgement: Judgement, evidence: Evidence) -> Mind:
    """The page of a study that was judged."""
    about = "Each with its interval and what its n counts. A share is of the drift of neutral runs."
    sides = grid("Conditionalization, dose and cause, side by side", SIDES, [*_sides(judgement, evidence)], about)
    about = (
        "How far an estimate may move towards the other side of its bar before the criterion turns, spread and all "
        "else as they are; negative: how far it has to move to be met. In the effect's own units, or of p where the "
        "rule is about p."
    )
    findings = (*judgement.claims, *judgement.gates)
    rows = [row for finding in findings for row in _criteria(finding)]
    sentences = tuple(map(what_flips, judgement.claims))
    return Mind(sides, grid("How far from flipping", FLIPS, rows, about), sentences, tuple(_open(judgement)))


def _sides(judgement: Judgement, evidence: Evidence) -> Iterator[dict[str, Any]]:
    specific, drift = judgement["C6"], judgement["G5"]
    told = {
        "share": "an upper bound below the bar: harmless prompts do it as well (ANY PROMPT)",
        "removed": "an interval that reaches zero: inoculation removes nothing, at this dose",
        "rephrased": "zero or below: a fixed wording was learned as a trigger",
        "conditional.harmless": "far above zero: what harmless prompts keep from neutral is learned under themselves",
        "conditional.inoculation": "far above zero: so it is of inoculation",
    }
    yield from _rows("conditionalization", specific, told)
    room = (
        "near zero: harmless runs are at the floor, and inoculation can do no better; near one: they drift as neutral "
        "ones do"
    )
    yield from _rows("dose", specific if specific.get("room") else drift, {"room": room})
    yield from _rows("dose", drift, {"drift": "below the bar: there is nothing to explain"})
    for effect in dose_window(evidence):
        yield effect_row(effect, what="dose", reads="another order of the families at another dose")
    for claim in judgement.claims:
        yield from _rows(f"cause ({claim.key})", claim, CAUSES.get(claim.key, {}))
    for key, words in not_run(judgement.claims).items():
        yield blank_row(f"{words}: not run", what=f"cause ({key})", reads=f"it takes {NEEDED[key]}")


def _rows(what: str, finding: Finding, told: dict[str, str]) -> Iterator[dict[str, Any]]:
    for key, reads in told.items():
        effect = finding.get(key)
        if effect is not None:
            yield effect_row(effect, what=what, reads=reads)


def dose_window(evidence: Evidence) -> list[Effect]:
    """Share of neutral runs' drift that harmless and inoculating prompts leave, at each kept step of training.

    Of decision log-odds under the neutral prompt, prompts as the unit (see `gradinoc.stats.shares.ratios.ratio`); none
    where it was not measured.
    """
    rows, found = evidence.drift, []
    base = rows[(rows["condition"] == BASE) & (rows["measure"] == DECISION)].set_index("example")["value"]
    for step in sorted(evidence.checkpoints["step"].unique()):
        kept = evidence.checkpoints[evidence.checkpoints["step"] == step]
        wide = kept.set_index(["example", "condition", "seed"])["log_odds"].unstack(["condition", "seed"])
        wide = wide.sub(base.reindex(wide.index), axis=0)
        groups = if_measured(question_groups, evidence, "checkpoints", wide.index)
        families = if_measured(run_families, evidence, wide, groups)
        for family in (HARMLESS, INOCULATING) if families is not None else ():
            name = f"share of neutral drift left after step {step}, {family} prompts, log-odds"
            share = if_measured(ratio, families, {family: 1.0}, {NEUTRAL: 1.0}, name)
            found += [] if share is None else [replace(share, key=f"dose.{step}.{family}", unit=PROMPTS_AND_RUNS)]
    return found


def _criteria(finding: Finding) -> Iterator[dict[str, Any]]:
    for criterion in finding.criteria:
        yield {
            "claim": finding.key, "status": status_word(finding), "rule": criterion.rule,
            "holds": "yes" if criterion.holds else "no", "slack": criterion.slack, "unit": unit_of(criterion),
        }  # fmt: skip


def unit_of(criterion: Criterion) -> str:
    """What a criterion's slack is in."""
    return "p" if criterion.rule.startswith("p of ") else "units of the effect"


def what_flips(finding: Finding) -> str:
    """In a sentence what a claim's status would need to be another."""
    met = [criterion for criterion in finding.criteria if criterion.holds and math.isfinite(criterion.slack)]
    short = [criterion for criterion in finding.criteria if not criterion.holds]
    if finding.failed_gates:
        gates = listed(finding.failed_gates)
        ways = "; ".join(f"{each.rule}{_by(each)}" for each in short)
        own = f" Of its own criteria these are not met: {ways}." if ways else " Its own criteria are all met."
        own = own if finding.criteria else f" {finding.statement}"
        return f"{finding.key} says nothing while {gates} {'fail' if len(finding.failed_gates) > 1 else 'fails'}.{own}"
    if finding.status is Status.SUPPORTED and met:
        ways = "; ".join(f"{each.rule}, with {number(each.slack)} to spare" for each in met)
        return f"{finding.key} is supported, and any of these could unmake it: {ways}."
    ways = "; ".join(f"{each.rule}{_by(each)}" for each in short)
    return f"{finding.key} is {finding.status}; not met: {ways or 'nothing that was measured'}."


def _by(criterion: Criterion) -> str:
    return f" (short by {number(abs(criterion.slack))})" if math.isfinite(criterion.slack) else ""


def _open(judgement: Judgement) -> Iterator[str]:
    for key, words in not_run(judgement.claims).items():
        yield f"{key} was not run: whether {words} is open. It takes {NEEDED[key]}."
