"""What a study shows of prompts and questions on the frozen model, in the terms of simulated studies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from gradinoc.claims.c2 import null_by_prompt
from gradinoc.claims.c4 import elicitation
from gradinoc.claims.evidence.measures import (
    HARMLESS,
    INOCULATING,
    per_example,
    per_question,
    question_groups,
    unrelated_families,
)
from gradinoc.claims.evidence.tables import PROMOTE, SUPPRESS, TRAIT_DRAW, Evidence
from gradinoc.claims.gates.direction import G1, G2, G8A
from gradinoc.power.scenarios import MIDDLE
from gradinoc.power.variances.moments import interaction, interaction_square, nested, pooled, root, templates_behind
from gradinoc.stats.clustered import Groups
from gradinoc.stats.effect import Array
from gradinoc.stats.places import slope_on_strength
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules
from gradinoc.study.settings import NULLS

FAMILIES = {HARMLESS: Family.HARMLESS, INOCULATING: Family.INOCULATION}
Values = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """The prompts of a study on the frozen model.

    Attributes:
        evidence: the study's tables.
        rules: its bars.
    """

    evidence: Evidence
    rules: Rules

    @cached_property
    def members(self) -> dict[str, list[str]]:
        """Family -> its prompts, harmless and inoculating.

        Raises:
            ValueError: fewer than two of a family.
        """
        among = list(per_example(self.evidence).columns)
        found = {name: list(self.evidence.family(family, among)) for name, family in FAMILIES.items()}
        if min(map(len, found.values())) < 2:
            counts = {name: len(each) for name, each in found.items()}
            raise ValueError(f"a family of one prompt says nothing of how prompts differ; measured are {counts}")
        return found

    @cached_property
    def elicitation(self) -> pd.Series:
        """By prompt: how far it elicits the trait beyond the mean harmless prompt, as a share of full inoculation.

        What inoculating prompts but the plan's own show on average is `MIDDLE` of full inoculation.
        """
        nats = pd.Series({name: effect.estimate for name, effect in elicitation(self.evidence).items()})
        nats = nats - nats[self.members[HARMLESS]].mean()
        return nats / self.nats

    @cached_property
    def nats(self) -> float:
        """Decision log-odds that full inoculation elicits, nats."""
        nats = pd.Series({name: effect.estimate for name, effect in elicitation(self.evidence).items()})
        graded = [name for name in self.members[INOCULATING] if name != INOCULATION]
        return float(nats[graded].mean() - nats[self.members[HARMLESS]].mean()) / MIDDLE

    def families(self, values: pd.Series) -> list[Array]:
        """One number a prompt, by family: [prompts] each."""
        return [values[names].to_numpy(dtype=np.float64) for names in self.members.values()]

    def difference(self, values: pd.Series) -> float:
        """The mean of inoculating prompts less that of harmless ones."""
        harmless, inoculating = self.families(values)
        return float(inoculating.mean() - harmless.mean())

    @cached_property
    def slope(self) -> float:
        """Alignment that goes with a nat/token of loss within examples, over all prompts."""
        spread = interaction(self.table("loss"))
        squares = float(np.sum(spread**2))
        return float(np.sum(interaction(self.table("alignment")) * spread)) / squares if squares > 0 else 0.0

    @cached_property
    def groups(self) -> Groups:
        """The template of each example that was measured under every prompt."""
        return question_groups(self.evidence, "alignments", per_example(self.evidence).index)

    @property
    def met(self) -> int:
        """How many templates these examples come from."""
        return len(self.table("loss")) if self.groups is None else int(self.groups.max()) + 1

    @cached_property
    def within(self) -> tuple[float, float]:
        """Variances of one prompt's alignment at equal loss: of a template, and of an example within it; cosines.

        Of families, means of rows and columns taken out.
        """
        rest = per_example(self.evidence) - self.slope * per_example(self.evidence, "loss")
        tables = [interaction(rest[names].to_numpy(dtype=np.float64).T) for names in self.members.values()]
        left = sum(len(table) - 1 for table in tables) / sum(map(len, tables))
        parts = nested(np.vstack(tables), self.groups)
        return parts.between / left, parts.within / left

    @property
    def chance(self) -> float:
        """The variance that templates and examples add to a prompt's mean alignment."""
        template, own = self.within
        return max(0.0, own / len(self.table("loss")) + template / self.met)

    def table(self, column: str) -> Array:
        """`column` of the examples that were measured under every prompt: [examples, prompts]."""
        values: Array = per_example(self.evidence, column).to_numpy(dtype=np.float64)
        return values

    @cached_property
    def gap(self) -> pd.Series:
        """What each prompt takes off neutral's alignment, cosine, band mean."""
        means = per_example(self.evidence).mean()
        return means[NEUTRAL] - means

    @cached_property
    def loss(self) -> pd.Series:
        """What each prompt takes off neutral's loss, nats/token."""
        means = per_example(self.evidence, "loss").mean()
        return means[NEUTRAL] - means

    @property
    def own(self) -> pd.Series:
        """What each prompt takes off alignment at equal loss and elicitation."""
        return self.gap - self.slope * self.loss - self.fall * self.elicitation

    @property
    def fall(self) -> float:
        """What full inoculation takes off alignment at equal loss."""
        left = self.difference(self.gap) - self.slope * self.difference(self.loss)
        return left / self.difference(self.elicitation)


def of_prompts(measured: Measured) -> tuple[Values, Values]:
    """Effects and spreads of losses, alignments and elicitation: fields of `Scenario` and of `Noise`.

    Within examples (means of rows and columns taken out) alignment is regressed on loss. What is left is split by
    template within families, and between the families.
    """
    evidence, members, groups = measured.evidence, measured.members, measured.groups
    alignment, loss = per_example(evidence), per_example(evidence, "loss")
    rest = alignment - measured.slope * loss
    template, own = measured.within
    harmless, inoculating = (rest[names].mean(axis=1).to_numpy() for names in members.values())
    apart = nested((harmless - inoculating)[None], groups)
    few = sum(1 / len(names) for names in members.values())
    examples, prompts = alignment.shape
    of_loss = interaction_square(loss.to_numpy())
    levels = loss.mean(axis=1).to_numpy()
    difficulty = max(0.0, float(levels.var(ddof=1)) - of_loss / prompts)
    shared = float(np.cov(alignment.mean(axis=1), levels)[0, 1]) - measured.slope * float(levels.var(ddof=1))
    between = shared / difficulty if difficulty > 0 else 0.0
    example = float(rest.mean(axis=1).var(ddof=1)) - between**2 * difficulty - (own + template) / prompts
    effects = {
        "alignment": float(alignment[NEUTRAL].mean()),
        "fall": measured.fall,
        "any_prompt": float(measured.gap[members[HARMLESS]].mean()),
        "slope": measured.slope,
        "loss": measured.difference(measured.loss) / measured.difference(measured.elicitation),
        "between": between,
        "core": float(measured.elicitation[INOCULATION]),
        "templates": templates_behind(examples, measured.met),
    }
    odds = _of_questions(evidence)
    by_loss = measured.loss - effects["loss"] * measured.elicitation
    spreads = {
        "prompt_alignment": root(pooled(measured.families(measured.own)) - measured.chance),
        "prompt_loss": root(pooled(measured.families(by_loss)) - of_loss / examples),
        "prompt_elicitation": root(_elicitation_variance(measured, odds["odds"])),
        "difficulty": root(difficulty),
        "loss": root(of_loss),
        "example": root(example),
        "alignment": root(own),
        "layer": 0.0,
        "template": root(template),
        "family_template": root((apart.between - few * template) / 2),
        **odds,
    }
    return effects, spreads


def _elicitation_variance(measured: Measured, odds: float) -> float:
    """How harmless prompts differ in elicitation, beyond what the questions add."""
    questions = len(per_question(measured.evidence, "elicitation", "log_odds"))
    harmless, _ = measured.families(measured.elicitation)
    return float(harmless.var(ddof=1)) - (odds / measured.nats) ** 2 / questions


def _of_questions(evidence: Evidence) -> Values:
    """Spreads of one question under one prompt: decision log-odds (nats), a sampled response's score."""
    tables = {"odds": ("elicitation", "log_odds"), "behaviour": ("behaviour", "score")}
    return {
        name: root(interaction_square(per_question(evidence, *place).to_numpy(dtype=np.float64)))
        for name, place in tables.items()
    }


def of_elicitation(measured: Measured) -> Values:
    """What inoculating and promoting prompts elicit in behaviour, fields of `Scenario`."""
    evidence = measured.evidence
    odds, scores = (
        per_question(evidence, *place).mean() for place in (("elicitation", "log_odds"), ("behaviour", "score"))
    )
    harmless = [name for name in measured.members[HARMLESS] if name in scores]
    core = float(measured.elicitation[INOCULATION])
    return {
        "odds": measured.nats,
        "behaviour": float(scores[INOCULATION] - scores[harmless].mean()) / core if core else 0.0,
        "promoted": float(odds[PROMOTE] - odds[SUPPRESS]) / measured.nats,
    }


def of_directions(measured: Measured) -> tuple[Values, Values]:
    """T of directions without the trait, and what steering along them does: fields of `Scenario` and of `Noise`.

    Random ones have a mean of zero by their making: root mean squares. `unspecific` is the share of the trait's T that
    the nearest unrelated trait shows, `unrelated` the root mean square of the others.
    """
    evidence, rules = measured.evidence, measured.rules
    sizes, apart = {}, []
    for null in NULLS:
        table, harmless = null_by_prompt(evidence, null)
        contrast = table[:, harmless].mean(axis=1) - table[:, ~harmless].mean(axis=1)
        prompt = float(table[:, harmless].var(axis=1, ddof=1).mean())
        apart.append(prompt)
        few = 1 / int(harmless.sum()) + 1 / int((~harmless).sum())
        sizes[null] = root(float(np.mean(contrast**2)) - few * prompt)
    means = [families.means for families in unrelated_families(evidence).values()]
    others = sorted((float(each[HARMLESS].mean() - each[INOCULATING].mean()) for each in means), key=abs, reverse=True)
    effect = measured.difference(measured.gap)
    steering = G8A.measure(evidence, rules, secondary=False)
    effects = {
        "unspecific": abs(others[0]) / effect if effect > 0 else 0.0,
        "auc": G1.measure(evidence, rules)["auc"].estimate,
        "split_half": G2.measure(evidence, rules)["split_half"].estimate,
        "steering": steering["slope"].estimate,
        "rise": steering["loss"].estimate,
    }
    spreads = {
        "nulls": sizes,
        "null_prompt": root(float(np.mean(apart))),
        "unrelated": root(float(np.mean(np.square(others[1:])))) if others[1:] else 0.0,
        "steering": root(float(np.mean(np.square(_steered(evidence.steering))))),
    }
    return effects, spreads


def _steered(steering: pd.DataFrame) -> Array:
    """The slope of decision log-odds on strength along each direction without the trait, nats per unit."""
    table = steering.pivot_table(index=["draw", "strength"], columns="example", values="log_odds")
    strengths = np.asarray(table.index.unique("strength"), dtype=np.float64)
    draws = [draw for draw in table.index.unique("draw") if draw != TRAIT_DRAW]
    return np.array([slope_on_strength(table.loc[draw], strengths, None, "slope").estimate for draw in draws])
