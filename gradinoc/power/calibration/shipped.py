"""Worlds that look like the studies whose variances are shipped, or like any other study."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from gradinoc.power.calibration.cases import Case
from gradinoc.power.scenarios import MIDDLE, SCENARIOS, Scenario
from gradinoc.power.variances import load_variances
from gradinoc.study.loading import STUDIES
from gradinoc.study.rules import Rules

RULES = Rules()


def of_shipped_studies() -> dict[str, Case]:
    """Three worlds that look like each study whose variances are shipped."""
    found = (load_variances(path) for path in sorted(STUDIES.glob("*-variances.json")))
    return {name: case for each in found for name, case in with_variances(each.study, each.scenario).items()}


# Chance in drift, and the chance in alignment that it has more of where drift follows alignment.
FOLLOWING = {"prompt_drift": "prompt_alignment", "run_drift": "run", "seed_drift": "seed"}


def with_variances(name: str, like: Scenario) -> dict[str, Case]:
    """The worlds effect, no_effect and any_prompt as they would be in a study that looks `like` this one.

    Chance, levels and templates are its own; the apparatus is sound, and what inoculation removes is removed by the
    fall of alignment, by nothing, or by any prompt. By the fall no more is removed than chance in alignment allows: of
    prompts, runs and seeds it then makes chance in drift, of which there is as much as in the study. The rest, where
    the fall is too small for what was removed, goes another way. Other directions differ as they do in that study, so
    whether the trait's leads them (C2) differs from study to study.
    """
    plain = SCENARIOS["effect"]
    sound = {
        field: getattr(plain, field) for field in ("auc", "split_half", "rise", "disagree", "unspecific", "progress")
    }
    fall = like.fall + like.slope * like.loss
    removed = like.follows * fall + like.elicits
    chance = {name: (getattr(like.noise, name), getattr(like.noise, of)) for name, of in FOLLOWING.items()}
    whole = {name: math.hypot(own, like.follows * alignment) for name, (own, alignment) in chance.items()}
    most = min([whole[name] / alignment for name, (_, alignment) in chance.items() if alignment], default=math.inf)
    follows = math.copysign(min(abs(removed / fall), most), removed / fall)
    rest: dict[str, Any] = {
        name: math.sqrt(max(0.0, whole[name] ** 2 - (follows * of) ** 2)) for name, (_, of) in chance.items()
    }
    nothing = {"fall": 0.0, "any_prompt": 0.0, "slope": 0.0, "follows": 0.0, "elicits": 0.0}
    changes: dict[str, dict[str, Any]] = {
        "effect": {
            "follows": follows,
            "elicits": removed - follows * fall,
            "noise": replace(like.noise, **rest),
            # Harmless prompts remove what they did, whatever their alignment.
            "conditional": like.conditional + (like.follows - follows) * like.any_prompt,
            "vary": ("C2", *_unsure(like.conditional + like.follows * like.any_prompt, removed)),
        },
        "no_effect": {**nothing, "conditional": 0.0, "foretold": 0.0},
        "any_prompt": {**nothing, "foretold": 0.0, "conditional": min(like.conditional + removed * MIDDLE, 1.0)},
    }
    worlds = {}
    for world, changed in changes.items():
        holds = tuple(key for key in SCENARIOS[world].holds if key not in changed.get("vary", ()))
        verdicts = SCENARIOS[world].verdicts
        truth = replace(like, core=None, **sound, **{**changed, "holds": holds, "untold": (), "verdicts": verdicts})
        worlds[f"{world}, {name}"] = Case(truth)
    return worlds


def _unsure(conditional: float, removed: float) -> tuple[str, ...]:
    """C6, where the floor may leave inoculation less of its own than the bar."""
    room = 1 - conditional
    return ("C6",) if min(removed * MIDDLE, room) < RULES.share + 0.05 else ()
