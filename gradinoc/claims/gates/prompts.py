"""Gates on the prompts: inoculation elicits the trait in loss (G3) and in behaviour (G7)."""

from __future__ import annotations

import pandas as pd

from gradinoc.claims.evidence.measures import HARMLESS, INOCULATING, by_family, per_question, question_groups
from gradinoc.claims.evidence.tables import PROMOTE, SUPPRESS, Evidence
from gradinoc.claims.evidence.wide import family_of
from gradinoc.claims.rules.criteria import Criterion, above, above_zero
from gradinoc.claims.rules.finding import Claim, Measured, Outcome, held
from gradinoc.stats.clustered import grouped_pairs
from gradinoc.stats.effect import Effect
from gradinoc.stats.families import contrast
from gradinoc.study.prompts import INOCULATION
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules


def _loss_gap(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """Loss of the answer with the trait less that of the ordinary one: harmless prompts less inoculating ones."""
    gap = per_question(evidence, "losses", "trait_loss") - per_question(evidence, "losses", "ordinary_loss")
    families = by_family(evidence, gap, question_groups(evidence, "losses", gap.index))
    name = "loss gap (trait - ordinary answer), harmless - inoculation"
    effect = contrast(families, {HARMLESS: 1.0, INOCULATING: -1.0}, name, 1 - rules.alpha)
    statement = (
        f"Inoculating prompts lower the loss of answers with the trait, beside that of ordinary ones, by {effect} "
        "nats/token more than harmless ones do."
    )
    return Measured({"loss": effect}, statement)


def _elicits_in_loss(found: Measured, rules: Rules) -> Outcome:
    return held("an interval of the difference above zero, prompts as unit", above_zero(found["loss"]))


def _behaviour(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """Expected score and decision log-odds of the base model: promote - suppress, and inoculation - harmless mean."""
    effects: dict[str, Effect] = {}
    for key, table, column, name in (
        ("score", "behaviour", "score", f"expected {evidence.trait.score_name}"),
        ("log_odds", "elicitation", "log_odds", "decision log-odds"),
    ):
        wide = per_question(evidence, table, column)
        groups = question_groups(evidence, table, wide.index)
        harmless = _harmless(evidence, wide)
        pairs = {"promote": (wide[PROMOTE], wide[SUPPRESS]), "inoculation": (wide[INOCULATION], harmless)}
        words = {"promote": "promote - suppress", "inoculation": "inoculation - harmless mean"}
        for pair, (first, second) in pairs.items():
            effects[f"{key}.{pair}"] = grouped_pairs(first, second, groups, f"{name}, {words[pair]}", 1 - rules.alpha)
    statement = "; ".join(f"{effect.name}: {effect}" for effect in effects.values())
    return Measured(effects, f"Before training: {statement}.")


def _harmless(evidence: Evidence, wide: pd.DataFrame) -> pd.Series:
    """Mean over the harmless prompts, by question."""
    return wide[family_of(evidence, Family.HARMLESS, wide.columns)].mean(axis=1)


def _elicits_in_behaviour(found: Measured, rules: Rules) -> Outcome:
    """By the score, or by the log-odds where the model is too weak to show it in the score."""
    bars = {"score": rules.elicited, "log_odds": rules.elicited_nats}
    ways: dict[str, list[Criterion]] = {
        way: [above(found[f"{way}.{pair}"], bar) for pair in ("promote", "inoculation")] for way, bar in bars.items()
    }
    rule = (
        f"both differences of the expected score above {rules.elicited:g}, or both of the decision log-odds above "
        f"{rules.elicited_nats:g} nats"
    )
    chosen = ways["score"] if all(ways["score"]) else ways["log_odds"]
    return held(rule, *chosen)


G3 = Claim("G3", "Inoculating prompts elicit the trait in loss.", _loss_gap, _elicits_in_loss)
G7 = Claim("G7", "Prompts elicit the trait in behaviour.", _behaviour, _elicits_in_behaviour)
