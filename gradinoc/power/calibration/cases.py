"""A world in which the rules are tried, the design of its studies, and the true values of the effects there."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradinoc.power.calibration.splits import true_splits
from gradinoc.power.scenarios import MIDDLE, Scenario, Sizes, band_depth
from gradinoc.power.simulated.latent import CORE, Latent
from gradinoc.power.simulated.trained import BATCH, fading
from gradinoc.study.prompts.family import Family

# Every number on which a claim rests, and no table beside: the prompts of the shipped studies, 24 and neutral measured,
# 13 and a rephrased pair and neutral trained under. One layer, which is the band, and few steps: studies are many.
DESIGN = Sizes(layers=1, positions=1, steps=6, evaluation=24, beside=False)
POWER, ALPHA = 0.80, 0.05


@dataclass(frozen=True)
class Case:
    """A scenario, the sizes of its studies, and which bars it has to meet beside those on false findings.

    `power` names the claims that have to be supported in at least 80 % of studies, since the effect is the stated one;
    a `typical` verdict has to be given as often. Where claims are `judged` by name, these and their gates alone are,
    and the verdict is what theirs would be with every other claim supported: what one of them gets wrong it gets wrong.
    """

    scenario: Scenario
    sizes: Sizes = DESIGN
    power: tuple[str, ...] = ()
    typical: str = ""
    judged: tuple[str, ...] = ()


def truths(case: Case, latent: Latent) -> dict[str, float]:
    """Finding and key of an effect -> its true value in this study, for the main effects that have one.

    Most are of the kind of prompt that prompts are drawn from, and alike in all studies. Elicitation is of the prompts
    that were drawn, as its interval is over questions. Where v is drawn anew, or drift lies at an end of the scale,
    only elicitation has a known value; a slope has none where alignment follows drift.
    """
    truth, prompts = latent.truth, latent.measured
    harmless = prompts.loc[(prompts["family"] == Family.HARMLESS), "elicitation"].mean()
    core = prompts.loc[prompts["condition"] == CORE[1], "elicitation"].item()
    known = {"G7.log_odds.inoculation": truth.odds * (core - harmless), "G3.loss": truth.loss * MIDDLE}
    left = prompts.loc[prompts["condition"] == CORE[1], "left"].item()
    works = truth.follows * (truth.fall + truth.slope * truth.loss) + truth.elicits > 0  # else it has no share
    if case.sizes.matched and works and LEFT < left < 1 - LEFT:
        known |= {"C5.share": truth.caused, "C5.share.same_loss": truth.caused}
        if truth.learns != 1:
            del known["C5.share"]  # at its end such a run has drifted less for having learned less
    if truth.core is not None:
        del known["G3.loss"]
    if truth.drawn_from or truth.core is not None:
        return known
    fall = truth.fall + truth.slope * truth.loss
    share = (truth.follows * fall + truth.elicits) * MIDDLE
    if share > 0:
        known |= {"C7b.share": truth.carried}
        known |= {f"C7a.{key}": value for key, value in true_splits(truth).items()}
    known["C1.families"] = fall * MIDDLE * band_depth(case.sizes.layers)
    removed = truth.conditional + truth.follows * truth.any_prompt + share
    noise = truth.noise
    widest = math.sqrt(3) * (noise.drift_template + noise.drift_family + noise.drift_prompt)  # of a template
    spread = noise.ratio * math.hypot(truth.follows * noise.prompt_alignment, noise.prompt_drift)  # of prompts
    left = 1 - min(removed, removed - share)  # of neutral's drift, where most of it is left
    on_scale = LEAST < truth.drift < MOST and truth.drift * (left + spread) < MOST
    if removed + spread < MOST and on_scale and widest < 1:
        known |= {"C6.share": share, "C6.removed": removed}
        if not truth.progress and not truth.between:
            known["C4.slope"] = _slope(case)
    return known


LEFT = 0.05  # of neutral drift, by inoculation, and taken off by it, at least
MOST, LEAST = 0.9, 0.05  # drift removed, and drift, beyond which scores reach an end of their scale


def _slope(case: Case) -> float:
    """Drift by score per unit of early alignment at equal covariates, flattened by alignment's own error."""
    truth, noise, sizes = case.scenario, case.scenario.noise, case.sizes
    early = max(1, sizes.steps // 3)
    left = float(fading(sizes.steps)[:early].mean())
    inoculating = sizes.trained[0] / sum(sizes.trained)
    own = noise.prompt_alignment**2 * (1 + inoculating * (noise.ratio**2 - 1)) + noise.run**2
    error = noise.step**2 / (early * BATCH) / left**2
    return truth.drift * truth.follows / left / band_depth(sizes.layers) * own / (own + error)
