"""What a design can decide at all, known before anything runs: the smallest p it can reach, and dead ends.

A permutation or a place among random directions counts, so its p has a floor; a t test has none. A claim whose floor is
above `rules.alpha` ends undecided, whatever the data say.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, fields

import pandas as pd
from scipy import stats

from gradinoc.stats.correlation import EXACT_LIMIT, MONTE_CARLO, smallest_equivalence_n
from gradinoc.stats.effect import smallest_permutation_p, smallest_sign_flip_p
from gradinoc.study.description import Study
from gradinoc.study.rules import Rules

CLAIMS = ("C1", "C2", "C3", "C4")
SUPPORTED, REFUTED = "supported", "refuted"


@dataclass(frozen=True)
class Design:
    """What a study's decisions can rest on, and the bars that they have to pass.

    Attributes:
        trained: conditions under which runs are trained.
        seeds: runs of each condition, paired by seed.
        directions: random directions of the kind of which there are fewest.
        examples: examples measured on the frozen model.
        rules: the bars.
    """

    trained: int
    seeds: int
    directions: int
    examples: int
    rules: Rules

    @property
    def runs(self) -> int:
        """Trained runs over all conditions."""
        return self.trained * self.seeds


@dataclass(frozen=True)
class Reach:
    """One test of a claim: what the claim can become by it, what it counts, the smallest p it can reach (0: any)."""

    claim: str
    test: str
    decides: str
    n: int
    unit: str
    smallest_p: float


@dataclass(frozen=True)
class DeadEnd:
    """Something that a claim cannot become under this design, and why."""

    claim: str
    excluded: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        """In a sentence: `C4: the smallest p ... is 1, above 0.05; the claim ends undecided`."""
        both = len(self.excluded) == 2
        return f"{self.claim}: {self.reason}; the claim " + (
            "ends undecided" if both else f"cannot be {self.excluded[0]}"
        )


def design_of(study: Study) -> Design:
    """The design that `study` asks for."""
    return Design(
        trained=len(study.conditions) - len(study.untrained),
        seeds=len(study.seeds),
        directions=min(study.nulls.draws.values()),
        examples=study.data.measure,
        rules=study.rules,
    )


def smallest_p(conditions: int, seeds: int, draws: int) -> dict[str, float]:
    """Claim -> the smallest p that a design can reach: 0 for t tests on examples, more for counts.

    C2 counts `draws` directions, C4 arrangements of `conditions` trained ones within seeds; one seed gives C4 no
    interval of the drift difference at all (1).
    """
    permuted = smallest_stratified_p(conditions, seeds)
    return {"C1": 0.0, "C2": 1 / (1 + draws), "C3": 0.0, "C4": permuted if seeds > 1 else 1.0}


def smallest_stratified_p(conditions: int, seeds: int) -> float:
    """The smallest p of `correlation.stratified_p` with `conditions` runs in each of `seeds` strata.

    One over the arrangements; where these are too many to count all, the random ones that are drawn in their place set
    the floor.
    """
    exact = smallest_permutation_p([conditions] * seeds)
    return exact if math.factorial(conditions) ** seeds <= EXACT_LIMIT else 1 / (1 + MONTE_CARLO)


def floors(design: Design) -> dict[str, float]:
    """`smallest_p` of `design`."""
    return smallest_p(design.trained, design.seeds, design.directions)


def reaches(design: Design) -> list[Reach]:
    """Every test that decides a claim, and the sign flips that its t test over seeds stands in for."""
    p, n, seeds, rules = floors(design), design.examples, design.seeds, design.rules
    both, beside = f"{SUPPORTED}, {REFUTED}", "secondary"
    permuted, interval = smallest_stratified_p(design.trained, seeds), 0.0 if seeds > 1 else 1.0
    flat = math.atanh(rules.correlation_margin) if 0 < rules.correlation_margin < 1 else 0.0
    equivalent = float(stats.norm.sf(flat * math.sqrt(design.runs - 3))) if design.runs > 3 else 1.0
    return [
        Reach("C1", "paired t, df = examples - 1 or templates - 1", both, n, "examples", p["C1"]),
        Reach("C2", "place among random directions, each kind", both, design.directions, "directions", p["C2"]),
        Reach("C2", "lead over unrelated traits, largest of paired t", SUPPORTED, n, "examples", 0.0),
        Reach("C3", "t at equal loss, df = examples - 1 or templates - 1", both, n, "examples", p["C3"]),
        Reach("C4", "r, permutation of conditions within seeds", both, design.runs, "runs", permuted),
        Reach("C4", "drift difference, paired t, df = seeds - 1", both, seeds, "seeds", interval),
        Reach("C4", "r equivalent to zero, Fisher's z", REFUTED, design.runs, "runs", equivalent),
        Reach("C4", "drift difference, sign flips", beside, seeds, "seeds", smallest_sign_flip_p(seeds)),
    ]


def smallest_p_table(study: Study) -> pd.DataFrame:
    """One row a test: claim, test, what it decides, n and its unit, smallest p; and what the claim can become.

    `smallest_p` is 0 where a test can reach any p. `can_be_supported` and `can_be_refuted` are of the claim under the
    study's rules, by all of its tests together.
    """
    design = design_of(study)
    table = pd.DataFrame([astuple(reach) for reach in reaches(design)], columns=[each.name for each in fields(Reach)])
    excluded = {(end.claim, outcome) for end in dead_ends(design) for outcome in end.excluded}
    for outcome in (SUPPORTED, REFUTED):
        table[f"can_be_{outcome}"] = [(claim, outcome) not in excluded for claim in table["claim"]]
    return table


def dead_ends(design: Design) -> list[DeadEnd]:
    """What claims cannot become under this design, whatever the data say."""
    rules, any_outcome = design.rules, (SUPPORTED, REFUTED)
    found = [
        DeadEnd(claim, any_outcome, f"the smallest p that this design can reach is {p:.3g}, above {rules.alpha:g}")
        for claim, p in floors(design).items()
        if p > rules.alpha
    ]
    if rules.null_margin == 0:
        reason = "rules.null_margin is 0, and no mean over random directions is shown to be that close to zero"
        found.append(DeadEnd("C2", (SUPPORTED,), reason))
    if rules.equivalence == rules.null_margin == 0:
        reason = "rules.equivalence and rules.null_margin are 0, and nothing is shown to be that close to zero"
        found.append(DeadEnd("C3", (REFUTED,), reason))
    if rules.ceiling == 0:
        found.append(DeadEnd("C4", any_outcome, "rules.ceiling is 0, so that gate G5 fails"))
    if rules.max_unscorable == 0:
        found.append(DeadEnd("C4", any_outcome, "rules.max_unscorable is 0, so that gate G6 fails"))
    return found


def cautions(design: Design) -> list[str]:
    """What few seeds rest on, and what few runs cannot show."""
    seeds, rules = design.seeds, design.rules
    found = []
    flips = smallest_sign_flip_p(seeds)
    if flips > rules.alpha:
        enough = math.ceil(math.log2(1 / rules.alpha))
        found.append(
            f"{seeds} paired seed{'s reach' if seeds > 1 else ' reaches'} no one-sided sign-flip p below {flips:.3g}: "
            "what is paired by seed rests on the t distribution, and that on nearly normal differences; "
            f"{enough} seeds would reach {smallest_sign_flip_p(enough):.2g}"
        )
    needed = smallest_equivalence_n(rules.correlation_margin, rules.alpha)
    refutable = not any(end.claim == "C4" and REFUTED in end.excluded for end in dead_ends(design))
    if design.runs < needed and refutable:
        found.append(
            f"{design.runs} runs cannot show that r is equivalent to zero (margin {rules.correlation_margin:g}), which "
            f"takes {needed} or more: only a negative r, or drift that is no less under inoculation, can refute C4"
        )
    return found


def design_warnings(design: Design) -> list[str]:
    """What the design cannot do, in words: dead ends first, then what little seeds and runs can show."""
    return [*map(str, dead_ends(design)), *cautions(design)]


def opening(study: Study) -> list[str]:
    """Lines for the start of a session: each claim's smallest p, and what the design cannot decide."""
    design = design_of(study)
    shown = ", ".join(f"{claim} {floor(p)}" for claim, p in floors(design).items())
    ends = [f"design: CANNOT DECIDE {end}" for end in dead_ends(design)]
    return [f"design: smallest p: {shown}", *ends, *(f"design: {caution}" for caution in cautions(design))]


def floor(p: float) -> str:
    """A smallest p as tables print it."""
    return "no floor" if p == 0 else f"{p:.3g}"
