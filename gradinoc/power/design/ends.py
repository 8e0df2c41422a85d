"""What claims cannot become under a design, whatever the data say, and what rests on few prompts or seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gradinoc.claims.c4 import COVARIATES
from gradinoc.claims.rules.finding import listed
from gradinoc.claims.rules.verdict import CLAIMS as JUDGED
from gradinoc.power.design.sizes import AT_EQUAL_LOSS, BOTH, FAMILIES, SUPPORTED, WORDS, Design, counts
from gradinoc.stats.reach import (
    fewest_others,
    fewest_prompts,
    half_width,
    seeds_half_width,
    smallest_label_p,
    smallest_rank_p,
    smallest_slope_p,
)
from gradinoc.study.rules import Rules

RESTS_ON = {claim.key: claim.rests_on for claim in JUDGED}
OF_SEEDS = ("G5", "G8b", "G8c")  # whose intervals are over neutral runs


@dataclass(frozen=True)
class DeadEnd:
    """Something that claims cannot become under this design, why, and what would mend it."""

    claims: tuple[str, ...]
    excluded: tuple[str, ...]
    reason: str
    cure: str

    def __str__(self) -> str:
        """In a sentence: `C6 cannot be supported: no rephrased pair is trained; add ... to prompts.trained`."""
        return f"{listed(self.claims)} cannot be {' or '.join(self.excluded)}: {self.reason}; {self.cure}"


def dead_ends(design: Design) -> list[DeadEnd]:
    """What claims cannot become under this design, whatever the data say; C5 is left out where no run is for it."""
    found = [
        *_of_prompts(design), *_of_seeds(design), *_of_directions(design), *_of_questions(design),
        *_of_arms(design), *_of_bars(design.rules),
    ]  # fmt: skip
    absent = () if any(design.arms) else ("C5",)
    return [replace(end, claims=tuple(claim for claim in end.claims if claim not in absent)) for end in found]


def resting_on(*gates: str) -> tuple[str, ...]:
    """The claims that rest on any of these gates."""
    return tuple(claim for claim, needed in RESTS_ON.items() if set(gates) & set(needed))


def _of_prompts(design: Design) -> list[DeadEnd]:
    """Families too small for an interval, too few prompts for a slope or at equal loss, no rephrased pair."""
    prompts, found = design.prompts, []
    for counted, key, what, claims in (
        (prompts.measured, "measured", "measured on the frozen model", resting_on("G3")),
        (prompts.trained, "trained", "trained", ("C6", "C7a", "C7b")),
    ):
        for family in (family for family in FAMILIES if counted[family] < 2):
            number = _number(counted[family], f"{WORDS[family]} prompt")
            reason = f"{number} {what}, and a family of one has no interval"
            found.append(DeadEnd(claims, BOTH, reason, f"name two or more in prompts.{key}"))
    every = sum(prompts.measured.values())
    if every < AT_EQUAL_LOSS:
        reason = f"at equal loss {AT_EQUAL_LOSS} prompts or more are compared, and {every} are measured"
        found.append(DeadEnd(("C3",), BOTH, reason, "name more in prompts.measured"))
    fewest = fewest_prompts(len(COVARIATES))
    if prompts.sloped < fewest:
        reason = (
            f"a slope with {len(COVARIATES)} covariates takes {fewest} trained prompts, neutral left out, and there "
            f"are {prompts.sloped}"
        )
        cure = f"name {fewest - prompts.sloped} more in prompts.trained"
        found.append(DeadEnd(("C4", "C7c"), BOTH, reason, cure))
    if not prompts.rephrased:
        cure = "name rephrased_inoculation and rephrased_harmless in prompts.trained"
        found.append(DeadEnd(("C6",), (SUPPORTED,), "no rephrased pair is trained", cure))
    return found


def _of_seeds(design: Design) -> list[DeadEnd]:
    """One neutral run has no interval."""
    if design.seeds > 1:
        return []
    reason = f"with one seed there is one neutral run, which has no interval, so that {listed(OF_SEEDS)} fail"
    return [DeadEnd(resting_on(*OF_SEEDS), BOTH, reason, "give two seeds or more")]


def _of_directions(design: Design) -> list[DeadEnd]:
    """Too few directions for a place among them to be significant."""
    alpha, found = design.rules.alpha, []
    for key, count, field, claims in (
        ("", design.directions.frozen, "nulls", ("C2", "C7b")),
        ("G8a", design.directions.steered, "steering.draws", resting_on("G8a")),
        ("G8c", design.directions.training, "nulls.training", resting_on("G8c")),
    ):
        least = smallest_rank_p(count)
        if least > alpha:
            gate = f", so that {key} fails" if key else ""
            reason = f"a place among {count} directions has no p below {least:.3g}, and {alpha:g} is asked for{gate}"
            excluded = BOTH if key else (SUPPORTED,)
            found.append(DeadEnd(claims, excluded, reason, f"set {field} to {fewest_others(alpha)} or more"))
    least = smallest_slope_p(design.prompts.sloped, len(COVARIATES))
    if alpha < least < 1:
        reason = (
            f"a permutation of {design.prompts.sloped} prompts has no p below {least:.3g}, and {alpha:g} is asked for"
        )
        found.append(DeadEnd(("C4", "C7c"), (SUPPORTED,), reason, "raise rules.alpha or train more prompts"))
    return found


def _of_questions(design: Design) -> list[DeadEnd]:
    """Nothing is accounted for."""
    if design.attributed:
        return []
    return [DeadEnd(("C7a", "C7b", "C7c"), BOTH, "attribution.questions is 0, so that they are not run", "raise it")]


def _of_arms(design: Design) -> list[DeadEnd]:
    """Too few runs with an intervention, none to bring drift back, or too few along matched directions."""
    arms, alpha, found = design.arms, design.rules.alpha, []
    if any(arms) and arms.removed < 2:
        number = _number(arms.removed, "run").removesuffix(" is").removesuffix(" are")
        reason = f"{number} {'have' if not arms.removed else 'has'} the component along the direction removed"
        return [DeadEnd(("C5",), BOTH, reason, "add such runs to [arms], as the study causal-smollm2 does")]
    if any(arms) and not arms.restored:
        reason = "under inoculation no run has the component restored"
        found.append(DeadEnd(("C5",), (SUPPORTED,), reason, 'add an arm of intervention "restore"'))
    if any(arms) and not arms.strengths:
        reason = "no run has a part of the component removed, or more than all of it: one strength is no dose"
        found.append(DeadEnd(("C5",), (SUPPORTED,), reason, "add an arm with other strengths"))
    for count, what in ((arms.drawn, "removed"), (arms.restored_drawn, "restored")):
        least = smallest_rank_p(count)
        if any(arms) and least > alpha:
            reason = f"{count} runs have it {what} along matched directions: p of a place is {least:.3g} or more"
            cure = f"give their arm {fewest_others(alpha)} draws or more"
            found.append(DeadEnd(("C5",), (SUPPORTED,), reason, cure))
    return found


def _of_bars(rules: Rules) -> list[DeadEnd]:
    """Bars that nothing can pass."""
    impossible = {"ceiling": ("G5", 0.0), "least_drift": ("G5", 1.0), "max_unscorable": ("G6", 0.0)}
    return [
        DeadEnd(resting_on(gate), BOTH, f"rules.{name} is {value:g}, so that gate {gate} fails", "set another bar")
        for name, (gate, value) in impossible.items()
        if getattr(rules, name) == value
    ]


def _number(count: int, noun: str) -> str:
    """`no harmless prompt is`, `one harmless prompt is`, `3 harmless prompts are`."""
    if count > 1:
        return f"{count} {noun}s are"
    return f"{'one' if count else 'no'} {noun} is"


def cautions(design: Design) -> list[str]:
    """What rests on few prompts or seeds."""
    found, prompts = [], design.prompts
    smallest = min(prompts.trained.values())
    if 1 < smallest < 4:
        wide = half_width(dict(prompts.trained), 1.0)
        more = half_width({family: count + 1 for family, count in prompts.trained.items()}, 1.0)
        found.append(
            f"{counts(prompts.trained)} prompts are trained: harmless less inoculating drift has an interval of "
            f"± {wide:.2g} standard deviations of a prompt, with one prompt more of each ± {more:.2g}"
        )
    if design.seeds == 2:
        found.append(
            f"two seeds: neutral drift has an interval of ± {seeds_half_width(2, 1.0):.2g} standard deviations of a "
            f"run, with three ± {seeds_half_width(3, 1.0):.2g}; G5, G8b, G8c and the share in C6 rest on it"
        )
    spare = prompts.sloped - fewest_prompts(len(COVARIATES))
    if 0 <= spare < 4:
        found.append(
            f"{prompts.sloped} prompts for a slope with {len(COVARIATES)} covariates leave C4 "
            f"{prompts.sloped - len(COVARIATES) - 2} degrees of freedom: it stays undecided unless alignment predicts "
            "drift almost without error"
        )
    least = labels_p(prompts.trained)
    if smallest > 0 and least > design.rules.alpha:
        found.append(f"labels of {counts(prompts.trained)} trained prompts permuted reach no p below {least:.3g}")
    return found


def labels_p(families: Mapping[str, int]) -> float:
    """The smallest p of permuting the labels of these families' prompts."""
    first, second = (families[family] for family in FAMILIES)
    return smallest_label_p(first, second)
