"""The best that every test can come to under a design: smallest p, narrowest interval."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, fields

import pandas as pd

from gradinoc.claims.c4 import COVARIATES
from gradinoc.claims.c7.c7c import ORDERS
from gradinoc.power.design.ends import cautions, dead_ends, labels_p
from gradinoc.power.design.sizes import AT_EQUAL_LOSS, BOTH, CLAIMS, REFUTED, SUPPORTED, Design, counts, design_of
from gradinoc.stats.reach import (
    half_width,
    seeds_half_width,
    smallest_prediction_p,
    smallest_rank_p,
    smallest_slope_p,
)
from gradinoc.study.description import Study


@dataclass(frozen=True)
class Reach:
    """One test of a gate or claim: what it decides, what it counts, and the best that it can come to.

    Attributes:
        key: of the gate or claim.
        test: what is done, in words.
        decides: what the claim can become by it.
        n: how many of `unit`.
        unit: what is counted.
        smallest_p: 0 where there is no floor, 1 where there is no test.
        half_width: half of the 95 % interval in standard deviations of the unit's means; NaN where none decides,
            infinite where there is none.
    """

    key: str
    test: str
    decides: str
    n: int
    unit: str
    smallest_p: float
    half_width: float = math.nan


def reaches(design: Design) -> list[Reach]:
    """Every test that decides a claim, or a gate that counts, and the permutations that stand beside intervals."""
    measured, trained, directions = design.prompts.measured, design.prompts.trained, design.directions
    all_measured, all_trained, sloped = sum(measured.values()), sum(trained.values()), design.prompts.sloped
    both, beside, over = " or ".join(BOTH), "beside", "t over harmless and inoculating prompts"
    wide_measured, wide_trained = half_width(dict(measured), 1.0), half_width(dict(trained), 1.0)
    of_seeds, unmeasured = seeds_half_width(design.seeds, 1.0), 1.0 if math.isinf(wide_measured) else 0.0
    at_equal_loss = 1.0 if all_measured < AT_EQUAL_LOSS else unmeasured
    untrained = 1.0 if math.isinf(wide_trained) else 0.0
    one_seed = 1.0 if design.seeds < 2 else 0.0
    untold = untrained if design.attributed else 1.0
    return [
        Reach("G3", over, "gate", all_measured, "prompts", unmeasured, wide_measured),
        Reach("G5", "t over neutral runs", "gate", design.seeds, "runs", one_seed, of_seeds),
        Reach("G8a", "place among steered directions", "gate", directions.steered, "directions",
              smallest_rank_p(directions.steered)),
        Reach("G8c", "t over neutral runs", "gate", design.seeds, "runs", one_seed, of_seeds),
        Reach("G8c", "place among directions in training", "gate", directions.training, "directions",
              smallest_rank_p(directions.training)),
        Reach("C1", "paired t over examples or templates", SUPPORTED, design.examples, "examples", 0.0),
        Reach("C1", over, both, all_measured, "prompts", unmeasured, wide_measured),
        Reach("C1", "labels of prompts permuted", beside, all_measured, "prompts", labels_p(measured)),
        Reach("C2", "place among directions, each kind", SUPPORTED, directions.frozen, "directions",
              smallest_rank_p(directions.frozen)),
        Reach("C2", f"lead over unrelated traits, {over}", SUPPORTED, all_measured, "prompts", unmeasured,
              wide_measured),
        Reach("C3", "family and loss over prompts", both, all_measured, "prompts", at_equal_loss),
        Reach("C3", "intercept over differences of examples", SUPPORTED, design.examples, "examples", 0.0),
        Reach("C4", "slope over prompts, residuals permuted", both, sloped, "prompts",
              smallest_slope_p(sloped, len(COVARIATES))),
        *_of_arms(design),
        Reach("C6", f"ratio, {over}", both, all_trained, "prompts", max(untrained, one_seed), wide_trained),
        Reach("C6", "labels of prompts permuted", beside, all_trained, "prompts", labels_p(trained)),
        Reach("C7a", f"share, {over}", both, all_trained, "prompts", untold, wide_trained),
        Reach("C7b", f"share, {over}", both, all_trained, "prompts", untold, wide_trained),
        Reach("C7b", "place among directions, each kind", SUPPORTED, directions.frozen, "directions",
              smallest_rank_p(directions.frozen)),
        Reach("C7c", "slope over prompts, residuals permuted", both, sloped, "prompts",
              smallest_slope_p(sloped, len(COVARIATES)) if design.attributed else 1.0),
        Reach("C7c", "left-out R2 over prompts, permuted", SUPPORTED, sloped, "prompts",
              smallest_prediction_p(sloped, ORDERS) if design.attributed else 1.0),
    ]  # fmt: skip


def _of_arms(design: Design) -> list[Reach]:
    """Those of C5, where runs have an intervention."""
    arms = design.arms
    if not any(arms):
        return []
    drawn, one = min(arms.drawn, arms.restored_drawn), 1.0 if arms.removed < 2 else 0.0
    return [
        Reach("C5", "ratio, t over runs", " or ".join(BOTH), arms.removed, "runs", one,
              seeds_half_width(arms.removed, 1.0)),
        Reach("C5", "place among matched directions, removed and restored", SUPPORTED, drawn, "directions",
              smallest_rank_p(drawn)),
    ]  # fmt: skip


def floors(design: Design) -> dict[str, float]:
    """Claim that has tests -> the smallest p that all of them can reach: 0 where none has a floor."""
    tests = [reach for reach in reaches(design) if reach.decides != "beside" and reach.key in CLAIMS]
    found: dict[str, list[float]] = {reach.key: [] for reach in tests}
    for reach in tests:
        found[reach.key].append(reach.smallest_p)
    return {claim: max(found[claim]) for claim in CLAIMS if claim in found}


def reach_table(study: Study) -> pd.DataFrame:
    """One row a test, with the columns of `Reach`; for claims what they can become by all of their tests together."""
    design = design_of(study)
    table = pd.DataFrame([astuple(reach) for reach in reaches(design)], columns=[each.name for each in fields(Reach)])
    excluded = {(claim, outcome) for end in dead_ends(design) for claim in end.claims for outcome in end.excluded}
    for outcome in BOTH:
        can = [(key, outcome) not in excluded if key in CLAIMS else None for key in table["key"]]
        table[f"can_be_{outcome}"] = pd.array(can, dtype="boolean")
    table.loc[table["key"] == "C2", f"can_be_{REFUTED}"] = False  # by its rule it never is
    return table


def opening(study: Study) -> list[str]:
    """Lines for the start of a session: how many prompts and seeds, smallest p, what cannot be decided, cautions."""
    design = design_of(study)
    prompts = design.prompts
    size = (
        f"design: {counts(prompts.measured)} prompts measured, {counts(prompts.trained)} trained, "
        f"{design.seeds} seed{'s' * (design.seeds != 1)} of neutral"
    )
    least = ", ".join(f"{claim} {floor(p)}" for claim, p in floors(design).items())
    ends = [f"design: {end}" for end in dead_ends(design)]
    return [f"{size}; smallest p: {least}", *ends, *(f"design: {caution}" for caution in cautions(design))]


def floor(p: float) -> str:
    """A smallest p as tables print it."""
    return "no floor" if p == 0 else "no test" if p == 1 else f"{p:.3g}"
