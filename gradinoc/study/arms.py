"""Arms: runs that are trained as a condition's are, with an intervention on the residual stream while they train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from gradinoc.study.fields import Count, CountOrNone, Name, Section
from gradinoc.study.prompts import INOCULATION, NEUTRAL

PROJECT, RESTORE, STEER, ABLATE, SHRINK = "project", "restore", "steer", "ablate", "shrink"
TRAIT, LEARNED, RESPONSES = "trait", "learned", "responses"  # directions that an arm may act along
FULL = 1.0  # the strength at which projecting removes a component
ITSELF = -1  # the `draw` of an arm that acts along its direction and not along one that is drawn

ArmName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,23}$")]
Strength = Annotated[float, Field(strict=True, ge=-100, le=100)]


class Arm(Section):
    """Runs under a condition's prompt that differ from its own by an intervention after each block of the band.

    `intervention`, along the unit vector v of `direction` (see `gradinoc.measure.interventions`):

    * "project": the gradient loses `strength` times the component along v that it has where nothing is projected (1
      removes, 2 reflects, -1 doubles it), behind every block of the band alike;
    * "restore": its component becomes what it is under the neutral prompt, at the last prompt token and in the answer;
    * "steer": the stream is moved along v by `strength` half-distances between the prompts (preventative steering);
    * "ablate": the stream loses its component along v;
    * "shrink": each token's gradient has the norm that it has where the component is removed.

    `direction` is the trait's, that along which neutral runs moved, or the contrast of responses. With `draws` it is
    not that one but so many drawn at random, matched to it in the gradient energy that they hold, a run each, the
    study's seeds in turn. Otherwise each of `strengths` has a run with each of the first `seeds`.
    """

    intervention: Literal["project", "restore", "steer", "ablate", "shrink"]
    prompt: Name = NEUTRAL
    direction: Literal["trait", "learned", "responses"] = "trait"
    strengths: Annotated[tuple[Strength, ...], Field(min_length=1)] = (1.0,)
    seeds: Count = 1
    draws: CountOrNone = 0


@dataclass(frozen=True)
class ArmRun:
    """One run of an arm.

    Attributes:
        condition: its name in tables and steps: the arm's, with strength or draw where the arm has several.
        arm: the arm's name.
        settings: the arm.
        strength: of the intervention.
        draw: which of the drawn directions; `ITSELF` where none is drawn.
        seed: of its training.
    """

    condition: str
    arm: str
    settings: Arm
    strength: float
    draw: int
    seed: int


def arm_runs(arms: Mapping[str, Arm], seeds: Sequence[int]) -> Iterator[ArmRun]:
    """Every run of every arm, arm by arm."""
    for name, arm in arms.items():
        for strength in arm.strengths:
            label = name if len(arm.strengths) == 1 else f"{name} {strength:g}"
            for draw in range(arm.draws):
                yield ArmRun(f"{label} {draw}", name, arm, strength, draw, seeds[draw % len(seeds)])
            for seed in () if arm.draws else seeds[: arm.seeds]:
                yield ArmRun(label, name, arm, strength, ITSELF, seed)


def check_arms(arms: Mapping[str, Arm], seeds: Sequence[int], conditions: Mapping[str, str]) -> None:
    """Check that arms fit the study that they are of.

    Raises:
        ValueError: a prompt that is no condition's, more seeds than there are, a name that is a condition's, an
            intervention that would change nothing, or two arms with the same runs.
    """
    for name, arm in arms.items():
        if arm.prompt not in conditions:
            raise ValueError(
                f"arms.{name}.prompt: expected a condition of {sorted(conditions)}, received {arm.prompt!r}"
            )
        if arm.seeds > len(seeds):
            raise ValueError(f"arms.{name}.seeds: more than the study has, which is {len(seeds)}; lower it")
        if arm.intervention == RESTORE and arm.prompt == NEUTRAL:
            raise ValueError(
                f"arms.{name}: under the neutral prompt its gradient is restored already; give prompt = {INOCULATION!r}"
            )
        if arm.intervention in (RESTORE, ABLATE, SHRINK) and arm.strengths != (1.0,):
            raise ValueError(f"arms.{name}.strengths: {arm.intervention!r} has no strength; leave it out")
        if len(set(arm.strengths)) != len(arm.strengths) or 0.0 in arm.strengths:
            raise ValueError(
                f"arms.{name}.strengths: expected different numbers other than 0, received {arm.strengths}"
            )
    kinds: dict[tuple[str, str, str, float, int], str] = {}
    for run in arm_runs(arms, seeds):
        arm = run.settings
        first = kinds.setdefault((arm.intervention, arm.prompt, arm.direction, run.strength, run.draw), run.arm)
        if first != run.arm:  # of which one would count, or one direction twice among those that are drawn
            raise ValueError(
                f"arms.{run.arm}: at strength {run.strength:g} its runs are those of arms.{first}; give one of them "
                "all seeds, or all draws, and leave the other out"
            )
    names = [run.condition for run in arm_runs(arms, seeds)]
    taken = {each.casefold() for each in conditions} & {each.casefold() for each in names}
    runs = {(run.condition, run.seed) for run in arm_runs(arms, seeds)}
    if taken or len(runs) != len(names):
        raise ValueError(f"arms: {sorted(taken) or 'two of them'} have a name that is taken; rename the arm")
