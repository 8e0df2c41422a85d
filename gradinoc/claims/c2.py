"""C2: directions without the trait do not show it.

T(u) is the mean alignment of harmless prompts less that of inoculating ones along a direction u; v is the trait's.
Three kinds of direction are drawn: *isotropic*; *covariance*, with the residual stream's covariance; *instruction*,
contrasts of unrelated system prompts, the class that v belongs to. Those of unrelated traits are compared one by one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from gradinoc.claims.c1 import family_contrast
from gradinoc.claims.evidence.measures import HARMLESS, INOCULATING, alignment_families, null_table, unrelated_families
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.evidence.wide import family_of
from gradinoc.claims.gates import OF_DIRECTION
from gradinoc.claims.rules.criteria import Criterion, p_at_most, positive
from gradinoc.claims.rules.finding import Claim, Measured, Outcome, in_words, supported, undecided
from gradinoc.stats.effect import Array
from gradinoc.stats.families import contrast
from gradinoc.stats.places import leads, place_among
from gradinoc.stats.reach import smallest_rank_p
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules
from gradinoc.study.settings import NULLS

DIFFERENCE = {HARMLESS: 1.0, INOCULATING: -1.0}


def measure(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """T(v)'s place among the T(u) of each null, its own error added, and its lead over unrelated traits.

    Raises:
        ValueError: a kind of null was not measured.
    """
    kinds = set(evidence.nulls["null"])
    if not kinds >= set(NULLS):
        raise ValueError(f"Evidence table 'nulls': expected the kinds {tuple(NULLS)}, received {sorted(kinds)}")
    observed = family_contrast(evidence, rules)
    if not np.isfinite(observed.standard_error):
        return Measured({}, f"Not computed, because T(v) has no interval: {observed.method}.")
    effects, fewest = {}, 0
    for null in NULLS:
        table, first = null_by_prompt(evidence, null)
        effects[f"null.{null}"] = replace(place_among(observed, table, first), name=f"T(v) among {NULLS[null].label}")
        fewest = min(fewest or len(table), len(table))
    others = unrelated_families(evidence)
    lead = leads(alignment_families(evidence), others, DIFFERENCE, rules.lead)
    effects["lead"] = replace(lead, name=f"T(v) less {rules.lead:g} times T of unrelated traits, the smallest")
    if secondary:
        for trait, families in others.items():
            name = f"T along {trait}"
            effects[f"unrelated.{trait}"] = contrast(families, DIFFERENCE, name, 1 - rules.alpha)
    places = "; ".join(f"{NULLS[null].label} {in_words(effects[f'null.{null}'].p)}" for null in NULLS)
    statement = (
        f"T(v), harmless minus inoculating prompts, is {observed}. Its p among other directions, its own error "
        f"included: {places} (of {fewest} each or more); {effects['lead'].name}: {effects['lead']}."
    )
    return Measured(effects, statement, {"directions": fewest, "smallest p": smallest_rank_p(fewest)})


def null_by_prompt(evidence: Evidence, null: str) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Mean alignment [directions, prompts] along each of `null`, and which prompts [prompts] are harmless."""
    wide = null_table(evidence, null)
    harmless, inoculating = (
        family_of(evidence, family, wide.columns) for family in (Family.HARMLESS, Family.INOCULATION)
    )
    table = wide[[*harmless, *inoculating]].to_numpy(dtype=np.float64)
    return table, np.arange(table.shape[1]) < len(harmless)


def decide(found: Measured, rules: Rules) -> Outcome:
    """Supported if T(v) stands out among every null and leads every unrelated trait. It is never refuted.

    The mean over directions that are drawn with either sign is zero by symmetry: it is no evidence against.
    """
    if not found.effects:
        return undecided(found.statement)
    shown = positive(replace(found[f"null.{next(iter(NULLS))}"], name="T(v)"))
    tails: list[Criterion] = [p_at_most(found[f"null.{null}"], rules.alpha) for null in NULLS]
    tails.append(p_at_most(found["lead"], rules.alpha))
    floor = found.facts["smallest p"]
    if floor > rules.alpha:
        words = f"{found.facts['directions']} directions reach no p below {floor:.3g}"
        return undecided(f"Undecided because the design cannot decide: {words}.", shown, *tails)
    if shown and all(tails):
        return supported(
            f"Every p is at most {rules.alpha:g}; one p above would have left it undecided.", shown, *tails
        )
    weak = [found[tail.key].name for tail in tails if not tail]
    why = f"p is above {rules.alpha:g} for {'; '.join(weak)}" if shown else "T(v) is not above zero"
    return undecided(f"Undecided because {why}.", shown, *tails)


C2 = Claim(
    "C2",
    "Other directions do not show it.",
    measure,
    decide,
    OF_DIRECTION,
    "T(v) is alignment, harmless minus inoculating prompts, along the trait direction. Supported if T(v) is above "
    "zero, every p of its place among other directions, with its sampling error, is at most {alpha}, and it is at "
    "least {lead} times its size along each unrelated trait (p at most {alpha}). Otherwise undecided.",
)
