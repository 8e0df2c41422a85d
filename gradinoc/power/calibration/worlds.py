"""The worlds by name: what every rule is tried in, each claim and each gate false by as little as can be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from scipy import stats

from gradinoc.claims.rules.verdict import CLAIMS
from gradinoc.power.calibration.cases import DESIGN, Case
from gradinoc.power.calibration.causes import causes
from gradinoc.power.calibration.shipped import of_shipped_studies
from gradinoc.power.scenarios import MIDDLE, SCENARIOS, Noise, Scenario
from gradinoc.study.rules import Rules
from gradinoc.study.settings import NULLS

RULES = Rules()
ALL = tuple(claim.key for claim in CLAIMS)
ON_ALIGNMENT = ("C1", "C2", "C3")
ANY_PROMPT = ("ANY_PROMPT",)
NOT_ALONG_V = ("OTHER_DIRECTION", "REFUTED")  # right where drift falls by another way than alignment
FALL = SCENARIOS["effect"].fall + SCENARIOS["effect"].slope * SCENARIOS["effect"].loss  # full inoculation's, cosine


@dataclass(frozen=True)
class Stated:
    """An effect at which a claim is stated to be found, and its unit as figures name it."""

    value: float
    unit: str


# Effects that each claim is stated to find in four of five studies of `DESIGN`. C1 to C3: full inoculation's fall of
# alignment (cosine); C4: share of drift per cosine; C6: share of neutral drift that is inoculation's own, on average.
# At equal loss (C3) no effect is found as often with 10 prompts a family: where inoculation elicits, too few losses are
# in both families' range. C3 is stated for 20.
# A slope over prompts has to survive without any of them, and G9 to show that measures agree: C4 is stated where every
# measured prompt is trained under, and drift is read on 48 questions.
MANY = replace(DESIGN, inoculating=20, harmless=20)
WHOLE = replace(DESIGN, trained=(10, 10, 4), evaluation=48)
# C7a and C7b: the share of the difference in accounted drift that is due to the turn, or runs along v.
# C7c: the share of drift's variance at equal elicitation, length and loss that the kernel before training foretells.
STATED: Mapping[str, Stated] = {
    "C1": Stated(0.16, "cosine"),
    "C2": Stated(0.18, "cosine"),
    "C3": Stated(0.24, "cosine"),
    "C4": Stated(4.0, "a cosine"),
    "C6": Stated(0.55, "of drift"),
    "C7a": Stated(0.8, "of the difference"),
    "C7b": Stated(0.5, "of the difference"),
    "C7c": Stated(0.75, "of variance"),
}
SCATTER = 0.45  # of what a question's stretch does, of neutral drift, beyond what is accounted for: R2 about 0.8


def cases() -> dict[str, Case]:
    """Every world by name, in the order of the tables."""
    return {
        **_typical(),
        **_mechanisms(),
        **_sources(),
        **causes(),
        **_at_the_bars(),
        **_gates(),
        **_small(),
        **_misspecified(),
        **_stated(),
        **of_shipped_studies(),
    }


def _of(name: str, **changes: Any) -> Scenario:
    return replace(SCENARIOS[name], **changes)


def _typical() -> dict[str, Case]:
    """The scenarios by name; where any prompt does it, the verdict has to say so."""
    typical = {"any_prompt": "ANY_PROMPT"}
    return {name: Case(scenario, typical=typical.get(name, "")) for name, scenario in SCENARIOS.items()}


def _mechanisms() -> dict[str, Case]:
    """What could look like the effect, and what could hide it."""
    random = Noise(prompt_alignment=0.08, prompt_drift=0.12)
    own_way: dict[str, Any] = {"follows": 0.0, "elicits": 0.9}
    worlds = {
        "effect, half": _of("effect", fall=0.075),
        # Conditionalization, alignment falling under any prompt as well.
        "any_prompt, with alignment": _of("any_prompt", any_prompt=0.15),
        "any_prompt, half": _of("any_prompt", conditional=0.5),
        "prompts random": _of("any_prompt", conditional=0.5, noise=random),
        "confounded": _of("effect", **own_way, holds=(*ON_ALIGNMENT, "C6"), verdicts=NOT_ALONG_V),
        "not_causal": _of(
            "effect", **own_way, by_chance=("steering",), holds=("C6",), untold=(*ON_ALIGNMENT, "C4"),
            verdicts=NOT_ALONG_V,
        ),
        # Alignment in training follows a run's drift, as its progress would.
        "progress": _of("no_alignment", progress=0.2, holds=("C4", "C6")),
        "progress, any_prompt": _of("any_prompt", conditional=0.5, progress=0.2, noise=random, holds=("C4",)),
        "measures disagree": _of(
            "effect", disagree=0.7, holds=(*ON_ALIGNMENT, "C6"), untold=("C4",), verdicts=()
        ),
        # Harmless prompts leave as much as is just no room; what inoculation would do beyond cannot be seen.
        "floor, hidden": _of(
            "effect", conditional=1 - RULES.room, holds=ON_ALIGNMENT, vary=("C4",), untold=("C6",), verdicts=()
        ),
        "backfire": _of("no_effect", elicits=-0.5),
        "unspecific": _of("effect", unspecific=1.0, holds=("C1", "C3", "C4", "C6"), verdicts=()),
        "hard examples": _of("loss_explains", between=-0.8),
    }  # fmt: skip
    return {name: Case(scenario) for name, scenario in worlds.items()}


def _sources() -> dict[str, Case]:
    """Where drift comes from, told apart by as little as can be: turn and size, v and other directions, prediction."""
    own_way: dict[str, Any] = {"fall": 0.0, "slope": 0.0, "follows": 0.0, "elicits": 0.9, "holds": ("C6",)}
    away = {**own_way, "elicits": 0.6}  # no run leaves next to nothing, of which a power would be no split
    carry, (low, high) = RULES.carried + 0.01, RULES.accounted
    worlds = {
        # All of it turns, none of it along v; and as much by the turn as by the size.
        "turn alone": _of("effect", **own_way, turned=1.0, verdicts=NOT_ALONG_V),
        "turn and size alike": _of("effect", **away, turned=RULES.turned, verdicts=("REFUTED",)),
        # Harmless and inoculating runs differ in what they learn at all, half as a power, and by that they turn.
        "learned and transfer alike": _of("effect", **away, learned=0.5, verdicts=NOT_ALONG_V),
        "along v, the bar": _of("effect", along=RULES.carried, verdicts=("OTHER_DIRECTION", "REFUTED")),
        "along v, just above the bar": _of("effect", along=carry),
        # A share that is twice the bar, and 6 % of all directions, or 10 % of v's own kind, carry as much.
        "along v, one of many": _of(
            "effect", along=0.5, noise=Noise(null_along=dict.fromkeys(NULLS, _spread(0.5, 0.06))), untold=("C7b",),
            verdicts=(),
        ),
        "along v, one of its kind": _of(
            "effect", along=0.5, noise=Noise(null_along={**Noise().null_along, "instruction": _spread(0.5, 0.1)}),
            untold=("C7b",), verdicts=(),
        ),
        # Elicitation goes its own way along v, along which steering does nothing.
        "v not causal": _of(
            "effect", **{**own_way, "holds": ("C6",)}, along=0.5, by_chance=("steering",),
            untold=(*ON_ALIGNMENT, "C4", "C7b"), verdicts=(),
        ),
        "nothing foretold": _of("effect", foretold=0.0),
        # The kernel goes with elicitation, as drift does, and beyond that with nothing.
        "nothing foretold but elicitation": _of("effect", foretold=0.0, elicited=0.6, noise=Noise(kernel=0.05)),
        # Accounted drift is too small or too large by a little more than the gate lets pass, or scatters.
        "G10 false": _without("G10", {"accounts": high + 0.01, "noise": Noise(accounted=0.001)}),
        "G10, too much false": _without("G10", {"accounts": low - 0.01, "noise": Noise(accounted=0.001)}),
        "G10, scatter false": _without("G10", {"noise": Noise(accounted=SCATTER)}),
    }  # fmt: skip
    return {name: Case(scenario) for name, scenario in worlds.items()}


def _spread(share: float, above: float) -> float:
    """The standard deviation of shares along directions of which `above`, a fraction, lie beyond `share`."""
    return share / float(stats.norm.isf(above))


def _at_the_bars() -> dict[str, Case]:
    """Claims that are false, or true, by as little as can be."""
    at_bar = RULES.share / MIDDLE
    own = _of("effect", follows=0.0, holds=ON_ALIGNMENT, vary=("C4",), verdicts=ANY_PROMPT)
    quiet = dict.fromkeys(NULLS, 0.002)
    worlds = {
        "share just below its bar": replace(own, elicits=at_bar - 0.001),
        "share just above its bar": replace(own, elicits=at_bar + 0.001, holds=(*ON_ALIGNMENT, "C6"), verdicts=()),
        # Nothing but what inoculation removes falls short: any prompt does as much, less than the bar.
        "removed just below its bar": _of("any_prompt", conditional=RULES.share - 0.001, verdicts=()),
    }
    for null in NULLS:
        noise = Noise(nulls={**quiet, null: 0.02}, null_prompt=0.005, unrelated=0.001)
        worlds[f"one of {null}"] = _of(
            "effect", drawn_from=null, slope=0.0, noise=noise, holds=("C4",), vary=("C1", "C3", "C6"),
            verdicts=(*ANY_PROMPT,),
        )  # fmt: skip
    return {name: Case(scenario) for name, scenario in worlds.items()}


def _gates() -> dict[str, Case]:
    """Each gate false by as little as can be, everything else as in `effect`; what rests on it has to be left open."""
    core = 0.9
    apart = RULES.agreement / (SCENARIOS["effect"].conditional + SCENARIOS["effect"].follows * FALL * MIDDLE)
    changes: dict[str, dict[str, Any]] = {
        "G1": {"auc": RULES.auc - 0.001},
        "G2": {"split_half": RULES.split_half - 0.001},
        "G3": {"loss": 0.0},
        "G4, a run": {"learnt": -0.001},
        "G4, a start": {"one_start": False},
        "G5": {"drift": RULES.least_drift},
        "G6": {"unscorable": RULES.max_unscorable},
        "G7": {
            "core": core,
            "behaviour": RULES.elicited / core,
            "odds": RULES.elicited_nats / core,
            "promoted": 5.0,
        },
        "G8a, steering": {"by_chance": ("steering",)},
        "G8a, loss": {"rise": RULES.either_loss + 0.001},
        "G8b": {"moved": 0.0},
        "G8c": {"alignment": 0.0},
        "G8c, by chance": {"by_chance": ("alignment",)},
        "G9": {"disagree": apart + 0.001},
    }
    return {f"{name} false": Case(_without(name.split(",")[0], changed)) for name, changed in changes.items()}


def _without(gate: str, changes: Mapping[str, Any]) -> Scenario:
    """The effect with a gate that is false."""
    untold = tuple(claim.key for claim in CLAIMS if gate in claim.rests_on)
    return _of("effect", **changes, holds=tuple(key for key in ALL if key not in untold), untold=untold, verdicts=())


def _small() -> dict[str, Case]:
    """Families of few prompts: 3 inoculating and 5 harmless ones, or trained under one of each, which tells nothing."""
    few = replace(DESIGN, inoculating=3, harmless=5, opposite=1, trained=(3, 5, 1))
    single = replace(DESIGN, trained=(1, 1, 1))
    alone = {"holds": ON_ALIGNMENT, "untold": ("C4", "C6"), "verdicts": ()}
    bar = _at_the_bars()["share just below its bar"].scenario
    return {
        "effect, 3 v 5": Case(SCENARIOS["effect"], few),
        "no_effect, 3 v 5": Case(SCENARIOS["no_effect"], few),
        "any_prompt, 3 v 5": Case(SCENARIOS["any_prompt"], few),
        "share just below its bar, 3 v 5": Case(bar, few),
        "effect, 1 v 1": Case(_of("effect", **alone), single),
        "any_prompt, 1 v 1": Case(_of("any_prompt", **{**alone, "holds": ()}), single),
    }


# How the textbook's assumptions fail, each in a world without an effect, in one with it, and where any prompt does it.
MISSPECIFIED: Mapping[str, dict[str, Any]] = {
    "heavy tails": {"noise": Noise(degrees=3)},
    "unequal variances": {"noise": Noise(ratio=2.5, prompt_alignment=0.02, prompt_drift=0.03)},
    "clustered": {"templates": 24, "noise": Noise(family_template=0.03, drift_family=0.12)},
}


def _misspecified() -> dict[str, Case]:
    return {
        f"{base}, {name}": Case(_of(base, **changes))
        for base in ("effect", "no_effect", "any_prompt")
        for name, changes in MISSPECIFIED.items()
    }


def _stated() -> dict[str, Case]:
    """The effects at which a claim is stated to be found in four of five studies."""
    slope = SCENARIOS["effect"].slope * SCENARIOS["effect"].loss
    changes: dict[str, dict[str, Any]] = {key: {"fall": STATED[key].value - slope} for key in ON_ALIGNMENT}
    changes["C4"] = {"fall": 0.1, "follows": STATED["C4"].value}
    changes["C6"] = {
        "follows": 0.0, "elicits": STATED["C6"].value / MIDDLE, "holds": (*ON_ALIGNMENT, "C6"), "verdicts": NOT_ALONG_V,
    }  # fmt: skip
    changes |= {"C7a": {"turned": STATED["C7a"].value}, "C7b": {"along": STATED["C7b"].value}}
    # What a prompt leaves beside its elicitation and loss, and chance of the kernel in proportion.
    plain, foretold = SCENARIOS["effect"], STATED["C7c"].value
    own = math.hypot(plain.follows * plain.noise.prompt_alignment, plain.noise.prompt_drift)
    changes["C7c"] = {"noise": Noise(kernel=own * math.sqrt(1 / foretold - 1))}
    sizes = {"C3": MANY, "C4": WHOLE}
    return {
        f"stated {key}": Case(_of("effect", **change), sizes.get(key, DESIGN), power=(key,))
        for key, change in changes.items()
    }
