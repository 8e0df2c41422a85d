"""The simulated study that a planned one would be like: its sizes, what varied by chance in a past one, an effect."""

from __future__ import annotations

import math
from dataclasses import replace

from gradinoc.power.design import design_of
from gradinoc.power.scenarios import MIDDLE, Scenario, Sizes
from gradinoc.power.simulated.trained import BATCH
from gradinoc.power.variances import Variances
from gradinoc.study.description import Study
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules

OF_INTEREST, OBSERVED, NONE = "smallest of interest", "as observed", "none"
EFFECTS = (OF_INTEREST, OBSERVED, NONE)
FALL = 0.2  # smallest fall of alignment that is of interest, as a share of neutral's
TIMES_THE_BAR = 2.0  # smallest share of drift that is of interest, in what the rules ask for
CORRELATION = 0.7  # smallest of interest between alignment and drift over prompts, at equal elicitation
STEPS = 3  # of a simulated run: the first is the first third


def sizes_of(study: Study) -> Sizes:
    """The sizes of a simulated study that measures and trains what `study` does.

    Prompts of families that are not compared (hints) count with the opposite ones: only the slope of C4 sees them.
    """
    design, compared = design_of(study), {Family.NEUTRAL, Family.HARMLESS, Family.INOCULATION}
    opposite, trained = (
        [prompt for prompt in prompts.values() if prompt.family not in compared]
        for prompts in (study.measured, study.trained)
    )
    return Sizes(
        inoculating=design.prompts.measured[Family.INOCULATION],
        harmless=design.prompts.measured[Family.HARMLESS],
        opposite=len(opposite),
        trained=(design.prompts.trained[Family.INOCULATION], design.prompts.trained[Family.HARMLESS], len(trained)),
        rephrased=design.prompts.rephrased,
        seeds=design.seeds,
        examples=study.data.measure,
        shared=study.prompts.examples,
        elicitation=study.data.calibration,
        behaviour=study.prompts.behaviour,
        steering=study.steering.questions,
        evaluation=study.drift.generations,
        attributed=0,  # where drift comes from is not planned for
        layers=1,
        positions=1,
        steps=STEPS,
        directions=design.directions.frozen,
        steered=design.directions.steered,
        training_directions=design.directions.training,
        beside=False,
    )


def early_examples(study: Study) -> int:
    """Training examples in the first third of a run."""
    training = study.training
    steps = training.steps or math.ceil(training.epochs * study.data.train / training.batch_size)
    return -(-steps // 3) * training.batch_size


def scenario_of(variances: Variances, effect: str, study: Study) -> Scenario:
    """The scenario in which `study` would be run, with these variances and one of `EFFECTS`.

    As observed: all as the past study shows it. Smallest of interest: inoculating prompts lower alignment by `FALL` of
    neutral's, not for loss, and remove `TIMES_THE_BAR` times the share of drift that the rules ask for beyond harmless
    ones; among prompts of equal elicitation drift goes with alignment by a correlation of `CORRELATION`. None: no
    prompt moves alignment, and inoculating ones remove as much drift as harmless ones do. What varies by chance stays
    as it was; so does what harmless prompts remove, as far as it leaves room.

    Raises:
        ValueError: no such effect.
    """
    past = variances.scenario
    noise = replace(past.noise, step=past.noise.step * math.sqrt(BATCH / early_examples(study)))
    scenario = replace(past, noise=noise)
    if effect == OBSERVED:
        return scenario
    if effect == NONE:
        return replace(scenario, fall=0.0, any_prompt=0.0, slope=0.0, follows=0.0, elicits=0.0, unspecific=0.0)
    if effect != OF_INTEREST:
        raise ValueError(f"expected one of the effects {EFFECTS}, received {effect!r}")
    fall, share = smallest_of_interest(variances, study.rules)
    spread = math.hypot(noise.prompt_drift, past.follows * noise.prompt_alignment)
    follows = CORRELATION * spread / noise.prompt_alignment if noise.prompt_alignment > 0 else 0.0
    return replace(
        scenario,
        fall=fall / MIDDLE,
        any_prompt=0.0,
        slope=0.0,
        core=MIDDLE,
        follows=follows,
        elicits=(share - follows * fall) / MIDDLE,
        conditional=min(past.conditional, max(0.0, 1 - share)),
        disagree=0.0,
        noise=replace(noise, prompt_drift=spread * math.sqrt(1 - CORRELATION**2)),
    )


def smallest_of_interest(variances: Variances, rules: Rules) -> tuple[float, float]:
    """The smallest effects of interest: fall of alignment (cosine), and inoculation's own share of neutral drift."""
    return FALL * abs(variances.scenario.alignment), min(1.0, TIMES_THE_BAR * rules.share)
