"""The sizes of a study that decide what it can come to: prompts by family, seeds, questions, directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gradinoc.claims.evidence.measures import HARMLESS, INOCULATING
from gradinoc.claims.rules.verdict import CLAIMS as JUDGED
from gradinoc.study.arms import FULL, ITSELF, PROJECT, RESTORE, TRAIT
from gradinoc.study.description import Study
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.prompts.family import Family, Prompt
from gradinoc.study.rules import Rules

CLAIMS = tuple(claim.key for claim in JUDGED)
FAMILIES = (HARMLESS, INOCULATING)
WORDS = {HARMLESS: "harmless", INOCULATING: "inoculating"}
SUPPORTED, REFUTED = "supported", "refuted"
BOTH = (SUPPORTED, REFUTED)
AT_EQUAL_LOSS = 5  # prompts in all, two of a family, without which nothing is compared at equal loss


@dataclass(frozen=True)
class Prompts:
    """How many prompts a study looks at.

    Attributes:
        measured: family -> fixed prompts measured on the frozen model, harmless and inoculating.
        trained: family -> those that runs are trained under.
        sloped: fixed prompts that runs are trained under, of any family, neutral left out.
        rephrased: whether both rephrased prompts are trained.
    """

    measured: Mapping[str, int]
    trained: Mapping[str, int]
    sloped: int
    rephrased: bool


@dataclass(frozen=True)
class Directions:
    """How many directions without the trait it is compared with: on the frozen model, in training, steered along.

    `frozen` counts those of the kind of which there are fewest.
    """

    frozen: int
    training: int
    steered: int


class Arms(NamedTuple):
    """How many runs with an intervention claim C5 rests on.

    Attributes:
        removed: seeds of the arm that removes the whole component along the direction.
        drawn: runs along directions matched to it.
        restored: seeds of the arm that restores it.
        restored_drawn: runs along directions matched to that.
        strengths: of removing along the direction, besides all of the component.
    """

    removed: int
    drawn: int
    restored: int
    restored_drawn: int
    strengths: int


@dataclass(frozen=True)
class Design:
    """What a study's decisions can rest on, and the bars that they have to pass.

    Attributes:
        prompts: the unit of what is claimed of inoculation.
        seeds: neutral runs.
        examples: measured on the frozen model under the plan's own prompts.
        questions: held out, answered by every run.
        attributed: of these, whose change of log-odds is accounted for.
        directions: those without the trait.
        arms: runs with an intervention.
        rules: the bars.
    """

    prompts: Prompts
    seeds: int
    examples: int
    questions: int
    attributed: int
    directions: Directions
    arms: Arms
    rules: Rules


def design_of(study: Study) -> Design:
    """The design that `study` asks for."""
    trained = study.trained
    rephrased = {prompt.family for prompt in trained.values() if prompt.is_rephrased}
    fixed = {key: prompt for key, prompt in trained.items() if not prompt.is_rephrased}
    return Design(
        Prompts(
            measured=_counted(study.measured),
            trained=_counted(fixed),
            sloped=len([key for key in fixed if key != NEUTRAL]),
            rephrased={Family.HARMLESS, Family.INOCULATION} <= rephrased,
        ),
        seeds=len(study.seeds),
        examples=study.data.measure,
        questions=study.drift.generations,
        attributed=study.attribution.questions,
        directions=Directions(min(study.nulls.draws.values()), study.nulls.training, study.steering.draws),
        arms=_armed(study),
        rules=study.rules,
    )


def _armed(study: Study) -> Arms:
    """How many runs along the trait's direction, and matched to it, are projected and restored."""
    found = []
    for intervention, prompt in ((PROJECT, NEUTRAL), (RESTORE, INOCULATION)):
        runs = [
            run for run in study.arm_runs.values()
            if (run.settings.intervention, run.settings.prompt, run.settings.direction) == (intervention, prompt, TRAIT)
            and run.strength == FULL
        ]  # fmt: skip
        found += [sum(run.draw == ITSELF for run in runs), sum(run.draw != ITSELF for run in runs)]
    strengths = {
        run.strength for run in study.arm_runs.values()
        if (run.settings.intervention, run.settings.prompt, run.settings.direction) == (PROJECT, NEUTRAL, TRAIT)
        and run.draw == ITSELF
    }  # fmt: skip
    found.append(len(strengths - {FULL}))
    return Arms(*found)


def _counted(prompts: Mapping[str, Prompt]) -> dict[str, int]:
    """How many fixed prompts there are of each family that is compared."""
    fixed = [str(prompt.family) for prompt in prompts.values() if not prompt.is_rephrased]
    return {family: fixed.count(family) for family in FAMILIES}


def counts(families: Mapping[str, int]) -> str:
    """`6 harmless and 5 inoculating`."""
    return " and ".join(f"{count} {WORDS[family]}" for family, count in families.items())
