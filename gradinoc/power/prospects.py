"""The scenario in which a planned study would be run: what varied by chance in a past one, and a supposed effect."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gradinoc.data.sources import DATASETS, load_source
from gradinoc.power.scenarios import Noise, Scenario, band_depth
from gradinoc.power.simulate import ALIGNMENT, BATCH, CONDITIONS
from gradinoc.power.variances import Three, Variances
from gradinoc.stats.effect import Array
from gradinoc.study.description import NULLS, DataSettings, Study
from gradinoc.study.rules import Rules

OF_INTEREST, OBSERVED, NONE = "smallest of interest", "as observed", "none"
EFFECTS = (OF_INTEREST, OBSERVED, NONE)
TIMES_THE_MARGIN = 2.0  # the smallest effect of interest, in what the rules call equivalent to none
# A simulated study as small as it can be: one layer, one training step, few answers.
LAYERS, STEPS, EVALUATION = 1, 1, 4


def source_templates(settings: DataSettings) -> int | None:
    """How many templates the questions of a bundled or local source have, 0 if none repeats; None for a hub source."""
    if not ((DATASETS / f"{settings.source}.jsonl").is_file() or Path(settings.source).is_file()):
        return None
    examples = load_source(settings.source)
    groups = {example.group for example in examples}
    return len(groups) if len(groups) < len(examples) else 0


def early_examples(study: Study) -> int:
    """Training examples over which a run's early alignment will be a mean."""
    training = study.training
    steps = training.steps or math.ceil(training.epochs * study.data.train / training.batch_size)
    return max(1, math.ceil(study.rules.early_fraction * steps - 1e-9)) * training.batch_size


def scenario_of(variances: Variances, effect: str, study: Study) -> Scenario:
    """The scenario of `gradinoc.power.simulate` in which `study` would be run, with these variances and one of
    `EFFECTS`.

    As observed: alignment, loss and drift fall by as much as they did. Smallest of interest: under inoculation, and
    not under the control, alignment falls by `TIMES_THE_MARGIN` what the rules call unchanged (`rules.equivalence` of
    the neutral alignment), all of it at equal loss, and drift by as many times what they call the same
    (`rules.null_margin` of the neutral drift). None: neither falls anywhere, though loss does as it did.

    What an effect does along other directions shrinks with it, where it is smaller than the observed one: a weaker
    effect of the same kind. What varies by chance does not; where examples differ in how far the effect goes, a weaker
    one would vary less, and its power is understated. Templates, further conditions, early steps and answers are the
    study's. Everything is scaled so that the neutral alignment is the simulation's: no rule depends on the unit of
    cosines. Belongs to the sizes `LAYERS`, `STEPS` and `EVALUATION`.

    Raises:
        ValueError: no such effect, or the neutral alignment is zero and so are all margins.
    """
    if effect not in EFFECTS:
        raise ValueError(f"expected one of the effects {EFFECTS}, received {effect!r}")
    if variances.alignment == 0:
        raise ValueError(f"variances of {variances.study}: the neutral alignment is 0, so nothing can be set beside it")
    unit = ALIGNMENT / abs(variances.alignment)
    found = source_templates(study.data)
    templates = variances.templates if found is None else found
    own, slope, between = np.square(variances.own), variances.slope, variances.between
    if effect != OBSERVED:  # what loss adds to alignment within an example is noise then
        own, slope, between = own + (slope * variances.loss) ** 2, 0.0, between + slope
    if not templates:
        own = own + variances.template**2
    mean = math.sqrt(float(own.mean()))
    fall, drift = _falls(variances, effect, study.rules)
    a_half = _elsewhere(variances, fall) * unit / math.sqrt(2)  # of the variance of a difference of two conditions
    noise = Noise(
        difficulty=variances.difficulty,
        loss=variances.loss,
        example=unit * variances.example,
        alignment=unit * mean,
        layer=0.0,
        template=unit * variances.template,
        nulls={
            # Of a kind that the past study did not draw, as widely as the widest that it drew.
            null: a_half
            * variances.nulls.get(null, max(variances.nulls.values()))
            * (1 if kind.of_trait else band_depth(LAYERS))
            for null, kind in NULLS.items()
        },
        flipped=0.0,
        seed=unit * variances.seed,
        run=unit * variances.run,
        step=unit * variances.step * math.sqrt(STEPS * BATCH / early_examples(study)),
        run_drift=variances.run_drift,
        response=variances.response * math.sqrt(EVALUATION / study.drift.log_odds),
        ratio=_three(np.sqrt(own) / mean) if mean > 0 else (1.0, 1.0, 1.0),
    )
    return Scenario(
        gap=_three(unit * (np.array(fall) - slope * np.array(variances.loss_fall))),
        loss=variances.loss_fall,
        slope=unit * slope,
        between=unit * between,
        drift=drift,
        follows=0.0,
        seed_follows=0.0,
        templates=templates,
        further=len(study.conditions) > len(CONDITIONS),
        noise=noise,
    )


@dataclass(frozen=True)
class Closest:
    """How the unrelated trait that comes closest goes with the trait, in the simulation's units of a band mean.

    Its alignment is `slope` times the trait's, less `shift` under inoculation, with noise of sd `spread`.
    """

    slope: float
    shift: float
    spread: float


def closest_of(variances: Variances, effect: str, study: Study) -> Closest:
    """The closest unrelated trait in `scenario_of`'s scenario: its T(u) shrinks as along other directions."""
    unit = ALIGNMENT / abs(variances.alignment) * band_depth(LAYERS)
    fall, _ = _falls(variances, effect, study.rules)
    shown = _elsewhere(variances, fall) * variances.unrelated
    slope = variances.unrelated_slope
    return Closest(slope, unit * (shown - slope * fall[1]), unit * variances.unrelated_example / math.sqrt(2))


def in_training(scenario: Scenario, variances: Variances, effect: str) -> Scenario:
    """`scenario` with the contrasts of early training in place of the frozen model's, where these were observed."""
    if effect != OBSERVED:
        return scenario
    unit = ALIGNMENT / abs(variances.alignment)
    return replace(scenario, gap=_three(unit * np.array(variances.early_fall)), slope=0.0)


def smallest_of_interest(variances: Variances, rules: Rules) -> tuple[float, float]:
    """The smallest effects of interest: fall of alignment (cosine), and of drift as a share of neutral drift."""
    fall = TIMES_THE_MARGIN * rules.equivalence * abs(variances.alignment)
    return fall, min(1.0, TIMES_THE_MARGIN * rules.null_margin)


def _falls(variances: Variances, effect: str, rules: Rules) -> tuple[Three, Three]:
    """How much alignment falls under each condition (cosine), and drift (nats/token)."""
    if effect == OBSERVED:
        return variances.fall, variances.drift
    fall, share = smallest_of_interest(variances, rules) if effect == OF_INTEREST else (0.0, 0.0)
    neutral = variances.drift[0]
    return (0.0, fall, 0.0), (neutral, neutral - share * abs(neutral), neutral)


def _elsewhere(variances: Variances, fall: Three) -> float:
    """What is left along other directions of what the observed effect did there."""
    before, now = abs(variances.fall[1]), abs(fall[1])
    return min(1.0, now / before) if before > 0 else 1.0


def _three(values: Array) -> Three:
    first, second, third = map(float, values)
    return first, second, third
